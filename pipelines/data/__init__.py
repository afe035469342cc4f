"""The lake: Delta tables, daily ingest, checks and quarantine."""
