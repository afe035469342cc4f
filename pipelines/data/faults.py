"""Faults to plant in a day as delivered: what goes wrong at real sources, for tests and for the lab's poisoned day.

Each function returns a `Fault`, a frame to frame function for `ingest_days(faults={(table, day): ...})`.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl

from pipelines.data.ingest import Fault


def scaled(column: str, factor: float) -> Fault:
    """A unit was mistaken: every value of a number column is `factor` times as large."""
    return lambda frame: frame.with_columns((pl.col(column) * factor).cast(frame.schema[column]))


def nulled(column: str, share: float = 1.0) -> Fault:
    """A column came empty in the first `share` of the rows, 0 to 1."""
    return lambda frame: frame.with_columns(
        pl.when(pl.int_range(pl.len()) < share * pl.len()).then(None).otherwise(column).alias(column)
    )


def repeated(rows: int) -> Fault:
    """The first rows were delivered twice."""
    return lambda frame: pl.concat([frame, frame.head(rows)])


def truncated(share: float) -> Fault:
    """The delivery broke off: only the first `share` of the rows came, 0 to 1."""
    return lambda frame: frame.head(int(share * frame.height))


def dropped(column: str) -> Fault:
    """A column is gone."""
    return lambda frame: frame.drop(column)


def retyped(column: str, dtype: Any = pl.String) -> Fault:
    """A column changed its type."""
    return lambda frame: frame.with_columns(pl.col(column).cast(dtype))


def shifted(column: str, by: dt.timedelta) -> Fault:
    """Times are off, as when a local clock was taken for UTC."""
    return lambda frame: frame.with_columns(pl.col(column) + by)


def together(*faults: Fault) -> Fault:
    """Several at once."""

    def all_of(frame: pl.DataFrame) -> pl.DataFrame:
        for fault in faults:
            frame = fault(frame)
        return frame

    return all_of
