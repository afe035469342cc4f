"""Flights as events: what is told, and how the streamed views are made of it. For the ingestor and for sources.

The features are those of rowwise.py; here is only which event means what to them.
"""

from __future__ import annotations

import datetime as dt
import heapq
from typing import Annotated, Literal

import msgspec

from feature_repo.rowwise import (
    CANCELLATION_KNOWN_AFTER,
    CONGESTION_WINDOWS_H,
    ORIGINS,
    OVERDUE_FORGOTTEN_AFTER,
    CongestionWindow,
    OverdueFlights,
)
from flightdeck.contracts.events import MICROSECOND, Event, FeatureRow, Name, TimeUs, time_of

CONGESTION, OVERDUE = "congestion", "overdue"
PERIOD = dt.timedelta(minutes=30)  # of both views' snapshots
_LONGEST_US = dt.timedelta(hours=max(CONGESTION_WINDOWS_H)) // MICROSECOND
_FORGOTTEN_US = OVERDUE_FORGOTTEN_AFTER // MICROSECOND
_CANCELLED_US = CANCELLATION_KNOWN_AFTER // MICROSECOND
_REPEATED_US = _FORGOTTEN_US  # so long a copy of what has no effect on features is told from news
_PLAN_US = dt.timedelta(days=7) // MICROSECOND

Origin = Literal["EWR", "JFK", "LGA"]
DelayMin = Annotated[float, msgspec.Meta(ge=-240, le=4320)]


class _OfFlight(Event, frozen=True, kw_only=True):
    flight_id: Name
    origin: Origin
    sched_dep_us: TimeUs

    def __post_init__(self) -> None:
        if abs(self.sched_dep_us - self.at_us) > _PLAN_US:
            raise ValueError("sched_dep_us is more than 7 days from at_us")


class Scheduled(_OfFlight, frozen=True, kw_only=True, tag="scheduled"):
    """A flight is to leave."""


class Departed(_OfFlight, frozen=True, kw_only=True, tag="departed"):
    """A flight left at `at_us`, `dep_delay_min` minutes after its schedule (negative when early)."""

    dep_delay_min: DelayMin


class Cancelled(_OfFlight, frozen=True, kw_only=True, tag="cancelled"):
    """A flight will not leave. To features it is known at `rowwise.CANCELLATION_KNOWN_AFTER`, as in training."""


class Landed(_OfFlight, frozen=True, kw_only=True, tag="landed"):
    """A flight came down; `arr_delay_min` is null when it was diverted."""

    diverted: bool
    arr_delay_min: DelayMin | None


class Weather(Event, frozen=True, kw_only=True, tag="weather"):
    """An hourly observation at an origin; units and bounds as in the source. Null: the station did not say."""

    origin: Origin
    observed_hour_us: TimeUs
    temp_f: Annotated[float, msgspec.Meta(ge=-40, le=130)] | None
    dewp_f: Annotated[float, msgspec.Meta(ge=-60, le=100)] | None
    humid_pct: Annotated[float, msgspec.Meta(ge=0, le=100)] | None
    wind_dir_deg: Annotated[float, msgspec.Meta(ge=0, le=360)] | None
    wind_speed_mph: Annotated[float, msgspec.Meta(ge=0, le=253)] | None
    wind_gust_mph: Annotated[float, msgspec.Meta(ge=0, le=253)] | None
    precip_in: Annotated[float, msgspec.Meta(ge=0, le=12)] | None
    pressure_mb: Annotated[float, msgspec.Meta(ge=870, le=1085)] | None
    visib_mi: Annotated[float, msgspec.Meta(ge=0, le=20)] | None


FlightEvent = Scheduled | Departed | Cancelled | Landed | Weather


class FlightFold:
    """Congestion and overdue flights at every origin: `contracts.events.Fold` of the flights."""

    kinds = ("scheduled", "departed", "cancelled", "landed", "weather")
    views = (CONGESTION, OVERDUE)
    period = PERIOD

    def __init__(self) -> None:
        self._decoder = msgspec.json.Decoder(FlightEvent)
        self._windows = {origin: CongestionWindow() for origin in ORIGINS}
        self._overdue = OverdueFlights()
        self._told: dict[tuple[bool, str], FlightEvent] = {}  # whether its plan, and of which flight
        self._forget: list[tuple[int, tuple[bool, str]]] = []  # a heap

    def decode(self, content: bytes) -> Event:
        """As `Fold.decode`."""
        return self._decoder.decode(content)

    def needed_until_us(self, event: FlightEvent) -> int:
        """As `Fold.needed_until_us`. A departure is needed as long as its plan: else the flight would be overdue."""
        match event:
            case Scheduled():
                return event.sched_dep_us + _FORGOTTEN_US
            case Departed():
                return max(event.at_us + _LONGEST_US, event.sched_dep_us + _FORGOTTEN_US)
            case Cancelled():
                return max(event.sched_dep_us + _CANCELLED_US + _LONGEST_US, event.sched_dep_us + _FORGOTTEN_US)
        return event.at_us + _REPEATED_US

    def add(self, event: FlightEvent) -> bool:
        """As `Fold.add`: of each flight the first plan, and the first departure or cancellation."""
        if not isinstance(event, Scheduled | Departed | Cancelled):
            return False
        what = (isinstance(event, Scheduled), event.flight_id)
        if what in self._told:
            return False
        self._told[what] = event
        heapq.heappush(self._forget, (self.needed_until_us(event), what))
        match event:
            case Scheduled():
                self._overdue.scheduled(event.flight_id, event.origin, time_of(event.sched_dep_us))
                self._gone(self._told.get((False, event.flight_id)))  # which may have forgotten it meanwhile
            case Departed():
                self._windows[event.origin].departed(time_of(event.at_us), event.dep_delay_min)
                self._gone(event)
            case Cancelled():
                self._windows[event.origin].cancelled(time_of(event.sched_dep_us))
                self._gone(event)
        return True

    def snapshot(self, at_us: int) -> list[FeatureRow]:
        """As `Fold.snapshot`: a row per view and origin."""
        at_utc = time_of(at_us)
        while self._forget and self._forget[0][0] <= at_us:
            self._told.pop(heapq.heappop(self._forget)[1], None)
        congestion = {origin: window.snapshot(at_utc) for origin, window in self._windows.items()}
        return [
            FeatureRow(view, {"origin": origin}, dict(features))
            for view, rows in ((CONGESTION, congestion), (OVERDUE, self._overdue.snapshot(at_utc)))
            for origin, features in rows.items()
        ]

    def _gone(self, event: FlightEvent | None) -> None:
        """Nobody waits for the flight any more."""
        if isinstance(event, Departed):
            self._overdue.departed(event.flight_id, time_of(event.at_us))
        elif isinstance(event, Cancelled):
            self._overdue.cancelled(event.flight_id, time_of(event.sched_dep_us))
