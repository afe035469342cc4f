"""Decisions about the rows: which are trained on, which are held out, what stands in for a missing value."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import zoneinfo
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from flightdeck.contracts.model_spec import Baseline, Split

TIME = "event_timestamp"
KNOWN_AT = "label_known_at_utc"


class TooLittleData(ValueError):
    """There are not enough rows to train or to judge."""


@dataclasses.dataclass(frozen=True)
class Window:
    """train: [train_from, holdout_from); holdout: [holdout_from, holdout_until); prediction times, UTC."""

    train_from: dt.datetime
    holdout_from: dt.datetime
    holdout_until: dt.datetime


def window(until_utc: dt.datetime, split: Split, time_zone: zoneinfo.ZoneInfo) -> Window:
    """The split by time for a training that happens at `until_utc`; whole local days.

    The holdout ends with the newest day all of whose outcomes are known: a younger day would show only the rows
    whose outcome came fast.
    """
    matured = (until_utc - split.maturity).astimezone(time_zone).date()

    def midnight(days_back: int) -> dt.datetime:
        local = dt.datetime.combine(matured - dt.timedelta(days=days_back), dt.time(), time_zone)
        return local.astimezone(dt.UTC)

    return Window(midnight(split.holdout_days + split.train_days), midnight(split.holdout_days), midnight(0))


def split_rows(frame: pl.DataFrame, times: Window, label: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Train and holdout rows in time order; rows without a label are left out.

    A training row's outcome must be known when the holdout begins: the split is what a training on that day had.

    Raises:
        TooLittleData: one part is empty.
    """
    rows = frame.filter(pl.col(label).is_not_null()).sort(TIME, "row_id")
    train = rows.filter(
        pl.col(TIME).is_between(times.train_from, times.holdout_from, closed="left")
        & (pl.col(KNOWN_AT) <= times.holdout_from)
    )
    holdout = rows.filter(pl.col(TIME).is_between(times.holdout_from, times.holdout_until, closed="left"))
    for name, part in (("train", train), ("holdout", holdout)):
        if part.is_empty():
            raise TooLittleData(
                f"no {name} rows with a known {label} in {times}; found {frame.height} rows from "
                f"{frame[TIME].min()!s} to {frame[TIME].max()!s}; ingest more days or change split in the spec"
            )
    return train, holdout


def matrix(frame: pl.DataFrame, features: Sequence[str]) -> npt.NDArray[np.float32]:
    """The features as float32, shape (rows, F); null becomes NaN, infinity is refused.

    Raises:
        ValueError: a feature is missing, not a number, or infinite.
    """
    absent = [name for name in features if name not in frame.columns]
    if absent:
        raise ValueError(f"the frame lacks the features {', '.join(absent)}; it has: {', '.join(frame.columns)}")
    values = np.column_stack([frame[name].cast(pl.Float32).to_numpy() for name in features]).astype(np.float32)
    infinite = np.isinf(values).any(axis=0)
    if infinite.any():
        raise ValueError(f"infinite values in {', '.join(np.array(features)[infinite])}; mend the feature")
    return np.ascontiguousarray(values)


def medians(values: npt.NDArray[np.float32], features: Sequence[str]) -> npt.NDArray[np.float32]:
    """Median of each column without NaN, shape (F,).

    Raises:
        ValueError: a column has no value at all.
    """
    empty = np.isnan(values).all(axis=0)
    if empty.any():
        raise ValueError(f"no training row has a value of {', '.join(np.array(features)[empty])}; drop it or mend it")
    return np.nanmedian(values, axis=0).astype(np.float32)


def filled(values: npt.NDArray[np.float32], defaults: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """NaN replaced by the column's default.

    Training, gates and serving share this one rule (the predictor's `on_missing: default`), so a missing value
    means the same to the model everywhere.
    """
    return np.where(np.isnan(values), defaults, values).astype(np.float32)


def baseline_scores(train: pl.DataFrame, rows: pl.DataFrame, label: str, baseline: Baseline) -> npt.NDArray[np.float64]:
    """The stated baseline's score of `rows`: the mean target of their group in `train`, drawn to the overall mean.

    A group of n rows counts n, the overall mean `prior_rows`; an unseen group gets the overall mean.
    """
    mean = float(train[label].cast(pl.Float64).mean())  # type: ignore[arg-type]
    table = train.group_by(baseline.columns).agg(
        ((pl.col(label).cast(pl.Float64).sum() + mean * baseline.prior_rows) / (pl.len() + baseline.prior_rows)).alias(
            "_score"
        )
    )
    joined = rows.select(baseline.columns).join(
        table, on=baseline.columns, how="left", maintain_order="left", nulls_equal=True
    )
    return joined["_score"].fill_null(mean).to_numpy()


def blinded(
    values: npt.NDArray[np.float32], defaults: npt.NDArray[np.float32], features: Sequence[str], ignore: Sequence[str]
) -> npt.NDArray[np.float32]:
    """The training values with the ignored features constant: no tree can split on them, so serving needs no rule.

    Raises:
        ValueError: an ignored name is not a feature.
    """
    unknown = [name for name in ignore if name not in features]
    if unknown:
        raise ValueError(f"estimator.ignore names {', '.join(unknown)}; the features are: {', '.join(features)}")
    blind = values.copy()
    for name in ignore:
        column = list(features).index(name)
        blind[:, column] = defaults[column]
    return blind


def digest(*arrays: npt.NDArray[Any]) -> str:
    """sha256 of the arrays' shapes, types and bytes, in order."""
    state = hashlib.sha256()
    for array in arrays:
        state.update(repr((array.shape, array.dtype.str)).encode())
        state.update(np.ascontiguousarray(array).data)
    return state.hexdigest()
