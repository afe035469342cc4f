"""A trained model of four made-up features, and a schedule of any length with them; also runs in a process of its own.

`python schedule.py STATE VERSION SHA256 ROWS` scores tomorrow's schedule in chunks of 100 and prints how many answers
there are after each, so that a test can kill it in the middle.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from flightdeck.contracts.artefact import ONNX_FILE as ONNX
from flightdeck.contracts.artefact import ModelManifest, ServedFeature, ViewPolicy
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import OnMissing, Task
from flightdeck.contracts.release import ModelRef
from pipelines.batch.precomputed import Precomputed, precomputed_url
from pipelines.batch.score import score_schedule
from pipelines.features.training_frame import FrameFeature, TrainingFrame
from pipelines.registry.artefacts import bytes_digest, store

NAMES = ["sight", "queue", "clock", "noise"]
NOW = dt.datetime(2013, 7, 1, 20, tzinfo=dt.UTC)
TOMORROW = dt.date(2013, 7, 2)
HORIZON_MIN = 600


def features(numbers: np.ndarray) -> np.ndarray:
    """Of entity n, always the same; each hundredth value is missing."""
    values = np.stack([np.sin(numbers * (column + 1) * 0.37) for column in range(len(NAMES))], axis=1)
    values[(numbers % 100) == 7, 1] = np.nan
    return values.astype(np.float32)


def artefact(layout: StateLayout, version: str) -> ModelRef:
    """A fitted model; another version is another one."""
    from pipelines.training.export import to_onnx
    from pipelines.training.fit import estimator_of

    generator = np.random.default_rng(int(version))
    values = features(np.arange(2000))
    target = (generator.random(2000) < 0.5 + 0.4 * np.nan_to_num(values[:, int(version) % 4])).astype(float)
    model = estimator_of(Task.CLASSIFICATION, {"max_iter": 20, "max_leaf_nodes": 7}).fit(np.nan_to_num(values), target)
    onnx = to_onnx(model, Task.CLASSIFICATION, len(NAMES))
    manifest = ModelManifest(
        model="trips", task=Task.CLASSIFICATION, horizon_min=HORIZON_MIN, unit="probability",
        feature_project="flightdeck", feature_service="trips_v1",
        features=[
            ServedFeature(
                name=name, source="stored", view="yard", join_keys=["trip"], feast_type="FLOAT", default=0.25
            )
            for name in NAMES
        ],
        views={"yard": ViewPolicy(max_age_s=3600.0, on_missing=OnMissing.DEFAULT)},
        decision_threshold=0.5, fallback_score=0.5, files=[bytes_digest(ONNX, onnx)],
    )  # fmt: skip
    return ModelRef(name="trips", version=version, sha256=store(layout.artefacts, manifest, onnx)[0])


def schedule(rows: int, chunk: int, *, ask_at: dt.datetime = NOW) -> Iterator[pl.DataFrame]:
    """Entities `trip-0` and on, to be asked about at `ask_at`."""
    for first in range(0, rows, chunk):
        numbers = np.arange(first, min(first + chunk, rows))
        yield pl.DataFrame({
            "row_id": numbers, "entity_id": [f"trip-{number}" for number in numbers], "trip": numbers,
            "event_timestamp": pl.Series([ask_at] * len(numbers), dtype=pl.Datetime("us", "UTC")),
        })  # fmt: skip


def join(_layout: StateLayout, feature_service: str, entity: pl.DataFrame) -> TrainingFrame:
    """The feature store's answer."""
    values = features(entity["trip"].to_numpy())
    found = entity.with_columns(pl.Series(name, values[:, column]) for column, name in enumerate(NAMES))
    return TrainingFrame(
        found, [FrameFeature(name, "stored", "yard", ["trip"], "FLOAT") for name in NAMES], feature_service, "x1", {}
    )


def main(state: str, version: str, sha256: str, rows: str) -> None:
    layout, ref = StateLayout(Path(state)), ModelRef(name="trips", version=version, sha256=sha256)
    score_schedule(
        ref, layout, Precomputed(precomputed_url(layout)), schedule(int(rows), 100), day=TOMORROW,
        as_of=NOW, join=join, tell=lambda count: print(count, flush=True),
    )  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
