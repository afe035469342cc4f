"""Entry point: tells the world what happens, at the speed of the replay clock. A process of its own.

Congestion, overdue flights, hourly weather and the daily history go into the online store through Feast; outcomes go
onto a Redis stream when a flight has landed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from feature_repo.rowwise import ORIGINS
from flightdeck.contracts.clock import ReplayClock, clock_from_mapping
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.prediction import OUTCOME_STREAM
from flightdeck.lab.replay import EPOCH, Batches, Congestion, Due, Overdue
from flightdeck.lab.users import microseconds, write_atomically
from flightdeck.lab.world import OVERDUE_VIEW, STREAMED_VIEW, Feed, read_feed
from pipelines.features.materialize import write_online
from pipelines.features.registry import open_store

if TYPE_CHECKING:
    from feast import FeatureStore

CHUNK_ROWS = 150  # of a history view, between two looks at what ages faster: about 15 ms


class StreamPlan(msgspec.Struct, frozen=True):
    """What the streamer needs: paths of the feed and of the files it talks through, as in users.Plan."""

    feed: str
    progress: str
    ready: str
    go: str


class StreamProgress(msgspec.Struct):
    """What was told so far; `lag_ms` is the longest real time between due and written of a congestion snapshot."""

    virtual: str = ""
    rows: dict[str, int] = msgspec.field(default_factory=dict)
    snapshots: int = 0
    skipped: int = 0
    outcomes: int = 0
    lag_ms: float = 0.0
    busy_share: float = 0.0
    errors: int = 0
    last_error: str = ""
    done: bool = False


class Streamer:
    """Tells everything that became due, again and again; see `run`."""

    def __init__(self, plan: StreamPlan, feed: Feed, store: FeatureStore, streams: Any) -> None:
        self.plan, self.feed, self.store, self.streams = plan, feed, store, streams
        self.congestion, self.batches = Congestion(feed.departures, ORIGINS), Batches(feed.batch)
        self.overdue = Overdue(feed.scheduled, feed.gone)
        self.outcomes = Due([known_us for known_us, *_ in feed.outcomes])
        self.progress = StreamProgress()

    def warm_up(self) -> None:
        """Read the registry now, not when the clock runs."""
        for view in (STREAMED_VIEW, OVERDUE_VIEW, *self.feed.batch):
            write_online(self.store, view, [], now_utc=EPOCH)

    def run(self, clock: ReplayClock) -> None:
        """Stream until the clock stands at its end and everything due is written."""
        assert clock.virtual_end is not None
        end_us = microseconds(clock.virtual_end)
        told_s = busy_s = 0.0
        started_s = time.time()
        while True:
            began_s = time.time()
            now_us = microseconds(clock.now())
            left = self.tell(clock, now_us)
            ended_s = time.time()
            busy_s += ended_s - began_s
            if ended_s - told_s > 0.25:
                told_s = ended_s
                self.progress.busy_share = busy_s / max(ended_s - started_s, 1e-9)
                self.report(clock)
            if not left:
                if now_us >= end_us:
                    break
                time.sleep(0.004)
        self.progress.done = True
        self.report(clock)

    def tell(self, clock: ReplayClock, now_us: int) -> bool:
        """Everything due that ages fast, and a chunk of the rest; whether some of the rest is left."""
        progress = self.progress
        if snapshot := self.congestion.rows(now_us):
            self._write(STREAMED_VIEW, snapshot, clock)
            self._write(OVERDUE_VIEW, self.overdue.rows(snapshot[0]["event_timestamp"]), clock)
            due_s = clock.real_s_of(snapshot[0]["event_timestamp"])
            progress.lag_ms = max(progress.lag_ms, (time.time() - due_s) * 1e3)
            progress.snapshots, progress.skipped = progress.snapshots + 1, self.congestion.skipped
        self._write("weather", self.batches.rows("weather", now_us), clock)
        if arrived := self.outcomes.until(now_us):
            self.streams.xadd(OUTCOME_STREAM, {"r": msgspec.msgpack.encode([self.feed.outcomes[at] for at in arrived])})
            progress.outcomes += len(arrived)
        view, chunk = self.batches.chunk(now_us, CHUNK_ROWS)
        self._write(view, chunk, clock)
        return bool(chunk)

    def report(self, clock: ReplayClock) -> None:
        """Write the progress file."""
        self.progress.virtual = clock.now().isoformat()
        write_atomically(Path(self.plan.progress), self.progress)

    def _write(self, view: str, rows: list[dict[str, Any]], clock: ReplayClock) -> None:
        if not rows:
            return
        try:
            write_online(self.store, view, rows, now_utc=clock.now())
            self.progress.rows[view] = self.progress.rows.get(view, 0) + len(rows)
        except RedisError as error:  # the store is away: what is newest goes in when it is back
            self.progress.errors += 1
            self.progress.last_error = f"{type(error).__name__}: {error}"[:300]
            time.sleep(0.1)


def main(plan_path: Path) -> int:
    """Wire the streamer and run it."""
    plan = msgspec.json.decode(plan_path.read_bytes(), type=StreamPlan)
    streams = redis.Redis.from_url(
        os.environ["FLIGHTDECK_STREAMS_REDIS"], retry=Retry(ExponentialBackoff(cap=0.5), 10), socket_timeout=2.0
    )
    streamer = Streamer(plan, read_feed(Path(plan.feed)), open_store(StateLayout.from_env()), streams)
    streamer.warm_up()
    Path(plan.ready).touch()
    streamer.run(_wait_for_go(Path(plan.go)))
    return 0


def _wait_for_go(go: Path) -> ReplayClock:
    while not go.is_file():
        time.sleep(0.02)
    clock = clock_from_mapping(json.loads(go.read_text()))
    assert isinstance(clock, ReplayClock)
    clock_waits_s = clock.real_start_s - time.time()
    if clock_waits_s > 0:
        time.sleep(clock_waits_s)
    return clock


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
