"""Uses models: each service is a process of its own."""
