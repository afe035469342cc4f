"""Adapter of Optuna: a search within the spec's budget, kept in SQL so that several workers share one study."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna

from flightdeck.contracts.model_spec import Choice, IntRange, ModelSpec
from pipelines.locks import CONNECT_S, one_at_a_time
from pipelines.stores import shown
from pipelines.training.fit import SEED, stop_early

optuna.logging.set_verbosity(optuna.logging.WARNING)


@dataclasses.dataclass(frozen=True)
class Found:
    """The best parameters, their validation loss, and how many trials the study holds."""

    params: dict[str, Any]
    loss: float
    trials: int
    study: str


def suggest(trial: optuna.Trial, space: dict[str, Any]) -> dict[str, Any]:
    """One point of the spec's space."""
    point: dict[str, Any] = {}
    for name, bounds in space.items():
        if isinstance(bounds, Choice):
            point[name] = trial.suggest_categorical(name, bounds.options)
        elif isinstance(bounds, IntRange):
            point[name] = trial.suggest_int(name, bounds.low, bounds.high, log=bounds.log)
        else:
            point[name] = trial.suggest_float(name, bounds.low, bounds.high, log=bounds.log)
    return point


def search(
    spec: ModelSpec,
    features: npt.NDArray[np.float32],
    target: npt.NDArray[np.float64],
    *,
    storage: str,
    study: str,
    trials: int,
) -> Found:
    """Search the spec's space on its newest `sample_rows` rows; the spec's own parameters are the first trial.

    A study that exists (same name: same spec, same data) is continued up to `trials`, so a repeated run costs
    nothing and two workers share the budget. The sampler is seeded; a `timeout_s` that strikes makes the number of
    trials depend on the machine, and the number run is recorded.

    Args:
        features: shape (rows, F), in time order.
        target: shape (rows,).
        storage: SQLAlchemy URL of Optuna's database; its tables are made at first use.
    Raises:
        ConnectionError: the database does not answer.
    """
    rows = slice(-spec.search.sample_rows, None)
    sample, wanted = features[rows], target[rows]
    # Two processes that make the tables of a new database at once collide (measured, Optuna 5): one at a time.
    file = Path(storage.removeprefix("sqlite:///")).with_suffix(".lock")
    with one_at_a_time(storage, "optuna", file, wait=True):
        optimizer = optuna.create_study(
            storage=_opened(storage),
            study_name=study,
            load_if_exists=True,
            direction="minimize",
            sampler=optuna.samplers.TPESampler(seed=SEED),
        )
    own = {name: value for name, value in spec.estimator.params.items() if name in spec.search.space}
    if own and not optimizer.trials:
        optimizer.enqueue_trial(own)

    def objective(trial: optuna.Trial) -> float:
        return stop_early(spec.task, {**spec.estimator.params, **suggest(trial, spec.search.space)}, sample, wanted)[1]

    done = [item for item in optimizer.trials if item.state == optuna.trial.TrialState.COMPLETE]
    if len(done) < trials:
        optimizer.optimize(objective, n_trials=trials - len(done), timeout=spec.search.timeout_s)
    return Found(dict(optimizer.best_params), float(optimizer.best_value), len(optimizer.trials), study)


def _opened(url: str) -> optuna.storages.RDBStorage:
    from sqlalchemy.exc import SQLAlchemyError

    options = {"connect_args": {"connect_timeout": CONNECT_S}, "pool_pre_ping": True}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=options if url.startswith("postgres") else None)
    except SQLAlchemyError as error:
        raise ConnectionError(f"Optuna's database {shown(url)}: {str(error).splitlines()[0]}") from error
