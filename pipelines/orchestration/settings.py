"""What the code location reads from its environment, once: how people reach MLflow's pages."""

from __future__ import annotations

import os

PAGE_ENV = "FLIGHTDECK_MLFLOW_PAGE"  # where a browser finds MLflow; pods know it by another name


def mlflow_run_url(tracking_uri: str, run_id: str) -> str | None:
    """The page of a run, None when the tracking store has no pages."""
    page = os.environ.get(PAGE_ENV) or tracking_uri
    return f"{page.rstrip('/')}/#/runs/{run_id}" if page.startswith("http") else None
