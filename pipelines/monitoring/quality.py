"""Live quality of matured answers: metric, calibration and mean error with intervals, by day, version and slice. Pure.

From five days on intervals come from a bootstrap of whole days (pipelines/gates/metrics.py). Fewer days get the
analytic ones, which take the rows of a day for independent and are therefore too narrow for anything but that very
day: AUC by Hanley and McNeil (The Meaning and Use of the Area under a ROC Curve, Radiology 1982), means and mean
squares by the normal approximation.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from flightdeck.contracts.card import Interval
from flightdeck.contracts.model_spec import Task
from pipelines.data.labels import Maturity
from pipelines.gates.metrics import (
    MIN_DAYS,
    Floats,
    Measure,
    NotComputable,
    calibration_of,
    day_numbers,
    interval,
    measure_of,
    point,
    resample,
    z_of,
)

LEAST_ROWS = 30
ROUNDS = 400
DAY = "day_local"
NOTHING = Interval(value=None, low=None, high=None)


@dataclasses.dataclass(frozen=True)
class Quality:
    """Of one group of answers.

    Args:
        by, value: the group, e.g. `version`, `7`; `all` and empty: every answer.
        rows: matured ones, on which the figures stand. waiting, lost, excluded: others, by `Maturity`.
        metric: AUC, or RMSE in the target's unit. calibration: expected calibration error, or the absolute bias.
        error: mean of label minus score, in the target's unit.
        problem: why there are no figures; empty when there are.
    """

    by: str
    value: str
    rows: int
    days: int
    waiting: int
    lost: int
    excluded: int
    degraded: int
    metric: Interval
    calibration: Interval
    error: Interval
    problem: str = ""


def live_quality(
    rows: pl.DataFrame, task: Task, *, slices: Sequence[str] = (), confidence: float = 0.95, seed: int = 0
) -> list[Quality]:
    """Quality of all rows, and by day, version, release and slice.

    Args:
        rows: of `pipelines.data.labels.with_labels`: `maturity`, `value`, `score`, `day_local`, `version`, `release`,
            `degraded`, `entity_id`, `asked_at_utc`, and the slice columns. Of several answers of a release about one
            entity the newest counts, and of a tie the one with the larger request id and row.
        slices: columns; a null is the group `(none)`.
    """
    if rows.is_empty():
        return [Quality("all", "", 0, 0, 0, 0, 0, 0, NOTHING, NOTHING, NOTHING, "no answers")]
    once = newest_answers(rows)
    found = [_quality(("all", ""), once, task, confidence, seed)]
    for by in [DAY, "version", "release", *(name for name in slices if name in once.columns)]:
        named = once.with_columns(_group=pl.col(by).cast(pl.String).fill_null("(none)"))
        for (value,), part in sorted(named.partition_by("_group", as_dict=True).items()):
            found.append(_quality((by, str(value)), part.drop("_group"), task, confidence, seed))
    return found


def newest_answers(rows: pl.DataFrame) -> pl.DataFrame:
    """One answer per entity and release; the rows of answers that name no entity stay as they are."""
    named = rows.filter(pl.col("entity_id") != "")
    once = named.sort("asked_at_utc", "request_id", "row").unique(
        subset=["entity_id", "release"], keep="last", maintain_order=True
    )
    return pl.concat([once, rows.filter(pl.col("entity_id") == "")])


def _quality(group: tuple[str, str], rows: pl.DataFrame, task: Task, confidence: float, seed: int) -> Quality:
    counts = dict(rows["maturity"].value_counts().iter_rows())
    matured = rows.filter(pl.col("maturity") == Maturity.MATURED.value)
    label, score, day = (matured[name].to_numpy() for name in ("value", "score", DAY))
    days = len(np.unique(day))
    (metric, calibration, error), problem = (NOTHING, NOTHING, NOTHING), ""
    if matured.height < LEAST_ROWS:
        problem = f"{matured.height} matured answers; {LEAST_ROWS} are needed"
    else:
        try:
            metric, calibration, error = _figures(task, label, score, day, confidence=confidence, seed=seed)
        except NotComputable as reason:
            problem = str(reason)
    return Quality(
        *group, matured.height, days, counts.get(Maturity.WAITING.value, 0), counts.get(Maturity.LOST.value, 0),
        counts.get(Maturity.EXCLUDED.value, 0), int((rows["degraded"].list.len() > 0).sum()), metric,
        calibration, error, problem,
    )  # fmt: skip


def _figures(
    task: Task, label: Floats, score: Floats, day: npt.NDArray[np.generic], *, confidence: float, seed: int
) -> list[Interval]:
    number, days = day_numbers(day)
    measures: list[Measure] = [
        measure_of(task, label, score, day),
        calibration_of(task, label, score, day),
        ErrorByDay.of(label, score, number, days),
    ]
    values = [point(measure, days) for measure in measures]
    if days >= MIN_DAYS:
        counts = resample(days, ROUNDS, seed)
        return [
            interval(value, measure.value(counts), confidence) for value, measure in zip(values, measures, strict=True)
        ]
    errors = [metric_error(task, values[0], label, score), None, float(np.std(label - score) / math.sqrt(len(label)))]
    z = z_of(confidence)
    return [
        Interval(value=value, low=None, high=None) if error is None
        else Interval(value=value, low=value - z * error, high=value + z * error)
        for value, error in zip(values, errors, strict=True)
    ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class ErrorByDay:
    """Mean of label minus score; sums and rows per day, shape (days,)."""

    total: Floats
    rows: Floats

    @classmethod
    def of(cls, label: Floats, score: Floats, day: npt.NDArray[np.integer], days: int) -> ErrorByDay:
        """From rows; `day` numbers each row's day from 0."""
        return cls(
            np.bincount(day, weights=label - score, minlength=days).astype(float),
            np.bincount(day, minlength=days).astype(float),
        )

    def value(self, day_counts: Floats) -> Floats:
        """See `pipelines.gates.metrics.Measure`."""
        rows = day_counts @ self.rows
        return np.divide(day_counts @ self.total, rows, out=np.full(len(rows), np.nan), where=rows > 0)


def metric_error(task: Task, value: float, label: Floats, score: Floats) -> float:
    """Standard error of the metric when rows are independent."""
    if task is Task.REGRESSION:
        squared = (label - score) ** 2
        return float(squared.std() / math.sqrt(len(label)) / max(2 * value, 1e-12))  # delta method on the root
    positives = float((label > 0.5).sum())
    negatives = len(label) - positives
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (positives - 1) * (q1 - value**2) + (negatives - 1) * (q2 - value**2)
    return math.sqrt(max(0.0, variance) / (positives * negatives))
