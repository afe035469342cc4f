"""Small evidence, checkable by hand: 20 days, 40 rows a day, a candidate that is right and calibrated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flightdeck.contracts.model_spec import ModelSpec, load_model_spec
from pipelines.gates.evidence import Evidence, Footprint, Rejoined, Scored, Truncated

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    loaded = load_model_spec(REPOSITORY / "specs" / "late.yaml")
    gates = loaded.gates.model_copy(update={"slice_min_rows": 100, "bootstrap_rounds": 200})
    return loaded.model_copy(update={"gates": gates, "slices": ["carrier"], "direction_tests": []})


@pytest.fixture(scope="session")
def scored() -> Scored:
    generator = np.random.default_rng(3)
    rows = 20 * 200
    truth = generator.choice([0.05, 0.15, 0.3, 0.6], size=rows)
    label = (generator.random(rows) < truth).astype(float)
    return Scored(
        label=label,
        day=np.repeat(np.arange(20), 200),
        candidate=truth,
        baseline=np.full(rows, label.mean()),
        champion=np.where(generator.random(rows) < 0.3, 0.2, truth),
        sklearn=truth + 1e-7,
        slices={"carrier": np.where(np.arange(rows) % 2 == 0, "AA", "UA")},
    )


@pytest.fixture
def evidence(spec: ModelSpec, scored: Scored) -> Callable[..., Evidence]:
    """Evidence that passes every gate, with the given fields of it or of its scores replaced."""

    def make(**changes: Any) -> Evidence:
        of_scores = {item.name for item in dataclasses.fields(Scored)}
        inner = {key: value for key, value in changes.items() if key in of_scores}
        outer = {key: value for key, value in changes.items() if key not in of_scores}
        whole: dict[str, Any] = {
            "spec": spec,
            "scored": dataclasses.replace(scored, **inner),
            "champion_version": "1",
            "features": ["a", "b"],
            "separations": {"a": 0.6, "b": 0.7},
            "moved": {},
            "footprint": Footprint(latency_p99_ms=0.02, memory_mb=20, size_mb=0.3),
            "model_inputs": 2,
            "service_features": ["a", "b"],
            "service_views": ["weather"],
            "manifest_views": ["weather"],
            "rejoined": Rejoined(2000, {"a": 0, "b": 0}),
            "truncated": Truncated(500, ""),
            "problems": {},
        }
        return Evidence(**{**whole, **outer})

    return make
