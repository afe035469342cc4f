"""What is usual for the inputs of one model version: measured once, on whole days of its training window. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from pipelines.monitoring.limits import SEASON_SHARE, Limits, handicaps, season_shares
from pipelines.monitoring.profile import DayProfile, Floats, Reference, Vectors

FALSE_PER_MONTH = 0.1  # of each window length: four of them, and two of the outcomes, stay below one a month together
CONSTANT_SHARE = 0.999
RARE = 1e-4  # so unlikely must a standstill be
FENCE = 1.0  # training ranges beyond it
SEASON_FENCE = 1.5  # no season goes that far


@dataclasses.dataclass(frozen=True)
class Watch:
    """What is usual for the inputs of one model version.

    Args:
        views: feature -> where it comes from; alarms are told by view.
        season: features bound to the season, which never alarm by moving.
        low, high: fences of outliers, shape (F,).
        beyond_most: per feature, the largest share of a training day's rows beyond the range of all other days.
        unseen_most: per feature, the largest share of a training day's rows with a category of no other day.
        standstill_days: per feature, from how many days of one value on it stands still; infinity: never.
        least_volume: the thinnest training day by the median of its weekday.
    """

    reference: Reference
    profiles: list[DayProfile]
    limits: Limits
    views: Mapping[str, str]
    season: frozenset[str]
    season_share: Mapping[str, float]
    low: Floats
    high: Floats
    beyond_most: Floats
    unseen_most: Floats
    standstill_days: Floats
    least_volume: float

    @property
    def names(self) -> tuple[str, ...]:
        """Features, in order."""
        return self.reference.names


def watch(
    vectors: Vectors,
    views: Mapping[str, str],
    importances: Mapping[str, float],
    *,
    ignored: Collection[str] = (),
    declared_season: Collection[str] = (),
    false_per_month: float = FALSE_PER_MONTH,
) -> Watch:
    """Measure what is usual.

    Args:
        vectors: of the training window, one row per entity.
        views: feature -> view.
        importances: feature -> metric lost when it is shuffled, of the model's card.
        ignored: features that the model does not learn from.
        declared_season: features that are bound to the season, whatever is measured.
    Raises:
        ValueError: fewer than 20 days; a declared name is no feature.
    """
    unknown = sorted(set(declared_season) - set(vectors.names))
    if unknown:
        raise ValueError(f"declared as season-bound, but no feature: {', '.join(unknown)}")
    reference = Reference(vectors)
    profiles = reference.own_profiles()
    measured = season_shares(profiles)
    share = {} if measured is None else dict(zip(vectors.names, map(float, measured), strict=True))
    season = frozenset(declared_season) | {name for name, value in share.items() if value > SEASON_SHARE}
    watched = np.array([name not in season for name in vectors.names])
    limits = Limits(profiles, handicaps(vectors.names, importances, ignored), watched, false_per_month=false_per_month)
    reach = np.array([SEASON_FENCE if name in season else FENCE for name in vectors.names])
    low, high = _fences(profiles, reach)
    return Watch(
        reference, profiles, limits, views, season, share, low, high, _beyond_most(reference, profiles),
        _unseen_most(reference), _standstill(profiles), _least_volume(profiles),
    )  # fmt: skip


def run_of_one_value(profiles: Sequence[DayProfile], at: int) -> int:
    """How many days up to the last show one and the same value."""
    run = 0
    for item in reversed(profiles):
        if item.common_share[at] < CONSTANT_SHARE or item.commonest[at] != profiles[-1].commonest[at]:
            break
        run += 1
    return run


def _standstill(profiles: Sequence[DayProfile]) -> Floats:
    """Days of one value that training and chance do not explain: longer than its longest run, and unlikely."""
    days = np.empty(len(profiles[0].commonest))
    for at in range(len(days)):
        constant = [item.commonest[at] for item in profiles if item.common_share[at] >= CONSTANT_SHARE]
        chance = max((constant.count(value) for value in set(constant)), default=0) / len(profiles)
        longest = max(run_of_one_value(profiles[: end + 1], at) for end in range(len(profiles)))
        unlikely = math.inf if chance >= 1 else 1 if chance == 0 else math.ceil(math.log(RARE) / math.log(chance))
        days[at] = max(longest + 1, unlikely)
    return days


def _fences(profiles: Sequence[DayProfile], reach: Floats) -> tuple[Floats, Floats]:
    """From where on a value is an outlier, below and above; shapes (F,)."""
    low, high = np.stack([item.low for item in profiles]), np.stack([item.high for item in profiles])
    others_low, others_high = -_largest_other(-low), _largest_other(high)
    width = np.maximum(others_high - others_low, 1e-6)
    beyond_low = ((others_low - low) / width).max(axis=0).clip(0)
    beyond_high = ((high - others_high) / width).max(axis=0).clip(0)
    whole = np.maximum(high.max(axis=0) - low.min(axis=0), 1e-6)
    return low.min(axis=0) - (reach + beyond_low) * whole, high.max(axis=0) + (reach + beyond_high) * whole


def _beyond_most(reference: Reference, profiles: Sequence[DayProfile]) -> Floats:
    """Per feature the largest share of a training day's rows that lie beyond the range of all other days."""
    low, high = np.stack([item.low for item in profiles]), np.stack([item.high for item in profiles])
    others_low, others_high = -_largest_other(-low), _largest_other(high)
    shares = []
    for at, item in enumerate(profiles):
        values = reference.vectors.values[reference.vectors.day == item.day]
        shares.append(((values < others_low[at]) | (values > others_high[at])).mean(axis=0))
    return np.max(shares, axis=0)


def _largest_other(values: Floats) -> Floats:
    ordered = np.sort(values, axis=0)
    return np.where(values == ordered[-1], ordered[-2], ordered[-1])


def _unseen_most(reference: Reference) -> Floats:
    """Per feature the largest share of a training day's rows whose category no other day has."""
    vectors, most = reference.vectors, np.zeros(len(reference.names))
    for at, known in enumerate(reference.known):
        if known is None:
            continue
        number = np.searchsorted(known, vectors.values[:, at])
        pairs, counts = np.unique(np.stack([number, vectors.day]), axis=1, return_counts=True)
        values, days_of = np.unique(pairs[0], return_counts=True)
        single = np.isin(pairs[0], values[days_of == 1])
        for day in np.unique(pairs[1][single]):
            mine = pairs[1] == day
            most[at] = max(most[at], counts[mine & single].sum() / counts[mine].sum())
    return most


def _least_volume(profiles: Sequence[DayProfile]) -> float:
    ratios = [
        item.rows / np.median([other.rows for other in profiles if other.weekday == item.weekday]) for item in profiles
    ]
    return float(min(ratios))
