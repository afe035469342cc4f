"""The loop: read, decide, commit, push. After any failure it begins from what is kept, as a new process would."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from redis.exceptions import RedisError

from flightdeck.contracts.clock import Clock
from flightdeck.contracts.events import Fold, microseconds
from services.ingestor.intake import Intake, Taken
from services.ingestor.metrics import Metrics
from services.ingestor.pushing import Pusher
from services.ingestor.settings import IngestorSettings
from services.ingestor.streams import LeaseLost, Streams, added_s

logger = logging.getLogger("flightdeck.ingestor")
STANDBY_S, BACKLOG_S, BLOCK_S = 1.0, 1.0, 0.2
_LONGEST_PAUSE_S = 1.0


class Ingestor:
    """See the module.

    Args:
        make_fold: a new fold, knowing nothing.
        streams, pusher, metrics: adapters; `pusher` is started.
        settings: of them `batch_events`, `flush_interval_s`, `settle_s`, `silence_s`, `future_tolerance_s`, `lease_s`.
    """

    def __init__(
        self, make_fold: Callable[[], Fold], streams: Streams, pusher: Pusher, metrics: Metrics,
        settings: IngestorSettings,
    ) -> None:  # fmt: skip
        self._make_fold, self._streams, self._pusher = make_fold, streams, pusher
        self._metrics, self._settings = metrics, settings
        self._clock: Clock | None = None
        self._complained = False
        self._backlog_read_s = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set: the batch at hand is finished, and the lease given back."""
        pause_s = 0.05
        while not stop.is_set():
            try:
                if self._leads():
                    self._work(stop)
                    pause_s = 0.05
                else:
                    stop.wait(STANDBY_S)
                self._streams_are(up=True)
            except LeaseLost as error:
                logger.warning("beginning again from what is kept: %s", error)
                self._metrics.restarts += 1
            except (RedisError, OSError) as error:
                self._streams_are(up=False, why=error)
                stop.wait(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        try:
            self._streams.release()
        except (RedisError, OSError) as error:
            logger.warning("the lease was not given back and runs out by itself: %s", error)
        self._metrics.leads = False

    def _leads(self) -> bool:
        leads = self._streams.acquire()
        if leads != self._metrics.leads:
            logger.info("working" if leads else "another ingestor works; standing by")
        self._metrics.leads, self._metrics.beat_s = leads, time.monotonic()
        return leads

    def _work(self, stop: threading.Event) -> None:
        """Until `stop`, or an exception that says that what is in memory may not be what is kept."""
        settings, metrics = self._settings, self._metrics
        kept, remembered = self._streams.load()
        self._read_clock()
        intake = Intake(self._make_fold(), kept, remembered, future_tolerance_us=int(settings.future_tolerance_s * 1e6))
        self._pusher.offer(kept.newest)  # the last process may have died before it did
        settled = SettledClock(settings.settle_s)
        self._streams_are(up=True)
        self._finish_others(intake, stop, idle_s=0.0)
        wrote_s, claimed_s = 0.0, time.monotonic()
        while not stop.is_set():
            asked_s, asked_us = time.monotonic(), self._now_us()
            entries = self._streams.read(settings.batch_events, BLOCK_S)
            heard_us = settled.told(asked_s, asked_us)
            if self._read_clock():  # after the events, so that it is the one they were told by
                settled, heard_us = SettledClock(settings.settle_s), None
            now_us = self._now_us()
            if entries:
                self._commit(intake, intake.take(entries, now_us))
                wrote_s = time.monotonic()
            full = len(entries) == settings.batch_events
            taken = Taken()
            if not full and heard_us is not None:
                taken = intake.pass_time(heard_us, int(settings.silence_s * 1e6), now_us)
            if (
                taken.changes or time.monotonic() - wrote_s > settings.lease_s / 3
            ):  # without a change it keeps the lease
                self._commit(intake, taken)
                wrote_s = time.monotonic()
            metrics.lag_s = time.time() - added_s(entries[-1][0]) if full else 0.0
            metrics.reached_s, metrics.beat_s = intake.kept.reached_us / 1e6, time.monotonic()
            metrics.clock_behind_s = max(0.0, (intake.kept.reached_us - now_us) / 1e6)
            metrics.remembered = intake.remembered
            if time.monotonic() - claimed_s > settings.lease_s:  # one that lost its lease may take events all the same
                self._finish_others(intake, stop, idle_s=settings.lease_s)
                claimed_s = time.monotonic()
            if time.monotonic() - self._backlog_read_s > BACKLOG_S:
                metrics.backlog, self._backlog_read_s = self._streams.backlog(), time.monotonic()
            if entries and not full:  # a batch per interval, not one per event
                stop.wait(max(0.0, settings.flush_interval_s - (time.monotonic() - asked_s)))

    def _finish_others(self, intake: Intake, stop: threading.Event, *, idle_s: float) -> None:
        while not stop.is_set() and (entries := self._streams.claim(self._settings.batch_events, idle_s)):
            self._commit(intake, intake.take(entries, self._now_us()))

    def _commit(self, intake: Intake, taken: Taken) -> None:
        began_s = time.perf_counter()
        self._streams.commit(taken, intake.kept)
        self._metrics.flush.observe(time.perf_counter() - began_s)
        self._metrics.count(taken)
        changed = intake.kept.newest if any(row.revision == 0 for row in taken.snapshots) else taken.snapshots
        self._pusher.offer(changed, [(at_us, added_s(entry)) for at_us, entry in taken.applied])

    def _now_us(self) -> int:
        assert self._clock is not None
        return microseconds(self._clock.now())

    def _read_clock(self) -> bool:
        """Whether it is another clock than before."""
        before = self._clock
        try:
            self._clock = self._streams.clock()
        except ValueError as error:
            if before is None:
                raise
            if not self._complained:  # once, not with each batch
                logger.error("keeping the last clock: %s", error)
            self._complained = True
        else:
            self._complained = False
        return before != self._clock

    def _streams_are(self, *, up: bool, why: Exception | None = None) -> None:
        if up != self._metrics.streams_up:
            logger.warning("the streams server %s", "answers again" if up else f"does not answer ({why}); waiting")
            self._metrics.restarts += not up
        self._metrics.streams_up = up
        self._metrics.beat_s = time.monotonic()


class SettledClock:
    """What the clock showed `settle_s` of real time ago: what was known by then has had its time to arrive.

    Args:
        settle_s: real seconds.
    """

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._shown: deque[tuple[float, int]] = deque()  # real seconds, the clock's microseconds

    def told(self, real_s: float, clock_us: int) -> int | None:
        """The clock `settle_s` before `real_s`, where it shows `clock_us`; None until that is known."""
        if self._shown and clock_us < self._shown[-1][1]:  # it was set back: what it showed before is another time
            self._shown.clear()
        self._shown.append((real_s, clock_us))
        while len(self._shown) > 1 and self._shown[1][0] <= real_s - self._settle_s:
            self._shown.popleft()
        first_s, first_us = self._shown[0]
        return first_us if first_s <= real_s - self._settle_s else None
