"""Features computed one row or one event at a time: plain functions that build, stream and predictor share.

Imports the standard library only, so that the hot path of the predictor stays light.
"""

from __future__ import annotations

import datetime as dt
import functools
import zoneinfo
from collections import deque
from collections.abc import Iterable, Sequence

LOCAL_TIME = zoneinfo.ZoneInfo("America/New_York")  # of all three origins

# Stable codes: append only. Reordering or removing an entry changes what trained models see.
ORIGINS = ("EWR", "JFK", "LGA")
CARRIERS = ("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL", "HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV")
UNKNOWN_CODE = -1.0

LATE_AFTER_MIN = 15.0  # the US DOT's rule (BTS, Airline On-Time Statistics)
CANCELLATION_KNOWN_AFTER = dt.timedelta(minutes=60)  # after scheduled departure: the data do not say, this is our rule
CONGESTION_WINDOWS_H = (1, 3)
OVERDUE_AFTER = dt.timedelta(minutes=15)  # a few minutes of delay are every flight's
OVERDUE_FORGOTTEN_AFTER = dt.timedelta(hours=6)  # nothing is waited for longer: a flight nobody reported would stay
_CARRIER_CODE = {carrier: float(code) for code, carrier in enumerate(CARRIERS)}

CALENDAR_FEATURES = (
    "dep_minute_of_day",
    "dep_day_of_week",
    "dep_day_of_year",
    "is_holiday_window",
    "origin_ewr",
    "origin_jfk",
    "origin_lga",
    "carrier_code",
)
OVERDUE_FEATURES = ("overdue_flights", "overdue_flights_all_origins")
_NEVER = dt.datetime.max.replace(tzinfo=dt.UTC)


def calendar_features(carrier: str, origin: str, sched_dep_utc: dt.datetime) -> dict[str, float]:
    """What the schedule alone tells of a flight, in the order of `CALENDAR_FEATURES`.

    Local time is New York's, where all origins are. A carrier outside the table has code -1.

    Raises:
        ValueError: `sched_dep_utc` has no time zone.
    """
    if sched_dep_utc.tzinfo is None:
        raise ValueError(f"sched_dep_utc must be timezone-aware; got {sched_dep_utc.isoformat()}")
    local = sched_dep_utc.astimezone(LOCAL_TIME)
    return {
        "dep_minute_of_day": float(local.hour * 60 + local.minute),
        "dep_day_of_week": float(local.isoweekday()),
        "dep_day_of_year": float(local.timetuple().tm_yday),
        "is_holiday_window": float(is_holiday_window(local.date())),
        "origin_ewr": float(origin == "EWR"),
        "origin_jfk": float(origin == "JFK"),
        "origin_lga": float(origin == "LGA"),
        "carrier_code": _CARRIER_CODE.get(carrier, UNKNOWN_CODE),
    }


def calendar_columns(
    carriers: Sequence[str], origins: Sequence[str], sched_dep_utc: Sequence[dt.datetime]
) -> dict[str, list[float]]:
    """`calendar_features` of many flights, as columns: the same function row by row."""
    rows = [calendar_features(*row) for row in zip(carriers, origins, map(_aware, sched_dep_utc), strict=True)]
    return {name: [row[name] for row in rows] for name in CALENDAR_FEATURES}


def _aware(time: dt.datetime) -> dt.datetime:
    """Feast hands its own times over without a zone; they mean UTC."""
    return time if time.tzinfo is not None else time.replace(tzinfo=dt.UTC)


def local_day(sched_dep_utc: dt.datetime) -> dt.date:
    """The day a flight belongs to: that of its scheduled departure in New York."""
    return sched_dep_utc.astimezone(LOCAL_TIME).date()


@functools.lru_cache(maxsize=4096)
def is_holiday_window(day: dt.date) -> bool:
    """Whether US travel is unusually heavy: within two days of a long-weekend holiday, or 20 December to 3 January."""
    if (day.month, day.day) >= (12, 20) or (day.month, day.day) <= (1, 3):
        return True
    return any(abs((day - holiday).days) <= 2 for holiday in _travel_holidays(day.year))


@functools.lru_cache(maxsize=64)
def _travel_holidays(year: int) -> tuple[dt.date, ...]:
    """Memorial Day, Independence Day, Labor Day and Thanksgiving (5 U.S.C. 6103)."""
    last_of_may = dt.date(year, 5, 31)
    first_of_september = dt.date(year, 9, 1)
    first_of_november = dt.date(year, 11, 1)
    return (
        last_of_may - dt.timedelta(days=last_of_may.weekday()),
        dt.date(year, 7, 4),
        first_of_september + dt.timedelta(days=-first_of_september.weekday() % 7),
        first_of_november + dt.timedelta(days=(3 - first_of_november.weekday()) % 7 + 21),
    )


class CongestionWindow:
    """Congestion at one origin, event by event: the streaming form of `transforms.congestion`.

    Feed departures and cancellations as they become known, in any order within the longest window, then ask for a
    snapshot. Not thread-safe; keeps the events of the longest window only.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[dt.datetime, float | None]] = deque()  # known at, delay in minutes; None: cancelled
        self._sorted = True
        self._longest = dt.timedelta(hours=max(CONGESTION_WINDOWS_H))

    def departed(self, departed_at_utc: dt.datetime, dep_delay_min: float) -> None:
        """A flight left, `dep_delay_min` minutes after its schedule (negative when early)."""
        self._add(departed_at_utc, dep_delay_min)

    def cancelled(self, sched_dep_utc: dt.datetime) -> None:
        """A flight was cancelled; by our rule that is known `CANCELLATION_KNOWN_AFTER` its scheduled departure."""
        self._add(sched_dep_utc + CANCELLATION_KNOWN_AFTER, None)

    def snapshot(self, at_utc: dt.datetime) -> dict[str, float]:
        """Features `CONGESTION_FEATURES` over (at - window, at]; forgets what no later snapshot can need."""
        if not self._sorted:
            self._events = deque(sorted(self._events, key=lambda event: event[0]))
            self._sorted = True
        while self._events and self._events[0][0] <= at_utc - self._longest:
            self._events.popleft()
        features: dict[str, float] = {}
        for hours in CONGESTION_WINDOWS_H:
            since = at_utc - dt.timedelta(hours=hours)
            features |= _congestion_of(
                [delay_min for known_at, delay_min in self._events if since < known_at <= at_utc], f"{hours}h"
            )
        return features

    def _add(self, known_at: dt.datetime, delay_min: float | None) -> None:
        self._sorted = self._sorted and (not self._events or known_at >= self._events[-1][0])
        self._events.append((known_at, delay_min))


def _congestion_of(delays_min: Iterable[float | None], suffix: str) -> dict[str, float]:
    delays_min = list(delays_min)
    flown = [delay_min for delay_min in delays_min if delay_min is not None]
    return {
        f"departures_{suffix}": float(len(flown)),
        f"mean_dep_delay_min_{suffix}": sum(flown) / len(flown) if flown else 0.0,
        f"late_dep_share_{suffix}": sum(delay_min >= LATE_AFTER_MIN for delay_min in flown) / len(flown)
        if flown
        else 0.0,
        f"cancellations_{suffix}": float(len(delays_min) - len(flown)),
    }


class OverdueFlights:
    """Flights that should have left and have not, at every origin: the streaming form of `transforms.overdue`.

    Tell each flight's schedule by the time it should leave, and its departure or cancellation when known; the order
    does not matter, and telling twice changes nothing. Not thread-safe; keeps what a later snapshot can need.
    """

    def __init__(self, origins: Sequence[str] = ORIGINS) -> None:
        self._origins = tuple(origins)
        self._scheduled: dict[str, tuple[str, dt.datetime]] = {}  # flight -> origin, scheduled departure
        self._gone: dict[str, dt.datetime] = {}  # flight -> when its departure or cancellation was known

    def scheduled(self, flight_id: str, origin: str, sched_dep_utc: dt.datetime) -> None:
        """A flight is to leave `origin` at `sched_dep_utc`."""
        self._scheduled[flight_id] = (origin, sched_dep_utc)

    def departed(self, flight_id: str, departed_at_utc: dt.datetime) -> None:
        """A flight left."""
        self._gone[flight_id] = departed_at_utc

    def cancelled(self, flight_id: str, sched_dep_utc: dt.datetime) -> None:
        """A flight was cancelled; by our rule that is known `CANCELLATION_KNOWN_AFTER` its scheduled departure."""
        self._gone[flight_id] = sched_dep_utc + CANCELLATION_KNOWN_AFTER

    def snapshot(self, at_utc: dt.datetime) -> dict[str, dict[str, float]]:
        """Per origin the features `OVERDUE_FEATURES`; forgets what no later snapshot can need."""
        oldest = at_utc - OVERDUE_FORGOTTEN_AFTER
        self._scheduled = {flight: plan for flight, plan in self._scheduled.items() if plan[1] > oldest}
        self._gone = {
            flight: gone_at for flight, gone_at in self._gone.items() if gone_at > oldest or flight in self._scheduled
        }
        waiting = [
            origin
            for flight, (origin, sched_dep_utc) in self._scheduled.items()
            if sched_dep_utc + OVERDUE_AFTER <= at_utc and self._gone.get(flight, _NEVER) > at_utc
        ]
        return {
            origin: dict(zip(OVERDUE_FEATURES, (float(waiting.count(origin)), float(len(waiting))), strict=True))
            for origin in self._origins
        }
