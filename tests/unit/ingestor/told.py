"""Flight events and a plain recomputation of the features, for the tests of the ingestor."""

from __future__ import annotations

import datetime as dt

import msgspec

from feature_repo.rowwise import ORIGINS, CongestionWindow, OverdueFlights
from feature_repo.streaming import CONGESTION, OVERDUE, Cancelled, Departed, FlightEvent, Landed, Scheduled
from flightdeck.contracts.events import microseconds, time_of

START = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)
START_US = microseconds(START)
MINUTE_US = 60_000_000


def at(minutes: float) -> int:
    """So many minutes after `START`."""
    return START_US + int(minutes * MINUTE_US)


def scheduled(flight: str, sched_min: float, *, told_min: float | None = None, origin: str = "EWR") -> Scheduled:
    told = at(sched_min - 120 if told_min is None else told_min)
    return Scheduled(id=f"scheduled:{flight}", at_us=told, flight_id=flight, origin=origin, sched_dep_us=at(sched_min))


def departed(flight: str, at_min: float, *, sched_min: float | None = None, origin: str = "EWR") -> Departed:
    sched_min = at_min if sched_min is None else sched_min
    return Departed(
        id=f"departed:{flight}", at_us=at(at_min), flight_id=flight, origin=origin, sched_dep_us=at(sched_min),
        dep_delay_min=at_min - sched_min,
    )  # fmt: skip


def cancelled(flight: str, sched_min: float, *, origin: str = "EWR") -> Cancelled:
    return Cancelled(
        id=f"cancelled:{flight}", at_us=at(sched_min + 60), flight_id=flight, origin=origin, sched_dep_us=at(sched_min)
    )


def landed(flight: str, at_min: float) -> Landed:
    return Landed(
        id=f"landed:{flight}", at_us=at(at_min), flight_id=flight, origin="EWR", sched_dep_us=at(at_min - 60),
        diverted=False, arr_delay_min=3.0,
    )  # fmt: skip


def fields(event: FlightEvent) -> dict[bytes, bytes]:
    return {b"e": msgspec.json.encode(event)}


def recomputed(events: list[FlightEvent], at_us: int) -> dict[tuple[str, str], dict[str, float]]:
    """(view, origin) -> features as of `at_us`, by feature_repo.rowwise alone; each id once, the first one counts."""
    windows = {origin: CongestionWindow() for origin in ORIGINS}
    overdue = OverdueFlights()
    for event in {event.id: event for event in reversed(events)}.values():
        match event:
            case Scheduled():
                overdue.scheduled(event.flight_id, event.origin, time_of(event.sched_dep_us))
            case Departed():
                windows[event.origin].departed(time_of(event.at_us), event.dep_delay_min)
                overdue.departed(event.flight_id, time_of(event.at_us))
            case Cancelled():
                windows[event.origin].cancelled(time_of(event.sched_dep_us))
                overdue.cancelled(event.flight_id, time_of(event.sched_dep_us))
    at_utc = time_of(at_us)
    waiting = overdue.snapshot(at_utc)
    return {(CONGESTION, origin): windows[origin].snapshot(at_utc) for origin in ORIGINS} | {
        (OVERDUE, origin): waiting[origin] for origin in ORIGINS
    }
