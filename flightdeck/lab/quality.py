"""Measures that the lab computes itself on live predictions. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def auc(label: Array, score: Array) -> float | None:
    """Area under the ROC curve (Mann-Whitney U over all pairs, a tie is half a win); None with only one class."""
    positive = np.asarray(label) > 0.5
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return None
    _, inverse, counts = np.unique(np.asarray(score, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def roc(label: Array, score: Array, points: int = 200) -> tuple[Array, Array]:
    """False and true positive share over falling thresholds, thinned to about `points`."""
    order = np.argsort(-np.asarray(score, dtype=np.float64), kind="stable")
    hit = np.asarray(label)[order] > 0.5
    true, false = np.cumsum(hit), np.cumsum(~hit)
    at = np.unique(np.linspace(0, len(order) - 1, min(points, len(order))).astype(int))
    return (
        np.concatenate([[0.0], false[at] / max(1, false[-1])]),
        np.concatenate([[0.0], true[at] / max(1, true[-1])]),
    )


def calibration(label: Array, score: Array, bins: int = 10) -> tuple[Array, Array]:
    """Mean score and mean label in bins of equally many rows."""
    order = np.argsort(np.asarray(score, dtype=np.float64), kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return (
        np.array([float(np.mean(np.asarray(score)[part])) for part in parts]),
        np.array([float(np.mean(np.asarray(label)[part])) for part in parts]),
    )
