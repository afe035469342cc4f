"""How far features may move before it is an alarm: limits measured on whole days of the training window. Pure.

How far a feature moved over a window of k days is the population stability index over the tenths of its matched
training distribution (Siddiqi, Credit Risk Scorecards, 2006). The usual limits (0.1, 0.25) suppose independent rows;
the rows of a day share its luck, and one stormy day moves an index by more than that. So each feature is measured
against the furthest that k days in a row of the training window moved (its scale), and the limit of a day is a
quantile of the largest such ratio over all features: the max-statistic, which corrects for their number and keeps
their dependence (Westfall and Young, Resampling-Based Multiple Testing, 1993). The windows behind the quantile are
drawn day by day, each from the training days of its weekday: a bootstrap of whole days (Efron and Tibshirani, An
Introduction to the Bootstrap, 1993, ch. 8).

One day has only as many values as there are training days, too few for the quantile that is needed: each training
day is compared with the furthest of the others, and the tail of the largest ratios is continued by a power law (Hill,
A Simple General Approach to Inference About the Tail of a Distribution, Annals of Statistics 1975).

Assumed: a clean day is exchangeable with the training days of its weekday. What moves slowly with the season breaks
that, whatever the limit: it is reported and never alarms alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pipelines.monitoring.profile import TENTHS, DayProfile, Floats, shares_of

WINDOWS_DAYS = (1, 3, 7, 14)
FLOOR = 1e-3  # share of an empty tenth: the logarithm needs one
DRAWS = 4000  # windows per limit
LEAST_LIMIT = 1.1  # an alarm is at least a tenth further than training ever went
LEAST_INDEX = 0.1  # a smaller move is not worth a word, however certain
LEAST_DAYS = 20  # of the training window: fewer cannot tell what is usual
TAIL_SHARE = 0.15  # of the training days, from which the tail is continued
ROWS_STEPS = (25, 50, 100, 200, 400, 800, 1600, 3200)
USUAL = 0.9  # quantile of the training days: a day beyond it is unusual, which is no alarm
SEASON_SPAN_DAYS = 31
SEASON_LEAST_DAYS = 75
SEASON_SHARE = 0.5
UNIFORM_VARIANCE = 1 / 12


def stability_index(shares: Floats) -> Floats:
    """Population stability index against equal tenths: (..., 10) -> (...); 0 when nothing moved, at most about 4.5."""
    even = 1 / TENTHS
    floored = (shares + FLOOR) / (1 + TENTHS * FLOOR)
    return ((floored - even) * np.log(floored / even)).sum(axis=-1)


@dataclasses.dataclass(frozen=True)
class Limit:
    """Of windows of `days` days with so many rows a day.

    Args:
        scale: per feature, the index of the furthest such window of training, at least 0.1, shape (F,).
        most: an alarm begins when the index divided by `scale` and by the feature's handicap is larger.
        false_per_month: how many alarms a month of clean days would bring, over all features.
    """

    days: int
    scale: Floats
    most: float
    false_per_month: float


class Limits:
    """The limits of one model version.

    Args:
        profiles: `Reference.own_profiles()`.
        handicap: per feature, by how much further it may move than the most important one, shape (F,), at least 1.
        watched: which features may alarm, bool of shape (F,).
        false_per_month: of each window length.
        seed: of the draws.
    Raises:
        ValueError: fewer than LEAST_DAYS days.
    """

    def __init__(
        self,
        profiles: Sequence[DayProfile],
        handicap: Floats,
        watched: Floats,
        *,
        false_per_month: float,
        seed: int = 0,
    ) -> None:
        if len(profiles) < LEAST_DAYS:
            raise ValueError(f"{len(profiles)} training days; limits need at least {LEAST_DAYS}")
        self.profiles, self.handicap, self.watched = list(profiles), handicap, watched.astype(bool)
        self.false_per_month, self.seed = false_per_month, seed
        self._below = np.stack([item.below for item in profiles])
        self._rows = np.array([item.rows for item in profiles], dtype=float)
        self.least_rows = float(self._rows.min())

    def of(self, days: int, rows_a_day: float) -> Limit:
        """The limit of windows of so many days; few rows a day make a larger one.

        Raises:
            ValueError: so few rows that nothing can be said.
        """
        if rows_a_day >= self.least_rows:
            return self._limit(days, None)
        steps = [step for step in ROWS_STEPS if step <= rows_a_day]
        if not steps:
            raise ValueError(f"{rows_a_day:.0f} rows a day; at least {ROWS_STEPS[0]} are needed")
        return self._limit(days, steps[-1])

    @functools.cached_property
    def index_of_days(self) -> Floats:
        """Index of each training day against the others, shape (D, F)."""
        return stability_index(shares_of(self._below, self._rows))

    @functools.cached_property
    def usual(self) -> Floats:
        """Per feature the index that one training day in ten exceeds, shape (F,)."""
        return np.quantile(self.index_of_days, USUAL, axis=0)

    def ratios(self, index: Floats, limit: Limit) -> Floats:
        """Index over scale and handicap, the unwatched left out as 0: (..., F)."""
        return np.where(self.watched, index / (limit.scale * self.handicap), 0.0)

    def scale(self, days: int) -> Floats:
        """Per feature the furthest index of so many successive training days, shape (F,)."""
        windows = [slice(at, at + days) for at in range(len(self.profiles) - days + 1)]
        index = [
            stability_index(shares_of(self._below[window].sum(axis=0), self._rows[window].sum())) for window in windows
        ]
        return np.maximum(np.max(index, axis=0), LEAST_INDEX)

    @functools.lru_cache(maxsize=64)  # noqa: B019  a Limits lives as long as its model is watched
    def _limit(self, days: int, rows: int | None) -> Limit:
        generator = np.random.default_rng([self.seed, days, rows or 0])
        scale = self.scale(days)
        alpha = self.false_per_month / 30
        if days == 1:
            index = self._thinned(shares_of(self._below, self._rows), rows, generator)
            largest = np.where(self.watched, index / (_furthest_other(self.index_of_days) * self.handicap), 0.0).max(
                axis=1
            )
            most = _tail_quantile(largest, alpha)
        else:
            below, total = self._drawn(days, generator)
            index = self._thinned(shares_of(below, total), None if rows is None else rows * days, generator)
            largest = np.where(self.watched, index / (scale * self.handicap), 0.0).max(axis=1)
            most = float(np.quantile(largest, 1 - alpha))
        return Limit(days, scale, max(LEAST_LIMIT, most), self.false_per_month)

    def _drawn(self, days: int, generator: np.random.Generator) -> tuple[Floats, Floats]:
        """DRAWS windows as sums: (DRAWS, F, 9) and (DRAWS,)."""
        of_weekday = [[at for at, item in enumerate(self.profiles) if item.weekday == weekday] for weekday in range(7)]
        everyone = list(range(len(self.profiles)))
        first = generator.integers(7, size=DRAWS)
        below = np.zeros((DRAWS, *self._below.shape[1:]))
        total = np.zeros(DRAWS)
        for step in range(days):
            chosen = np.empty(DRAWS, dtype=int)
            for weekday in range(7):
                mine = (first + step) % 7 == weekday
                chosen[mine] = generator.choice(of_weekday[weekday] or everyone, size=int(mine.sum()))
            below += self._below[chosen]
            total += self._rows[chosen]
        return below, total

    @staticmethod
    def _thinned(shares: Floats, rows: int | None, generator: np.random.Generator) -> Floats:
        """Index of the windows as if only so many of their rows had been asked."""
        if rows is None:
            return stability_index(shares)
        exact = shares / shares.sum(axis=-1, keepdims=True)
        return stability_index(generator.multinomial(rows, exact) / rows)


def _furthest_other(index: Floats) -> Floats:
    """Per day and feature the largest value among the other days: (D, F) -> (D, F)."""
    ordered = np.sort(index, axis=0)
    return np.maximum(np.where(index == ordered[-1], ordered[-2], ordered[-1]), LEAST_INDEX)


def _tail_quantile(values: Floats, alpha: float) -> float:
    """The value that is exceeded with probability alpha: of the sample, or of the power law that continues it."""
    ordered = np.sort(np.maximum(values, 1e-9))[::-1]
    count = max(5, int(TAIL_SHARE * len(ordered)))
    if alpha * len(ordered) >= count:
        return float(np.quantile(values, 1 - alpha))
    threshold = ordered[count]
    exponent = float(np.log(ordered[:count] / threshold).mean())
    return float(threshold * (count / len(ordered) / alpha) ** exponent)


def handicaps(names: Sequence[str], importances: Mapping[str, float], ignored: Iterable[str] = ()) -> Floats:
    """How much further each feature may move: 1 for the most important, 2 for one without any, shape (F,).

    The limit is calibrated on the ratios after this division, so any handicap keeps the rate of false alarms (weighted
    testing; Genovese, Roeder and Wasserman, False Discovery Control with p-Value Weighting, Biometrika 2006). Not
    more than 2, since correlated features hide each other's importance. `answers` (the score) counts as most important.
    """
    blind = set(ignored)
    gain = np.array(
        [0.0 if name in blind else max(0.0, importances.get(name, 0.0)) for name in names], dtype=np.float64
    )
    most = gain.max(initial=0.0)
    weight = np.sqrt(gain / most) if most > 0 else np.zeros(len(names))
    weight[[at for at, name in enumerate(names) if name not in importances and name not in blind]] = 1.0
    return 2.0 - weight


def season_shares(profiles: Sequence[DayProfile]) -> Floats | None:
    """Per feature the part of its variance, within hour and weekday, that moves with the day of the year; shape (F,).

    The running mean over a month of the day's mean position, its variance against that of one row (1/12). None where
    the window is too short to tell. In one year the season and the mere passing of time cannot be told apart.
    """
    if len(profiles) < SEASON_LEAST_DAYS:
        return None
    day = np.array([item.day for item in profiles])
    cumulated = np.stack([item.below / item.rows for item in profiles])
    position = 1 - (cumulated.sum(axis=-1) + 0.5) / TENTHS
    near = np.abs(day[:, None] - day[None, :]) <= SEASON_SPAN_DAYS // 2
    slow = (near @ position) / near.sum(axis=1, keepdims=True)
    return slow.var(axis=0) / UNIFORM_VARIANCE
