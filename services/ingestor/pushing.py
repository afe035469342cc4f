"""Brings the newest rows into the online store, in a thread of its own: a store that is away holds up no event.

Nothing queues up: of each entity and view only the newest row waits. What is committed but not pushed when the process
dies is pushed by the next one, from what is kept.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from flightdeck.contracts.events import FeatureSnapshot
from services.ingestor.metrics import Metrics

logger = logging.getLogger("flightdeck.ingestor")
_LONGEST_PAUSE_S = 1.0
MEASURED_AT_MOST = 100_000  # events whose freshness is not known yet


class Online(Protocol):
    """An online store that keeps the newest row of an entity."""

    def push(self, rows: Sequence[FeatureSnapshot]) -> None:
        """Write rows; any exception means that some may not be written."""
        ...


class Pusher:
    """See the module."""

    def __init__(self, online: Online, metrics: Metrics) -> None:
        self._online, self._metrics = online, metrics
        self._changed = threading.Condition()
        self._rows: dict[tuple[object, ...], FeatureSnapshot] = {}
        self._waiting: deque[tuple[int, float]] = deque(maxlen=MEASURED_AT_MOST)
        self._busy = self._ends = False
        self._thread = threading.Thread(target=self._run, name="pusher", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def offer(self, rows: Sequence[FeatureSnapshot], applied: Sequence[tuple[int, float]] = ()) -> None:
        """Take committed rows, and of the events that went into the features (at_us, Unix time when they came)."""
        with self._changed:
            for row in rows:
                self._rows[row.view, *sorted(row.keys.items())] = row
            self._waiting += applied
            if rows:
                self._changed.notify_all()

    def finish(self, timeout_s: float) -> bool:
        """Push what waits, then end; whether all was pushed within `timeout_s`."""
        with self._changed:
            self._ends = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._rows and not self._busy, timeout_s)

    def _run(self) -> None:
        pause_s = 0.05
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rows or self._ends)
                rows = list(self._rows.values())
                self._rows.clear()
                self._busy = bool(rows)
                if not rows:
                    return
            try:
                self._online.push(rows)
            except Exception as error:  # a database, a network and a library in between: each has its own
                self._failed(rows, error)
                time.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            else:
                pause_s = 0.05
                self._pushed(rows)

    def _failed(self, rows: Sequence[FeatureSnapshot], error: Exception) -> None:
        if self._metrics.online_up:  # once per outage
            logger.warning("the online store takes no rows (%s: %s); holding the newest", type(error).__name__, error)
        self._metrics.online_up = False
        self._metrics.push_failures += 1
        with self._changed:
            self._busy = False
            for row in rows:  # unless a newer one came meanwhile
                self._rows.setdefault((row.view, *sorted(row.keys.items())), row)

    def _pushed(self, rows: Sequence[FeatureSnapshot]) -> None:
        now_s, metrics = time.time(), self._metrics
        if not metrics.online_up:
            logger.info("the online store takes rows again")
        metrics.online_up = True
        for row in rows:
            metrics.pushed[row.view] += 1
        until_us = max(row.at_us for row in rows)
        with self._changed:
            for at_us, added_s in self._waiting:
                if at_us <= until_us:
                    metrics.freshness.observe(now_s - added_s)
            self._waiting = deque((item for item in self._waiting if item[0] > until_us), MEASURED_AT_MOST)
            self._busy = False
            self._changed.notify_all()
