"""Faults that the monitor's benchmark plants into clean days, and what each must be called."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from monitor_world import Day

Names = Sequence[str]
Change = Callable[[np.ndarray], np.ndarray]
MOVED = (("drift", ""), ("outliers", ""))
UNIT, TRANSFORM, TYPE = (("skew", "unit"),), (("skew", "transform"),), (("skew", "type"),)
STALE, STANDING, STILL = (("skew", "stale"),), (("skew", "constant"),), (("constant", ""),)
NEW, CONCEPT, OUTLIERS = (("unseen", ""),), (("concept", ""),), (("outliers", ""),)


@dataclasses.dataclass
class Asked:
    """One day as it was served, beside the truth; a fault changes it in place.

    Args:
        served: (n, F). right: what a recomputation gives. age_s, lag_s: per stored view, (n,).
        lost: outcomes that never come, (n,).
        since: days since the fault began, 0 on its first day.
    """

    names: Names
    views: Mapping[str, str]
    defaults: np.ndarray
    day: Day
    served: np.ndarray
    right: np.ndarray
    score: np.ndarray
    label: np.ndarray
    age_s: dict[str, np.ndarray]
    lag_s: dict[str, np.ndarray]
    lost: np.ndarray
    kept: np.ndarray
    since: int
    generator: np.random.Generator

    def at(self, name: str) -> int:
        """Column of a feature."""
        return list(self.names).index(name)

    def of_view(self, view: str) -> list[int]:
        """Columns of a view."""
        return [at for at, name in enumerate(self.names) if self.views[name] == view]

    def both(self, name: str, change: Change) -> None:
        """At the source: offline and online alike."""
        at = self.at(name)
        self.served[:, at] = change(self.served[:, at])
        self.right[:, at] = self.served[:, at]

    def serving(self, name: str, change: Change) -> None:
        """On the way to the model only."""
        at = self.at(name)
        self.served[:, at] = change(self.served[:, at])


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault and its right names.

    Args:
        expected: (kind, cause or empty) -> it is named rightly by any of these; empty: nothing may alarm.
        features: of which an alarm must name at least one; empty: any.
        days: how long it stays. scored: whether it must be named in that time, or is shown as a limit of what is seen.
    """

    name: str
    plant: Callable[[Asked], None]
    expected: tuple[tuple[str, str], ...]
    features: tuple[str, ...] = ()
    days: int = 14
    scored: bool = True


def _view_missing(view: str, *, stale_after_h: float | None = None) -> Callable[[Asked], None]:
    def plant(of: Asked) -> None:
        columns = of.of_view(view)
        if stale_after_h is None:
            of.age_s[view][:] = np.nan
            gone = np.ones(len(of.served), dtype=bool)
        else:  # nothing was written since midnight of the first day
            age_h = 24 * of.since + of.day.hour + 0.5
            of.age_s[view] = age_h * 3600.0
            gone = age_h > stale_after_h
        of.served[np.ix_(gone, columns)] = of.defaults[columns]

    return plant  # fmt: skip


def _swap(one: str, other: str) -> Callable[[Asked], None]:
    def plant(of: Asked) -> None:
        a, b = of.at(one), of.at(other)
        of.served[:, [a, b]] = of.served[:, [b, a]]

    return plant  # fmt: skip


def _every(share: float, name: str, value: float) -> Callable[[Asked], None]:
    def plant(of: Asked) -> None:
        hit = of.generator.random(len(of.served)) < share
        of.both(name, lambda column: np.where(hit, np.float32(value), column))

    return plant  # fmt: skip


def _fewer(of: Asked) -> None:
    of.kept &= of.generator.random(len(of.kept)) < 0.1


def _flip(of: Asked) -> None:
    of.label[:] = 1 - of.label


def _worse(of: Asked) -> None:
    """A quarter of what would have ended well does not."""
    of.label[:] = np.maximum(of.label, of.generator.random(len(of.label)) < 0.25)


def _unlearned(of: Asked) -> None:
    """The same share of outcomes, and half of them are no longer told by the answers."""
    mixed = np.flatnonzero(of.generator.random(len(of.label)) < 0.5)
    of.label[mixed] = of.label[of.generator.permutation(mixed)]


def _selected(of: Asked) -> None:
    of.lost |= (of.score > np.median(of.score)) & (of.generator.random(len(of.label)) < 0.2)


def _acted_on(of: Asked) -> None:
    """Six of ten positive decisions are acted on, and the bad outcome does not come."""
    saved = (of.score >= 0.5) & (of.generator.random(len(of.label)) < 0.6)
    of.label[saved] = 0


def _utc(column: np.ndarray) -> np.ndarray:
    return (column + 240) % 1440


def _serving(name: str, change: Change) -> Callable[[Asked], None]:
    return lambda of: of.serving(name, change)


def _source(name: str, change: Change) -> Callable[[Asked], None]:
    return lambda of: of.both(name, change)


def faults() -> list[Fault]:
    """All of them, with the features of the model `late`."""
    late, delay_1h, delay_3h, wind = (
        "late_dep_share_3h",
        "mean_dep_delay_min_1h",
        "mean_dep_delay_min_3h",
        "wind_speed_mph",
    )
    count, missing = "departures_3h", _view_missing("weather")
    frozen = _view_missing("congestion", stale_after_h=2)
    old = _view_missing("plane_history", stale_after_h=36)
    tenth = _serving(delay_1h, lambda x: np.where(np.arange(len(x)) % 10 == 0, np.trunc(x), x))
    log = _serving("route_mean_dep_delay_min_30d", lambda x: np.log1p(np.maximum(x, 0)))
    return [
        Fault("serving: wind in m/s instead of mph", _serving(wind, lambda x: x * 0.44704), UNIT, (wind,)),
        Fault("serving: temperature in °C, not °F", _serving("temp_f", lambda x: (x - 32) / 1.8), UNIT, ("temp_f",)),
        Fault("serving: one feature stands still", _serving(late, lambda x: np.full_like(x, 0.125)), STANDING, (late,)),
        Fault("serving: view `weather` missing", missing, (("skew", "missing"),), ("visib_mi", "temp_f", wind)),
        Fault("serving: view `congestion` frozen", frozen, STALE, (late,)),
        Fault("serving: view `plane_history` frozen", old, STALE, ("plane_late_share_30d",)),
        Fault("serving: two columns swapped", _swap(wind, "humid_pct"), (("skew", "order"),), (wind, "humid_pct")),
        Fault("serving: local time as UTC", _serving("dep_minute_of_day", _utc), TRANSFORM, ("dep_minute_of_day",)),
        Fault("serving: log of a delay", log, TRANSFORM, ("route_mean_dep_delay_min_30d",)),
        Fault("serving: delays cut to whole minutes", _serving(delay_1h, np.trunc), TYPE, (delay_1h,)),
        Fault("serving: as above, in one answer of ten", tenth, TYPE, (delay_1h,)),
        Fault("source: delays in seconds instead of minutes", _source(delay_3h, lambda x: x * 60), MOVED, (delay_3h,)),
        Fault("source: visibility in km, not miles", _source("visib_mi", lambda x: x * 1.609), MOVED, ("visib_mi",)),
        Fault("source: humidity as a share", _source("humid_pct", lambda x: x / 100), MOVED, ("humid_pct",)),
        Fault("source: a count stands still", _source(count, lambda x: np.full_like(x, 40)), STILL, (count,)),
        Fault("source: late share half as high again", _source(late, lambda x: x * 1.5), MOVED, (late,), 28, False),
        Fault("source: late share twice as high", _source(late, lambda x: x * 2), MOVED, (late,), 28, False),
        Fault("source: a new carrier, 20 % of the rows", _every(0.2, "carrier_code", -1), NEW, ("carrier_code",)),
        Fault("source: a new carrier, 2 % of the rows", _every(0.02, "carrier_code", -1), NEW, ("carrier_code",)),
        Fault("source: -9999 in 1 % of the rows", _every(0.01, "pressure_mb", -9999), OUTLIERS, ("pressure_mb",)),
        Fault("source: 15 °F warmer (bound to the season)", _source("temp_f", lambda x: x + 15), ()),
        Fault("ten times fewer rows", _fewer, (("volume", ""),)),
        Fault("labels flipped", _flip, CONCEPT),
        Fault("a quarter of the good outcomes turn bad", _worse, CONCEPT),
        Fault("half of the outcomes no longer follow", _unlearned, CONCEPT, days=28),
        Fault("outcomes lost where the score is high", _selected, (("feedback", ""),), days=28),
        Fault("positive decisions are acted on", _acted_on, (("feedback", ""), ("concept", "")), days=28),
    ]  # fmt: skip


def asked(
    day: Day, names: Names, views: Mapping[str, str], defaults: np.ndarray, *, stored: set[str], since: int, seed: Any
) -> Asked:
    """The clean day, ready to be spoilt."""
    rows = len(day.values)
    return Asked(
        names, views, defaults, day, day.values.copy(), day.values.copy(), day.score.copy(), day.label.copy(),
        {view: np.full(rows, 600.0) for view in stored}, {view: np.zeros(rows) for view in stored},
        np.zeros(rows, dtype=bool), np.ones(rows, dtype=bool), since, np.random.default_rng(seed),
    )  # fmt: skip
