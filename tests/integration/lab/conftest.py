"""A tiny but real model artefact, and a stack of processes on free ports."""

from __future__ import annotations

import datetime as dt
import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pytest

from feature_repo.rowwise import CALENDAR_FEATURES
from flightdeck.contracts.artefact import (
    MANIFEST,
    ModelManifest,
    ServedFeature,
    ViewPolicy,
    file_digest,
    manifest_bytes,
)
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import OnMissing, Task
from flightdeck.contracts.release import ModelRef, Release
from flightdeck.lab.ports import free_port

STORED = ("departures_1h", "mean_dep_delay_min_1h")


def write_artefact(artefacts: Path) -> str:
    """A logistic model over calendar and congestion with small weights; returns the manifest's sha256."""
    names = [*CALENDAR_FEATURES, *STORED]
    weights = np.linspace(-1e-4, 1e-4, len(names), dtype=np.float32).reshape(-1, 1)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["features", "weights"], ["sum"]),
            onnx.helper.make_node("Sigmoid", ["sum"], ["score"]),
        ],
        "late",
        [onnx.helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, [None, len(names)])],
        [onnx.helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, [None, 1])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    folder = artefacts / "new"
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "model.onnx"))
    manifest = ModelManifest(
        model="late",
        task=Task.CLASSIFICATION,
        horizon_min=120,
        unit="probability",
        feature_project="flightdeck",
        feature_service="late_v1",
        features=[
            *(
                ServedFeature(
                    name=name, source="on_demand", view="calendar", join_keys=[], feast_type="FLOAT", default=0.0
                )
                for name in CALENDAR_FEATURES
            ),
            *(
                ServedFeature(
                    name=name, source="stored", view="congestion", join_keys=["origin"], feast_type="FLOAT", default=1.0
                )
                for name in STORED
            ),
        ],
        views={"congestion": ViewPolicy(max_age_s=3600.0, on_missing=OnMissing.DEFAULT)},
        decision_threshold=0.5,
        fallback_score=0.2,
        files=[file_digest(folder / "model.onnx")],
    )
    content = manifest_bytes(manifest)
    (folder / MANIFEST).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    folder.rename(artefacts / sha256)
    return sha256


@pytest.fixture
def layout(tmp_path: Path) -> StateLayout:
    return StateLayout(tmp_path / "state")


@pytest.fixture
def release(layout: StateLayout) -> Release:
    sha256 = write_artefact(layout.artefacts)
    return Release(image="test", model=ModelRef(name="late", version="1", sha256=sha256), feature_service="late_v1")  # type: ignore[call-arg]


@pytest.fixture
def ports() -> dict[str, int]:
    names = ("gateway", "gateway-admin", "mlflow", "redis-online", "redis-streams")
    return {name: free_port() for name in (*names, "predictor-1", "predictor-2", "predictor-3")}


@pytest.fixture
def request_row() -> dict[str, object]:
    return {
        "carrier": "UA",
        "flight": 1545,
        "origin": "EWR",
        "dest": "IAH",
        "sched_dep_utc": (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=120)).isoformat(),
        "tailnum": "N14228",
    }
