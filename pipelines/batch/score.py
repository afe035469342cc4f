"""Entry point: score a schedule with one version in one streaming pass; memory holds one chunk, however long it is."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import datetime as dt
import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import ModelRef
from pipelines.batch.precomputed import Precomputed
from pipelines.registry.artefacts import opened
from pipelines.registry.runtime import OnnxModel
from pipelines.training.dataset import TIME, filled, matrix

if TYPE_CHECKING:
    from pipelines.gates.measure import Join

CHUNK_ROWS = 50_000
ENTITY = "entity_id"


class WrongHorizon(ValueError):
    """The version was not judged for answers so long ahead, or the moment to ask has passed."""


@dataclasses.dataclass(frozen=True)
class BatchScored:
    """What a pass did; seconds of each part."""

    run_id: str
    answers: int
    join_s: float
    score_s: float
    write_s: float
    total_s: float


def chunks(schedule: pl.DataFrame, rows: int = CHUNK_ROWS) -> Iterator[pl.DataFrame]:
    """A frame in parts."""
    return schedule.iter_slices(rows)


def score_schedule(
    ref: ModelRef,
    layout: StateLayout,
    answers: Precomputed,
    schedule: Iterable[pl.DataFrame],
    *,
    day: dt.date,
    as_of: dt.datetime,
    longest_horizon_min: int | None = None,
    threads: int | None = None,
    join: Join | None = None,
    tell: Callable[[int], None] = lambda _: None,
) -> BatchScored:
    """Score a day's schedule with features as known at `as_of`, and make it the day's answer.

    Killed at any moment, it leaves the answers as they were; a repeat is a run of its own.

    Args:
        ref: the version; its artefact is in the state folder.
        schedule: entities to predict, in chunks: `row_id`, `entity_id`, `event_timestamp` (the prediction time that
            belongs to the version's own horizon), join keys, request fields.
        day: the schedule's day in the source's zone: the lookup's key.
        longest_horizon_min: from the scoring to the event (default: what the version's manifest says, no longer). A
            longer one is what the version was not judged for.
        threads: that run the model (default: one per core).
        join: point-in-time features of entities (default: the feature store's, from its newest export).
        tell: called with the number of answers so far.
    Raises:
        ArtefactError: the artefact is absent or altered.
        WrongHorizon: an entity's moment to ask lies before `as_of`, or too far behind it; nothing was changed.
        IntegrityError: an entity is in the schedule twice. Overtaken: a newer run is the day's answer already.
    """
    if join is None:
        from pipelines.gates.measure import store_join

        join = store_join
    manifest, onnx = opened(layout.artefacts, ref.sha256)
    model, names = OnnxModel(onnx), [item.name for item in manifest.features]
    defaults = np.array([item.default for item in manifest.features], dtype=np.float32)
    longest = manifest.horizon_min if longest_horizon_min is None else longest_horizon_min
    parts = threads or os.cpu_count() or 1
    run, count, began = answers.begin(ref, day, as_of), 0, time.perf_counter()
    join_s = score_s = write_s = 0.0
    with concurrent.futures.ThreadPoolExecutor(parts) as pool:
        for chunk in (part for part in schedule if part.height):
            horizons = horizons_min(chunk, as_of, manifest.horizon_min, longest)
            started = time.perf_counter()
            asked = chunk.with_columns(pl.lit(as_of.astimezone(dt.UTC), dtype=pl.Datetime("us", "UTC")).alias(TIME))
            joined = join(layout, manifest.feature_service, asked).frame
            at_join = time.perf_counter()
            values = np.array_split(filled(matrix(joined, names), defaults), min(parts, chunk.height))
            scores = np.concatenate(list(pool.map(model.score, values)))  # one session, which any thread may run
            at_score = time.perf_counter()
            answers.write(run, joined[ENTITY].to_list(), scores.tolist(), horizons.tolist())
            join_s, score_s = join_s + at_join - started, score_s + at_score - at_join
            write_s += time.perf_counter() - at_score
            count += chunk.height
            tell(count)
    answers.finish(run, count)
    return BatchScored(run.id, count, join_s, score_s, write_s, time.perf_counter() - began)


def horizons_min(chunk: pl.DataFrame, as_of: dt.datetime, horizon_min: int, longest_min: int) -> npt.NDArray[np.int64]:
    """Whole minutes from `as_of` to each entity's event, shape (rows,).

    Raises:
        WrongHorizon: below the version's own horizon (the moment to ask has passed), or beyond the longest.
    """
    ahead_s = (chunk[TIME] - as_of).dt.total_seconds().to_numpy()
    horizons = (ahead_s // 60 + horizon_min).astype(np.int64)
    early, far = int(np.count_nonzero(ahead_s < 0)), int(np.count_nonzero(horizons > longest_min))
    if early:
        raise WrongHorizon(
            f"{early:,} of {chunk.height:,} entities should have been asked about before {as_of.isoformat()}; leave "
            "them out of the schedule: they are answered online"
        )
    if far:
        raise WrongHorizon(
            f"{far:,} of {chunk.height:,} entities lie up to {horizons.max():,} minutes ahead; the version answers for "
            f"{horizon_min:,}, at most {longest_min:,}: a longer horizon is a spec of its own"
        )
    return horizons
