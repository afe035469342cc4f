"""Adapter: what is usual for one registered version, out of its training window and its holdout."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from flightdeck.contracts.artefact import ModelManifest
from flightdeck.contracts.model_spec import ModelSpec
from pipelines.gates.measure import scores
from pipelines.monitoring.concept import Promise, day_quality, promise
from pipelines.monitoring.finding import ANSWERS
from pipelines.monitoring.profile import Vectors
from pipelines.monitoring.watch import Watch, watch
from pipelines.registry.artefacts import opened
from pipelines.training.candidate import DAY, SKLEARN_SCORE, Candidate
from pipelines.training.dataset import TIME, Window, filled, matrix
from pipelines.training.train import joined_frame
from pipelines.use_case import UseCase

ANSWERS_VIEW = "model"


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What one version's days are compared with.

    Args:
        promise: of the holdout; None: its days are too few or too thin, `problem` says why.
    """

    spec: ModelSpec
    manifest: ModelManifest
    sha256: str
    watch: Watch
    promise: Promise | None
    problem: str = ""


def baseline(
    candidate: Candidate, use_case: UseCase, *, declared_season: Collection[str] = (), cache: Path | None = None
) -> Baseline:
    """Measure what is usual, out of the features of the training window and the holdout.

    Args:
        declared_season: features that are bound to the season, beside those that are measured to be.
        cache: a folder for the joined window; a version's window never changes.
    Raises:
        ArtefactError: the artefact is absent or altered.
        ExportError, RegistryError, TrainingFrameError, LakeError: the window cannot be joined again.
        ValueError: fewer than 20 days.
    """
    manifest, onnx = opened(candidate.layout.artefacts, candidate.sha256)
    names = [item.name for item in manifest.features]
    facts = candidate.facts
    kept = cache / f"{candidate.sha256}.parquet" if cache else None
    if kept is not None and kept.is_file():
        frame = pl.read_parquet(kept)
    else:
        times = Window(facts.train_from, facts.holdout_from, facts.holdout_until)
        joined = joined_frame(candidate.spec, candidate.layout, times, facts.until_utc).frame
        frame = joined.select(TIME, *names).with_columns(pl.Series(ANSWERS, scores(manifest, onnx, joined)))
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            draft = kept.with_suffix(".tmp")
            frame.write_parquet(draft)
            draft.replace(kept)
    vectors = vectors_of(
        frame, matrix(frame, names), frame[ANSWERS].to_numpy(), time=TIME, manifest=manifest, use_case=use_case
    )
    of = watch(
        vectors, views_of(manifest), facts.importances, ignored=candidate.spec.estimator.ignore,
        declared_season=declared_season,
    )  # fmt: skip
    try:
        return Baseline(candidate.spec, manifest, candidate.sha256, of, promise_of(candidate))
    except ValueError as error:
        return Baseline(candidate.spec, manifest, candidate.sha256, of, None, str(error))


def promise_of(candidate: Candidate) -> Promise:
    """Of the days of the holdout.

    Raises:
        ValueError: too few of them.
    """
    held = candidate.holdout.select(
        pl.col(DAY).alias("day_local"), pl.col(candidate.spec.target.label).cast(pl.Float64).alias("value"),
        pl.col(SKLEARN_SCORE).alias("score"),
    )  # fmt: skip
    return promise(day_quality(held, candidate.spec.task), candidate.spec.task)


def views_of(manifest: ModelManifest) -> dict[str, str]:
    """Feature -> view, and the answers."""
    return {**{item.name: item.view for item in manifest.features}, ANSWERS: ANSWERS_VIEW}


def vectors_of(
    frame: pl.DataFrame,
    values: np.ndarray[Any, Any],
    score: np.ndarray[Any, Any],
    *,
    time: str,
    manifest: ModelManifest,
    use_case: UseCase,
) -> Vectors:
    """Rows as the model sees them, with their answers as a last column, in local time."""
    defaults = np.array([item.default for item in manifest.features], dtype=np.float32)
    local = frame[time].dt.convert_time_zone(str(use_case.time_zone))
    days = (local.dt.date().to_physical() + 719_163).to_numpy()  # polars counts days from 1970, Python from year 1
    return Vectors(
        (*(item.name for item in manifest.features), ANSWERS),
        np.column_stack([filled(values.astype(np.float32), defaults), score.astype(np.float32)]),
        days.astype(np.int64),
        local.dt.hour().to_numpy().astype(np.int64),
    )
