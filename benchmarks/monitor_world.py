"""The world of the monitor's benchmark: a year of real flights, joined once, with days to draw and faults to plant."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

SPEC = Path(__file__).resolve().parents[1] / "specs" / "late.yaml"
FOLDS = 5
FIRST, HOLDOUT, UNTIL = dt.date(2013, 1, 8), dt.date(2013, 8, 11), dt.date(2013, 9, 1)  # the training window
YEAR_END = dt.datetime(2014, 1, 1, 12, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True)
class Day:
    """One real local day as it would be served and as it is recomputed.

    Args:
        values: features as the model sees them, float32 (n, F). score, label: (n,); hour: local.
    """

    day: int
    hour: np.ndarray
    values: np.ndarray
    score: np.ndarray
    label: np.ndarray


@dataclasses.dataclass(frozen=True)
class World:
    """Days by ordinal, and the model that was trained on the window before `UNTIL`."""

    spec: Any
    manifest: Any
    model: Any
    importances: dict[str, float]
    holdout: list[Day]
    window: list[Day]  # scored by models that have not seen the day
    later: list[Day]


def prepare(state: Path) -> None:
    """The year: lake, features, export, registry (a minute)."""
    from bench_quality import prepare as prepare_year

    prepare_year(state)


def world(state: Path, say: Callable[[str], None]) -> World:
    """Join the year, train the model, score each day of the window by models that have not seen it."""
    from flightdeck.contracts.layout import StateLayout
    from flightdeck.contracts.model_spec import load_model_spec
    from pipelines.registry.runtime import OnnxModel
    from pipelines.training.build import build
    from pipelines.training.dataset import Window, blinded, filled, matrix
    from pipelines.training.fit import fit, predict
    from pipelines.training.train import joined_frame, served
    from pipelines.use_case import load_use_case

    os.environ["FLIGHTDECK_STATE"] = str(state)
    layout, spec, use_case = StateLayout(state), load_model_spec(SPEC), load_use_case()
    start = use_case.day_start_utc
    say("join the year")
    whole = joined_frame(spec, layout, Window(start(FIRST), YEAR_END, YEAR_END), YEAR_END)
    say("train")
    times = Window(start(FIRST), start(HOLDOUT), start(UNTIL))
    built = build(spec, whole.frame, served(whole), times, time_zone=use_case.time_zone, layout=layout, trials=0)
    model, names = OnnxModel(built.onnx), whole.names
    defaults = np.array([item.default for item in built.manifest.features], np.float32)
    local = pl.col("event_timestamp").dt.convert_time_zone(str(use_case.time_zone))
    rows = whole.frame.with_columns(_day=local.dt.date(), _hour=local.dt.hour()).filter(
        pl.col(spec.target.label).is_not_null()
    )
    values = filled(matrix(rows, names), defaults)
    label = rows[spec.target.label].cast(pl.Float64).to_numpy()
    day = (rows["_day"].to_physical() + 719_163).to_numpy().astype(np.int64)
    hour = rows["_hour"].to_numpy().astype(np.int64)
    score = model.score(values).astype(np.float64)
    crossed = score.copy()
    first, until = FIRST.toordinal(), UNTIL.toordinal()
    inside = (day >= first) & (day < until)
    blind = blinded(values, defaults, names, spec.estimator.ignore)
    fold = (day // 7) % FOLDS  # whole weeks: neighbouring days share their weather
    for number in range(FOLDS):
        say(f"cross-fit {number + 1} of {FOLDS}")
        out = inside & (fold == number)
        fitted = fit(spec.task, spec.estimator.params, blind[inside & ~out], label[inside & ~out])
        crossed[out] = predict(spec.task, fitted.estimator, values[out])

    say("ready")

    def days(of: Any, scores: np.ndarray) -> list[Day]:
        return [
            Day(int(one), hour[day == one], values[day == one], scores[day == one], label[day == one])
            for one in np.unique(day[of])
        ]

    return World(
        spec, built.manifest, model, built.importances, days((day >= HOLDOUT.toordinal()) & inside, score),
        days(inside, crossed), days((day >= until) & (day < dt.date(2014, 1, 1).toordinal()), score),
    )  # fmt: skip
