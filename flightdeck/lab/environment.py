"""What every child process of the lab finds in its environment: its addresses, one thread each, no telemetry."""

from __future__ import annotations

import os
from collections.abc import Mapping

from flightdeck.contracts.layout import STATE_ENV, StateLayout
from flightdeck.lab.ports import HOST

QUIET = {
    "DO_NOT_TRACK": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "FEAST_USAGE": "False",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
}


def addresses(ports: Mapping[str, int]) -> dict[str, str]:
    """Where the lab's processes are, in the words of each library."""
    return {
        "FLIGHTDECK_ONLINE_REDIS": f"{HOST}:{ports['redis-online']}",
        "FLIGHTDECK_STREAMS_REDIS": f"redis://{HOST}:{ports['redis-streams']}/0",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{ports['mlflow']}",
    }


def child_environment(layout: StateLayout, ports: Mapping[str, int], **more: str) -> dict[str, str]:
    """The parent's environment without what could lead a child elsewhere, plus the lab's own."""
    unwanted = ("PREDICTOR_", "BENTOML_", "MLFLOW_", "FEAST_", "FLIGHTDECK_ONLINE", "FLIGHTDECK_STREAMS", "ENVOY_")
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(unwanted) and key.lower() not in {"http_proxy", "https_proxy", "all_proxy"}
    }
    return {
        **kept,
        **QUIET,
        "BENTOML_HOME": str(layout.run / "bentoml"),
        STATE_ENV: str(layout.root),
        **addresses(ports),
        **more,
    }
