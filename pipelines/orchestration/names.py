"""Names that definitions, manifests and the command line share: jobs, tags, groups."""

from __future__ import annotations

import re

DAILY, BACKFILL, PREDICTIONS, UPKEEP = "daily", "backfill", "predictions", "upkeep"

# Tags of a job, which its runs inherit. k8s/base/platform/dagster/dagster.yaml limits runs by the first two.
MODEL_TAG = "flightdeck/model"  # one run at a time per model
WRITES_TAG = "flightdeck/writes"  # one run at a time per thing written, e.g. the lake's days
TAKES_TAG = "flightdeck/takes"  # what `flightdeck pipeline run` may give: days, until
THEN_TAG = "flightdeck/then"  # the job that follows a success
AFTER_TAG = "flightdeck/after"  # on a run: the run that it follows
MAX_RUNTIME_TAG = "dagster/max_runtime"  # seconds; the daemon ends a run that takes longer

DAYS, UNTIL = "days", "until"


def train_job(model: str) -> str:
    """The job that trains a candidate of a model."""
    return f"train_{identifier(model)}"


def gate_job(model: str) -> str:
    """The job that judges a candidate, and registers and publishes the version."""
    return f"gate_{identifier(model)}"


def identifier(name: str) -> str:
    """Dagster's names hold letters, digits and underscores only."""
    return re.sub(r"[^A-Za-z0-9_]", "_", name)
