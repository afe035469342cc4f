"""Dagster around the pipelines: the functions of the lab and of the command line as assets, checks and jobs."""
