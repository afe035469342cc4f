"""Makes models: each step is a plain function that a command, a job or an orchestrator can call."""
