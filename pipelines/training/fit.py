"""Fits the estimator of a spec: early stopping on the newest rows, then all rows with as many trees."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from flightdeck.contracts.model_spec import Task

SEED = 20130101
VALIDATION_SHARE = 0.15  # newest rows of the training part, in time order: never a random split
PATIENCE = 15  # iterations without a better validation score

Params = Mapping[str, float | int | str | bool | None]


@dataclasses.dataclass(frozen=True)
class Fit:
    """A fitted estimator; `validation_loss` is on the newest rows, before they were trained on too."""

    estimator: Any
    iterations: int
    validation_loss: float


def estimator_of(task: Task, params: Params, **more: Any) -> Any:
    """The scikit-learn estimator with fixed seed.

    Raises:
        TypeError: scikit-learn knows no such parameter.
    """
    kind = HistGradientBoostingClassifier if task is Task.CLASSIFICATION else HistGradientBoostingRegressor
    return kind(random_state=SEED, **{**params, **more})


def stop_early(
    task: Task, params: Params, features: npt.NDArray[np.float32], target: npt.NDArray[np.float64]
) -> tuple[int, float]:
    """Number of trees that is best on the newest rows, and the loss there (log loss, or half squared error).

    Args:
        features: shape (rows, F), in time order.
        target: shape (rows,).
    Raises:
        ValueError: fewer than 100 rows.
    """
    cut = int(len(target) * (1 - VALIDATION_SHARE))
    if len(target) < 100:
        raise ValueError(f"{len(target)} training rows; early stopping needs at least 100")
    model = estimator_of(task, params, early_stopping=True, n_iter_no_change=PATIENCE)
    model.fit(features[:cut], target[:cut], X_val=features[cut:], y_val=target[cut:])
    best = int(np.argmax(model.validation_score_))  # entry 0 is the model without trees
    return max(1, best), -float(model.validation_score_[best])


def fit(task: Task, params: Params, features: npt.NDArray[np.float32], target: npt.NDArray[np.float64]) -> Fit:
    """Early stopping on the newest rows, then a fit on all of them.

    Args:
        features: shape (rows, F), in time order.
        target: shape (rows,).
    """
    iterations, loss = stop_early(task, params, features, target)
    model = estimator_of(task, params, early_stopping=False, max_iter=iterations)
    model.fit(features, target)
    return Fit(model, iterations, loss)


def predict(task: Task, estimator: Any, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """scikit-learn's own score: probability of the positive class, or the value; shape (rows,)."""
    if task is Task.CLASSIFICATION:
        return np.asarray(estimator.predict_proba(features)[:, 1], dtype=np.float64)
    return np.asarray(estimator.predict(features), dtype=np.float64)
