"""A model artefact small enough to check by hand: the sigmoid of a weighted sum, nulls counting as zero.

For the predictor's tests and for measuring everything around a model; trained artefacts come from `flightdeck train`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from feature_repo.request import ON_DEMAND_FEATURES
from flightdeck.contracts.artefact import (
    MANIFEST,
    ONNX_FILE,
    ModelManifest,
    ServedFeature,
    ViewPolicy,
    file_digest,
    manifest_bytes,
)
from flightdeck.contracts.model_spec import OnMissing, Task

PROJECT = "flightdeck_test"
JOIN_KEYS = {
    "carrier_history": ["carrier"],
    "route_history": ["origin", "dest"],
    "weather": ["origin"],
    "congestion": ["origin"],
}
FEATURES = {
    "carrier_history": ["carrier_late_share_7d", "carrier_flights_7d"],
    "route_history": ["route_late_share_7d"],
    "weather": ["temp_f", "wind_speed_mph"],
    "congestion": ["departures_1h", "mean_delay_1h_min"],
}
MAX_AGE_S = {"carrier_history": 172_800.0, "route_history": 172_800.0, "weather": 10_800.0, "congestion": 3600.0}


def served_features() -> list[ServedFeature]:
    """On-demand features first, then each view's; the default of column i is i / 10."""
    named = [(name, "on_demand", "calendar", list[str]()) for name in ON_DEMAND_FEATURES]
    named += [(name, "stored", view, JOIN_KEYS[view]) for view, names in FEATURES.items() for name in names]
    return [
        ServedFeature.model_validate(
            {
                "name": name,
                "source": source,
                "view": view,
                "join_keys": sorted(keys),
                "feast_type": "FLOAT",
                "default": column / 10,
            }
        )
        for column, (name, source, view, keys) in enumerate(named)
    ]


def write_linear_artefact(
    artefacts: Path,
    *,
    model: str = "late",
    weights: Sequence[float] | None = None,
    on_missing: Mapping[str, OnMissing] | None = None,
    project: str = PROJECT,
    features: Sequence[ServedFeature] | None = None,
) -> str:
    """Write the artefact under `artefacts` and return its sha256."""
    served = list(features) if features is not None else served_features()
    given = list(weights) if weights is not None else [0.01] * len(served)
    staged = artefacts / ".staged"
    staged.mkdir(parents=True, exist_ok=True)
    (staged / ONNX_FILE).write_bytes(_sigmoid_of_sum(np.asarray(given, dtype=np.float32)).SerializeToString())
    manifest = ModelManifest(
        model=model,
        task=Task.CLASSIFICATION,
        horizon_min=120,
        unit="probability",
        feature_project=project,
        feature_service=f"{model}_v1",
        features=served,
        views={
            view: ViewPolicy(
                max_age_s=MAX_AGE_S.get(view, 3600.0), on_missing=(on_missing or {}).get(view, OnMissing.DEFAULT)
            )
            for view in {feature.view for feature in served if feature.source == "stored"}
        },
        decision_threshold=0.5,
        fallback_score=0.25,
        files=[file_digest(staged / ONNX_FILE)],
    )
    content = manifest_bytes(manifest)
    (staged / MANIFEST).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    if (artefacts / sha256).exists():
        return sha256
    staged.rename(artefacts / sha256)
    return sha256


def _sigmoid_of_sum(weights: np.ndarray) -> onnx.ModelProto:
    width = len(weights)
    constants = [
        numpy_helper.from_array(weights.reshape(width, 1), "weights"),
        numpy_helper.from_array(np.float32(0), "zero"),
    ]
    nodes = [
        helper.make_node("IsNaN", ["features"], ["unknown"]),
        helper.make_node("Where", ["unknown", "zero", "features"], ["known"]),
        helper.make_node("MatMul", ["known", "weights"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["score"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
