"""A schedule scored in one streaming pass into precomputed answers: rows/s of each part, and memory of two lengths.

Run: python benchmarks/bench_batch.py [--json] [--rows N]. Limit (issue: speed): 300,000 rows/s in the model alone,
on an idle machine. Side by side in the same run: the same model row by row, a plain loop; and rows per second of one
core's own time, which other work disturbs less. The model is a real fit of 200 trees on 20 made-up features; the join
is left out (docs/measurements.md has the feature store's own line).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from flightdeck.contracts.artefact import ONNX_FILE, ModelManifest, ServedFeature, ViewPolicy
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import OnMissing, Task
from flightdeck.contracts.release import ModelRef
from pipelines.batch.precomputed import Precomputed
from pipelines.batch.score import CHUNK_ROWS, score_schedule
from pipelines.features.training_frame import FrameFeature, TrainingFrame
from pipelines.registry.artefacts import bytes_digest, store
from pipelines.registry.runtime import OnnxModel
from pipelines.training.export import to_onnx
from pipelines.training.fit import estimator_of

LIMIT_ROWS_PER_S = 300_000
FEATURES = [f"f{number}" for number in range(20)]
NOW = dt.datetime(2013, 7, 1, 20, tzinfo=dt.UTC)
LOOP_ROWS = 5_000
PARAMS = {"max_iter": 200, "max_leaf_nodes": 15, "min_samples_leaf": 200}


def peak_mb() -> float:
    """Largest resident size of this process so far, megabytes (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # kilobytes on Linux, bytes on macOS


def values(rows: int, seed: int) -> np.ndarray:
    """Made-up features, shape (rows, 20)."""
    return np.random.default_rng(seed).normal(size=(rows, len(FEATURES))).astype(np.float32)


def artefact(layout: StateLayout) -> tuple[ModelRef, bytes]:
    """A fitted model of 200 trees in the state folder."""
    train = values(20_000, 1)
    target = (train[:, 0] + np.random.default_rng(2).normal(size=len(train)) > 0).astype(float)
    model = estimator_of(Task.CLASSIFICATION, PARAMS, early_stopping=False).fit(train, target)
    onnx = to_onnx(model, Task.CLASSIFICATION, len(FEATURES))
    served = {"source": "stored", "view": "made_up", "join_keys": ["key"], "feast_type": "FLOAT", "default": 0.0}
    manifest = ModelManifest(
        model="bench", task=Task.CLASSIFICATION, horizon_min=600, unit="probability", feature_project="bench",
        feature_service="bench_v1",
        features=[ServedFeature.model_validate({"name": name, **served}) for name in FEATURES],
        views={"made_up": ViewPolicy(max_age_s=3600.0, on_missing=OnMissing.DEFAULT)}, decision_threshold=0.5,
        fallback_score=0.5, files=[bytes_digest(ONNX_FILE, onnx)],
    )  # fmt: skip
    return ModelRef(name="bench", version="1", sha256=store(layout.artefacts, manifest, onnx)[0]), onnx


def schedule(rows: int) -> Iterator[pl.DataFrame]:
    """Entities with their features, a chunk at a time."""
    for first in range(0, rows, CHUNK_ROWS):
        count = min(CHUNK_ROWS, rows - first)
        made = values(count, first + 3)
        yield pl.DataFrame({
            "row_id": np.arange(first, first + count),
            "entity_id": [f"entity-{number}" for number in range(first, first + count)],
            "event_timestamp": pl.Series([NOW], dtype=pl.Datetime("us", "UTC")).new_from_index(0, count),
            **{name: made[:, column] for column, name in enumerate(FEATURES)},
        })  # fmt: skip


def there(_layout: StateLayout, feature_service: str, entity: pl.DataFrame) -> TrainingFrame:
    """The features came with the entities."""
    features = [FrameFeature(name, "stored", "made_up", ["key"], "FLOAT") for name in FEATURES]
    return TrainingFrame(entity, features, feature_service, "bench", {})


def measured(rows: int) -> dict[str, float]:
    """Rates in rows per second; memory in megabytes after a short and after the whole pass."""
    with tempfile.TemporaryDirectory() as folder:
        layout = StateLayout(Path(folder))
        ref, onnx = artefact(layout)
        model, one = OnnxModel(onnx), values(LOOP_ROWS, 7)
        started = time.perf_counter()
        for row in one:
            model.score(row[None, :])
        loop_s = time.perf_counter() - started
        batch, began = values(CHUNK_ROWS, 8), time.process_time()
        model.score(batch)
        core_s = time.process_time() - began
        answers, peaks, done = Precomputed(f"sqlite:///{folder}/answers.db"), [], None
        for day, part in ((1, min(rows, 2 * CHUNK_ROWS)), (2, rows)):
            done = score_schedule(
                ref, layout, answers, schedule(part), day=dt.date(2013, 7, day), as_of=NOW, join=there
            )
            peaks.append(peak_mb())
        assert done is not None
    return {
        "rows": done.answers,
        "score_rows_per_s": done.answers / done.score_s,
        "score_rows_per_core_s": len(batch) / core_s,
        "write_rows_per_s": done.answers / done.write_s,
        "score_and_write_rows_per_s": done.answers / (done.score_s + done.write_s),
        "plain_loop_rows_per_s": LOOP_ROWS / loop_s,
        "times_the_plain_loop": done.answers / done.score_s / (LOOP_ROWS / loop_s),
        "peak_mb_100000_rows": peaks[0],
        "peak_mb_all_rows": peaks[1],
    }


def main() -> int:
    """Print the figures; exit code 1 when the model alone is slower than its limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    found = measured(given.rows)
    if given.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:<28}{value:>14,.0f}")
    slow = found["score_rows_per_s"] < LIMIT_ROWS_PER_S
    if slow:
        print(f"the model alone scores fewer than {LIMIT_ROWS_PER_S:,} rows/s", file=sys.stderr)
    return int(slow)


if __name__ == "__main__":
    sys.exit(main())
