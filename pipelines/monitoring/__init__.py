"""Watches what a served model is asked, what it answers and what became of it (docs/monitoring.md)."""
