"""Measures of a model on scored rows, and how far chance moves them.

Rows of one day share its luck, so they are not independent: the bootstrap draws whole days (cluster bootstrap,
Efron and Tibshirani 1993, ch. 8). Every measure here is a function of sums per day (or per pair of days), so one
round is a small matrix product and not a pass over the rows.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flightdeck.contracts.card import Interval
from flightdeck.contracts.model_spec import Task

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

CALIBRATION_BINS = 10
MIN_DAYS = 5  # fewer clusters give no usable interval


class NotComputable(ValueError):
    """A measure that this data cannot give; a gate that meets it holds the candidate."""


def checked(label: Floats, score: Floats) -> tuple[Floats, Floats]:
    """Both as float64 of one length; refuses what no measure can use.

    Raises:
        NotComputable: no rows, unequal lengths, NaN or infinity.
    """
    label, score = np.asarray(label, dtype=np.float64), np.asarray(score, dtype=np.float64)
    if label.shape != score.shape or label.ndim != 1 or not label.size:
        raise NotComputable(f"needs as many scores as labels and at least one; got {label.shape} and {score.shape}")
    bad = int(np.count_nonzero(~np.isfinite(score)) + np.count_nonzero(~np.isfinite(label)))
    if bad:
        raise NotComputable(f"{bad} of {label.size} labels or scores are NaN or infinite")
    return label, score


class Measure(Protocol):
    """A metric as sums per day: its value for any number of copies of each day."""

    def value(self, day_counts: Floats) -> Floats:
        """The metric per round; `day_counts` has shape (rounds, days). NaN where a round cannot be computed."""
        ...


@dataclasses.dataclass(frozen=True)
class AucByDay:
    """Area under the ROC curve as pairs won between the positives of one day and the negatives of another.

    won: shape (days, days); positives, negatives: shape (days,).
    """

    won: Floats
    positives: Floats
    negatives: Floats

    @classmethod
    def of(cls, label: Floats, score: Floats, day: Ints, days: int) -> AucByDay:
        """From rows; `day` numbers each row's day from 0."""
        positive = label > 0.5
        by_day = [np.sort(score[(day == d) & ~positive]) for d in range(days)]
        chosen, of_day = score[positive], day[positive]
        won = np.empty((days, days))
        for d, negatives in enumerate(by_day):
            below = np.searchsorted(negatives, chosen, side="left") + np.searchsorted(negatives, chosen, side="right")
            won[:, d] = np.bincount(of_day, weights=below / 2, minlength=days)  # a tie is half a win
        count = np.bincount(day[positive], minlength=days).astype(float)
        return cls(won, count, np.array([len(negatives) for negatives in by_day], dtype=float))

    def value(self, day_counts: Floats) -> Floats:
        """See `Measure`."""
        won = np.einsum("rd,de,re->r", day_counts, self.won, day_counts, optimize=True)
        pairs = (day_counts @ self.positives) * (day_counts @ self.negatives)
        return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


@dataclasses.dataclass(frozen=True)
class RmseByDay:
    """Root mean squared error; squared: sum of squares per day; rows: per day."""

    squared: Floats
    rows: Floats

    @classmethod
    def of(cls, label: Floats, score: Floats, day: Ints, days: int) -> RmseByDay:
        """From rows; `day` numbers each row's day from 0."""
        return cls(
            np.bincount(day, weights=(label - score) ** 2, minlength=days).astype(float),
            np.bincount(day, minlength=days).astype(float),
        )

    def value(self, day_counts: Floats) -> Floats:
        """See `Measure`."""
        rows = day_counts @ self.rows
        squared = day_counts @ self.squared
        return np.sqrt(np.divide(squared, rows, out=np.full(len(rows), np.nan), where=rows > 0))


@dataclasses.dataclass(frozen=True)
class CalibrationByDay:
    """Expected calibration error (classification) or absolute bias (regression), as sums per day and bin.

    gap: shape (days, bins), sum of score minus label; rows: per day.
    """

    gap: Floats
    rows: Floats

    @classmethod
    def of(cls, label: Floats, score: Floats, day: Ints, days: int, *, bins: int) -> CalibrationByDay:
        """From rows; bins hold equally many rows; one bin gives the absolute bias."""
        which = bin_of(score, bins)
        gap = np.bincount(day * bins + which, weights=score - label, minlength=days * bins).reshape(days, bins)
        return cls(gap.astype(float), np.bincount(day, minlength=days).astype(float))

    def value(self, day_counts: Floats) -> Floats:
        """See `Measure`."""
        rows = day_counts @ self.rows
        gap = np.abs(day_counts @ self.gap).sum(axis=1)
        return np.divide(gap, rows, out=np.full(len(rows), np.nan), where=rows > 0)


def bin_of(score: Floats, bins: int) -> Ints:
    """Number of the equal-count bin of each row, shape (rows,), 0 to bins-1; equal scores share a bin."""
    edges = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1])) if bins > 1 else np.empty(0)
    return np.searchsorted(edges, score, side="right")


def day_numbers(day: npt.NDArray[Any]) -> tuple[Ints, int]:
    """Each row's day as a number from 0, and how many days there are."""
    values, number = np.unique(day, return_inverse=True)
    return number.astype(np.int64), len(values)


def measure_of(task: Task, label: Floats, score: Floats, day: npt.NDArray[Any]) -> Measure:
    """The task's quality metric: AUC (higher is better), or RMSE in the target's unit (lower is better).

    RMSE, because a regression here predicts the expected value, and that is what RMSE rewards.

    Raises:
        NotComputable: no rows, NaN or infinity, or only one class.
    """
    label, score = checked(label, score)
    number, days = day_numbers(day)
    if task is Task.REGRESSION:
        return RmseByDay.of(label, score, number, days)
    if not 0 < label.mean() < 1:
        raise NotComputable(f"AUC needs both classes; all {label.size} labels are {label[0]:g}")
    return AucByDay.of(label, score, number, days)


def calibration_of(task: Task, label: Floats, score: Floats, day: npt.NDArray[Any]) -> Measure:
    """Expected calibration error over ten bins of equally many rows, or the absolute bias of a regression."""
    label, score = checked(label, score)
    number, days = day_numbers(day)
    bins = CALIBRATION_BINS if task is Task.CLASSIFICATION else 1
    return CalibrationByDay.of(label, score, number, days, bins=bins)


def point(measure: Measure, days: int) -> float:
    """The metric on the rows as they are."""
    return float(measure.value(np.ones((1, days)))[0])


def resample(days: int, rounds: int, seed: int = 0) -> Floats:
    """How often each day is drawn, shape (rounds, days); one set for both models makes the comparison paired.

    Raises:
        NotComputable: fewer than MIN_DAYS days.
    """
    if days < MIN_DAYS:
        raise NotComputable(f"{days} day(s); an interval over days needs at least {MIN_DAYS}")
    return np.random.default_rng(seed).multinomial(days, np.full(days, 1 / days), size=rounds).astype(float)


def interval(value: float, rounds: Floats, confidence: float) -> Interval:
    """Percentile interval of the bootstrap rounds around the measured value.

    Raises:
        NotComputable: the value is not finite, or a tenth of the rounds could not be computed.
    """
    usable = rounds[np.isfinite(rounds)]
    if not math.isfinite(value) or usable.size < 0.9 * rounds.size:
        raise NotComputable(f"value {value}, {usable.size} of {rounds.size} bootstrap rounds usable")
    low, high = np.quantile(usable, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def z_of(confidence: float, comparisons: int = 1) -> float:
    """Normal quantile of a two-sided interval, shared between so many comparisons (Bonferroni)."""
    return statistics.NormalDist().inv_cdf(1 - (1 - confidence) / 2 / max(1, comparisons))


def separation(feature: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """How well one number alone separates two groups: its AUC, mirrored to 0.5..1; a constant gives 0.5.

    Ranks with ties averaged (Mann-Whitney); NaN rows are left out.
    """
    usable = np.isfinite(feature)
    feature, positive = feature[usable], positive[usable]
    wins, losses = int(positive.sum()), int((~positive).sum())
    if not wins or not losses:
        return 0.5
    _, inverse, counts = np.unique(feature, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    auc = (mean_rank[inverse][positive].sum() - wins * (wins + 1) / 2) / (wins * losses)
    return float(max(auc, 1 - auc))
