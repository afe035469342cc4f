"""One real MLflow server for the session, and a small world of trips with a rule to learn."""

from __future__ import annotations

import datetime as dt
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec, load_model_spec
from pipelines.features.training_frame import FrameFeature, TrainingFrame

REPOSITORY = Path(__file__).resolve().parents[3]
UNTIL = dt.datetime(2013, 7, 1, tzinfo=dt.UTC)
NAMES = ["sight", "queue", "clock", "noise"]


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [
                sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
                "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port),
                "--workers", "1",
            ],
            stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()[-2000:]
                time.sleep(0.2)
        else:
            pytest.fail((folder / "log").read_text()[-2000:])
        yield address
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


@pytest.fixture(scope="session")
def artifacts_root(mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return next(tmp_path_factory.getbasetemp().glob("mlflow*")) / "artifacts"


@pytest.fixture(scope="session")
def frame() -> TrainingFrame:
    """60 days of 100 trips; lateness follows `queue` and the clock, `noise` says nothing."""
    generator = np.random.default_rng(5)
    rows = 60 * 100
    when = [dt.datetime(2013, 5, 1, 10, tzinfo=dt.UTC) + dt.timedelta(minutes=14.4 * n) for n in range(rows)]
    queue, hour = generator.normal(size=rows), np.arange(rows) % 24
    risk = 1 / (1 + np.exp(-(1.2 * queue + 0.05 * (hour - 12) - 1)))
    data = {
        "row_id": range(rows),
        "entity_id": [f"trip-{n}" for n in range(rows)],
        "event_timestamp": when,
        "carrier": np.where(np.arange(rows) % 3 == 0, "AA", "UA"),
        "hour": hour,
        "label_late": (generator.random(rows) < risk).astype(np.int8),
        "label_known_at_utc": [time + dt.timedelta(hours=4) for time in when],
        "sight": generator.normal(size=rows).astype(np.float32),
        "queue": queue.astype(np.float32),
        "clock": hour.astype(np.float32),
        "noise": generator.normal(size=rows).astype(np.float32),
    }
    features = [
        FrameFeature(name, "stored", "yard", ["carrier"], "FLOAT") if name != "clock"
        else FrameFeature(name, "on_demand", "calendar", [], "FLOAT")
        for name in NAMES
    ]  # fmt: skip
    return TrainingFrame(pl.DataFrame(data), features, "trips_v1", "x1", {"trips": 7})


@pytest.fixture(scope="session")
def join(frame: TrainingFrame) -> Callable[..., TrainingFrame]:
    """The feature store's answer: the true features of the asked rows."""

    def answer(_layout: StateLayout, feature_service: str, entity: pl.DataFrame) -> TrainingFrame:
        assert not set(NAMES) & set(entity.columns), "features must not be handed to the join"
        joined = entity.join(frame.frame.select("row_id", *NAMES), on="row_id", how="left")
        return TrainingFrame(joined, frame.features, feature_service, frame.export_id, frame.table_versions)

    return answer


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    late = load_model_spec(REPOSITORY / "specs" / "late.yaml")
    content = late.model_dump(mode="json")
    content |= {
        "name": "trips",
        "feature_service": "trips_v1",
        "features": {"yard": {"max_age": "P1D", "on_missing": "default"}},
        "entity_keys": ["carrier"],
        "slices": ["carrier"],
        "direction_tests": [{"feature": "queue", "add": 0.5, "expect": "up"}],
        "search": {
            "trials": 2,
            "sample_rows": 2000,
            "timeout_s": 60,
            "space": {"max_leaf_nodes": {"kind": "int", "low": 5, "high": 15}},
        },
    }
    content["estimator"]["ignore"] = []
    content["estimator"]["params"] |= {"min_samples_leaf": 50, "max_iter": 60, "max_features": 1.0}
    content["gates"] |= {"bootstrap_rounds": 200, "slice_margin": 0.1}
    return ModelSpec.model_validate(content)
