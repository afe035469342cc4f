"""A day of feature vectors in terms of the training window, matched by hour and weekday. Pure.

Each value is replaced by where it stands among the training values of its hour and weekday, 0 to 1 (the probability
integral transform). A tie covers the whole stretch from the share below it to the share up to it, and its mass is
spread over that stretch (Czado, Gneiting and Held, Predictive Model Assessment for Count Data, Biometrics 2009). So
whatever the mix of hours, and for counts and flags as well, a tenth of the mass lies in each tenth when nothing moved.

Days of the training window themselves are compared with the window without them: otherwise each would look more
usual than a new day.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]

TENTHS = 10
EDGES = np.arange(1, TENTHS) / TENTHS
LEAST_ROWS, LEAST_DAYS = (
    40,
    4,
)  # of a stratum; a thinner one is joined with the same hour of all weekdays, then all hours
DISCRETE_VALUES = 40  # whole numbers, at most so many: flags, codes, small counts
CHUNK = 20_000


@dataclasses.dataclass(frozen=True)
class Vectors:
    """Feature vectors as the model sees them, defaults in place of what was missing.

    Args:
        names: features, F of them.
        values: shape (n, F), finite.
        day: local day of each row as an ordinal (`datetime.date.toordinal`), shape (n,).
        hour: local hour of each row, 0 to 23, shape (n,).
    """

    names: tuple[str, ...]
    values: npt.NDArray[np.float32]
    day: Ints
    hour: Ints

    def __post_init__(self) -> None:
        rows = len(self.values)
        if self.values.shape != (rows, len(self.names)) or self.day.shape != (rows,) or self.hour.shape != (rows,):
            raise ValueError(
                f"{len(self.names)} features; got values {self.values.shape}, day {self.day.shape}, "
                f"hour {self.hour.shape}"
            )
        if not np.isfinite(self.values).all():
            bad = [
                name for name, column in zip(self.names, self.values.T, strict=True) if not np.isfinite(column).all()
            ]
            raise ValueError(f"vectors must be as the model sees them; NaN or infinite values in {', '.join(bad)}")

    def of(self, chosen: Any) -> Vectors:
        """Rows chosen by a mask or index."""
        return Vectors(self.names, self.values[chosen], self.day[chosen], self.hour[chosen])

    def days(self) -> list[int]:
        """Ordinals of the days that have rows, in order."""
        return [int(day) for day in np.unique(self.day)]


@dataclasses.dataclass(frozen=True)
class DayProfile:
    """One day, per feature; arrays have shape (F,) unless said otherwise.

    Args:
        below: shape (F, 9), rows' mass below each inner edge of the tenths.
        commonest, common_share: the most frequent value and its share of the rows.
        low, high: extremes.
    """

    day: int
    rows: int
    below: Floats
    commonest: Floats
    common_share: Floats
    low: Floats
    high: Floats

    @property
    def weekday(self) -> int:
        """Monday is 0."""
        return (self.day + 6) % 7


class Reference:
    """The training window: sorted values per hour and weekday, and what training knew of each feature.

    Raises:
        ValueError: no rows.
    """

    def __init__(self, vectors: Vectors) -> None:
        if not len(vectors.values):
            raise ValueError("a reference needs rows of the training window; got none")
        self.vectors, self.names = vectors, vectors.names
        self.low, self.high = vectors.values.min(axis=0), vectors.values.max(axis=0)
        self.known = [_known(column) for column in vectors.values.T]
        self._sorted: dict[tuple[int, int], npt.NDArray[np.float32]] = {}
        self._stratum = _strata(vectors)

    def stratum(self, weekday: int, hour: int) -> npt.NDArray[np.float32]:
        """Sorted values, each column by itself, of the rows that a row of this weekday and hour is compared with."""
        key = self._stratum.get((weekday, hour), (-1, hour))
        if key not in self._sorted:
            self._sorted[key] = np.sort(self.vectors.values[self._members(key)], axis=0)
        return self._sorted[key]

    def _members(self, key: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Rows of a stratum; weekday -1: any, and of any hour where that hour is thin too."""
        weekday, hour = key
        of_hour = self.vectors.hour == hour
        if weekday >= 0:
            return of_hour & ((self.vectors.day + 6) % 7 == weekday)
        thick = of_hour.sum() >= LEAST_ROWS and len(np.unique(self.vectors.day[of_hour])) >= LEAST_DAYS
        return of_hour if thick else np.ones(len(of_hour), dtype=bool)

    def profile(self, rows: Vectors) -> DayProfile:
        """The profile of one new day.

        Raises:
            ValueError: other features, no rows, or rows of several days.
        """
        if rows.names != self.names:
            raise ValueError(f"the reference has the features {', '.join(self.names)}; got {', '.join(rows.names)}")
        days = rows.days()
        if len(days) != 1:
            raise ValueError(f"a profile is of one day; got rows of {len(days)}")
        below = np.zeros((len(self.names), TENTHS - 1))
        for hour in np.unique(rows.hour):
            values = rows.values[rows.hour == hour]
            among = self.stratum((days[0] + 6) % 7, int(hour))
            up_to, under = _ranks(among, values)
            below += _mass_below(under / len(among), up_to / len(among))
        return _day_profile(days[0], rows.values, below)

    def own_profiles(self) -> list[DayProfile]:
        """The profile of each day of the window, compared with the window without it; in order of the days."""
        vectors = self.vectors
        days = vectors.days()
        below = {day: np.zeros((len(self.names), TENTHS - 1)) for day in days}
        weekday = (vectors.day + 6) % 7
        for group in np.unique(weekday * 24 + vectors.hour):
            members = np.flatnonzero(weekday * 24 + vectors.hour == group)
            among = self.stratum(int(group) // 24, int(group) % 24)
            pooled = self._stratum.get((int(group) // 24, int(group) % 24), (-1,))[0] == -1
            for chosen in _pieces(members, vectors.day[members]):
                day, values = int(vectors.day[chosen[0]]), vectors.values[chosen]
                own = values if not pooled else vectors.values[self._own(day, int(group) % 24)]
                up_to, under = _ranks(among, values)
                own_sorted = np.sort(own, axis=0)
                own_up_to, own_under = _ranks(own_sorted, values)
                others = max(1, len(among) - len(own))
                below[day] += _mass_below((under - own_under) / others, (up_to - own_up_to) / others)
        return [_day_profile(day, vectors.values[vectors.day == day], below[day]) for day in days]

    def _own(self, day: int, hour: int) -> npt.NDArray[np.bool_]:
        return self._members((-1, hour)) & (self.vectors.day == day)


def shares_of(below: Floats, rows: Floats | float) -> Floats:
    """Share of the mass in each tenth: (..., F, 9) and rows (...) -> (..., F, 10)."""
    cumulated = below / np.maximum(1, np.asarray(rows, dtype=float))[..., None, None]
    edge = np.zeros((*cumulated.shape[:-1], 1))
    return np.diff(np.concatenate([edge, cumulated, edge + 1], axis=-1), axis=-1).clip(0, 1)


def _strata(vectors: Vectors) -> dict[tuple[int, int], tuple[int, int]]:
    """(weekday, hour) -> the stratum it is compared with, where its own has enough rows and days."""
    weekday = (vectors.day + 6) % 7
    found = {}
    for group in np.unique(weekday * 24 + vectors.hour):
        members = weekday * 24 + vectors.hour == group
        if members.sum() >= LEAST_ROWS and len(np.unique(vectors.day[members])) >= LEAST_DAYS:
            found[int(group) // 24, int(group) % 24] = (int(group) // 24, int(group) % 24)
    return found


def _pieces(members: Ints, day: Ints) -> Iterator[Ints]:
    """The members, split by day."""
    order = np.argsort(day, kind="stable")
    yield from np.split(members[order], np.flatnonzero(np.diff(day[order])) + 1)


def _ranks(among: npt.NDArray[np.float32], values: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    """How many of the sorted `among` are at most, and below, each value: both of shape (n, F)."""
    up_to, under = np.empty(values.shape), np.empty(values.shape)
    for column in range(values.shape[1]):
        ordered, wanted = among[:, column], values[:, column]
        up_to[:, column] = np.searchsorted(ordered, wanted, side="right")
        under[:, column] = np.searchsorted(ordered, wanted, side="left")
    return up_to, under


def _mass_below(under: Floats, up_to: Floats) -> Floats:
    """Mass below each inner edge, summed over rows: (n, F) twice -> (F, 9)."""
    total = np.zeros((under.shape[1], TENTHS - 1))
    for start in range(0, len(under), CHUNK):
        low, high = under[start : start + CHUNK, :, None], up_to[start : start + CHUNK, :, None]
        width = high - low
        inside = np.divide(EDGES - low, width, out=(low < EDGES).astype(float), where=width > 0)
        total += inside.clip(0, 1).sum(axis=0)
    return total


def _day_profile(day: int, values: npt.NDArray[np.float32], below: Floats) -> DayProfile:
    commonest, share = np.empty(values.shape[1]), np.empty(values.shape[1])
    for column in range(values.shape[1]):
        found, counts = np.unique(values[:, column], return_counts=True)
        top = int(counts.argmax())
        commonest[column], share[column] = found[top], counts[top] / len(values)
    return DayProfile(day, len(values), below, commonest, share, values.min(axis=0), values.max(axis=0))


def _known(column: npt.NDArray[np.float32]) -> npt.NDArray[np.float32] | None:
    """Every value, sorted, of a feature that looks like a category; None for others."""
    values = np.unique(column)
    return values if len(values) <= DISCRETE_VALUES and bool((values == np.round(values)).all()) else None


def unseen_share(known: Sequence[npt.NDArray[np.float32] | None], values: npt.NDArray[np.float32]) -> Floats:
    """Per feature the share of rows with a category that training never saw; 0 for what is no category."""
    return np.array(
        [
            0.0 if of is None or not len(column) else float(np.isin(column, of, invert=True).mean())
            for of, column in zip(known, values.T, strict=True)
        ]
    )
