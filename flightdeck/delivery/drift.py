"""Decision: how far did columns move between two spans of days? A note for people; it never refuses anything.

The population stability index over the bins of the reference's deciles; null is a bin of its own. Below 0.1 a column is
usually called stable, above 0.25 moved (Siddiqi, Credit Risk Scorecards, 2006). Weather moves so between months.
"""

from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
import polars as pl

BINS = 10
MOVED = 0.25
SPAN = dt.timedelta(days=28)
YEAR = dt.timedelta(days=364)  # whole weeks, so that weekdays fit
FLOOR = 1e-4  # share of an empty bin: the logarithm needs one


@dataclasses.dataclass(frozen=True)
class Spans:
    """Two spans of days, each inclusive: what is compared with what.

    Args:
        season: the reference is the same season, a year earlier.
    """

    reference: tuple[dt.date, dt.date]
    newest: tuple[dt.date, dt.date]
    season: bool


def spans(first: dt.date, last: dt.date) -> Spans | None:
    """The newest four weeks against the same season a year before, else against the four weeks before them.

    Args:
        first, last: days that the source has, inclusive.
    """
    begins = last - SPAN + dt.timedelta(days=1)
    for back, season in ((YEAR, True), (SPAN, False)):
        if begins - back >= first:
            return Spans((begins - back, last - back), (begins, last), season)
    return None


def psi(reference: pl.Series, newest: pl.Series) -> float | None:
    """Population stability index, 0 for equal shares; None where one side has no rows.

    Args:
        reference, newest: numbers or booleans; null counts as a bin.
    """
    if not len(reference) or not len(newest):
        return None
    before, after = (it.cast(pl.Float64).fill_nan(None) for it in (reference, newest))
    edges = np.unique(np.quantile(before.drop_nulls().to_numpy(), np.linspace(0, 1, BINS + 1)[1:-1])) if (
        before.null_count() < len(before)
    ) else np.empty(0)  # fmt: skip

    def shares(values: pl.Series) -> np.ndarray:
        there = np.searchsorted(edges, values.drop_nulls().to_numpy(), side="left")
        counts = np.append(np.bincount(there, minlength=len(edges) + 1), values.null_count())
        return np.maximum(counts / len(values), FLOOR)

    old, new = shares(before), shares(after)
    return float(((new - old) * np.log(new / old)).sum())


def moves(reference: pl.DataFrame, newest: pl.DataFrame) -> dict[str, float]:
    """Column -> PSI, the largest first, for numbers and booleans."""
    found = {}
    for name, dtype in newest.schema.items():
        if not (dtype.is_numeric() or dtype == pl.Boolean) or name not in reference.columns:
            continue
        value = psi(reference[name], newest[name])
        if value is not None:
            found[name] = value
    return dict(sorted(found.items(), key=lambda item: -item[1]))
