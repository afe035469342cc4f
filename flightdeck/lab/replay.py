"""Decides what is due when virtual time has reached a point: rows, snapshots, events. Pure; streamer.py writes.

Virtual time runs tens of thousands of times as fast as real time, so a real hiccup of 0.2 s is hours: the streamer
always catches up to what is newest instead of working off what nobody can see any more.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from feature_repo.rowwise import CongestionWindow, OverdueFlights

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
SNAPSHOT_US = 30 * 60 * 1_000_000  # the grid of both streamed views


def time_of(at_us: int) -> dt.datetime:
    """A time from microseconds since 1970."""
    return EPOCH + dt.timedelta(microseconds=at_us)


class Due:
    """A list ordered by time, taken piece by piece."""

    def __init__(self, times_us: Sequence[int]) -> None:
        self._times_us = times_us
        self.position = 0

    def until(self, now_us: int, limit: int | None = None) -> range:
        """Positions that became due since the last call, the oldest `limit` of them."""
        end = bisect_right(self._times_us, now_us, lo=self.position)
        if limit is not None:
            end = min(end, self.position + limit)
        found = range(self.position, end)
        self.position = end
        return found

    @property
    def next_us(self) -> int | None:
        """When the next one is due."""
        return self._times_us[self.position] if self.position < len(self._times_us) else None


class Congestion:
    """Congestion at every origin, from departures as they happen."""

    def __init__(self, departures: Sequence[tuple[int, str, float | None, int]], origins: Sequence[str]) -> None:
        self._departures = departures
        self._due = Due([departure[0] for departure in departures])
        self._windows = {origin: CongestionWindow() for origin in origins}
        self._last_us = 0
        self.skipped = 0  # snapshots that a newer one overtook before they were written

    def rows(self, now_us: int) -> list[dict[str, Any]]:
        """The newest snapshot of each origin, when one became due since the last call."""
        snapshot_us = now_us // SNAPSHOT_US * SNAPSHOT_US
        if snapshot_us <= self._last_us:
            return []
        for at in self._due.until(snapshot_us):
            at_us, origin, delay_min, scheduled_us = self._departures[at]
            if delay_min is None:
                self._windows[origin].cancelled(time_of(scheduled_us))
            else:
                self._windows[origin].departed(time_of(at_us), delay_min)
        if self._last_us:
            self.skipped += (snapshot_us - self._last_us) // SNAPSHOT_US - 1
        self._last_us = snapshot_us
        at_utc = time_of(snapshot_us)
        return [
            {"origin": origin, "event_timestamp": at_utc, **window.snapshot(at_utc)}
            for origin, window in self._windows.items()
        ]


class Overdue:
    """Flights that should have left and have not, from the schedule and from departures as they happen."""

    def __init__(self, scheduled: Sequence[tuple[int, str, str]], gone: Sequence[tuple[int, str]]) -> None:
        self._scheduled, self._gone = scheduled, gone
        self._due_scheduled = Due([flight[0] for flight in scheduled])
        self._due_gone = Due([flight[0] for flight in gone])
        self._flights = OverdueFlights()

    def rows(self, at_utc: dt.datetime) -> list[dict[str, Any]]:
        """The snapshot of each origin at `at_utc`, which lies after that of the call before."""
        at_us = (at_utc - EPOCH) // dt.timedelta(microseconds=1)
        for at in self._due_scheduled.until(at_us):
            scheduled_us, entity_id, origin = self._scheduled[at]
            self._flights.scheduled(entity_id, origin, time_of(scheduled_us))
        for at in self._due_gone.until(at_us):
            gone_us, entity_id = self._gone[at]
            self._flights.departed(entity_id, time_of(gone_us))  # a cancellation too: it is told when it is known
        snapshot = self._flights.snapshot(at_utc)
        return [{"origin": origin, "event_timestamp": at_utc, **features} for origin, features in snapshot.items()]


class Batches:
    """Rows of the batch views as they become known; the small, fast-ageing views first."""

    def __init__(self, batch: Mapping[str, Sequence[tuple[int, dict[str, Any]]]]) -> None:
        self._rows = batch
        self._due = {view: Due([at_us for at_us, _ in rows]) for view, rows in batch.items()}

    def rows(self, view: str, now_us: int, limit: int | None = None) -> list[dict[str, Any]]:
        """Due rows of one view, at most `limit`."""
        return [self._rows[view][at][1] for at in self._due[view].until(now_us, limit)]

    def chunk(self, now_us: int, limit: int) -> tuple[str, list[dict[str, Any]]]:
        """Due rows of the first view that has some, at most `limit`; no view's name when there are none."""
        for view in self._rows:
            if rows := self.rows(view, now_us, limit):
                return view, rows
        return "", []
