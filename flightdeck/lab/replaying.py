"""Adapter: one replay of a period, its users and its streamer: files, processes, what became of each request."""

from __future__ import annotations

import datetime as dt
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from flightdeck.contracts.clock import ReplayClock
from flightdeck.lab.programs import find
from flightdeck.lab.requests import WorldRequest
from flightdeck.lab.stack import Stack
from flightdeck.lab.streamer import StreamPlan, StreamProgress
from flightdeck.lab.users import (
    PLAN_ENV,
    Arrival,
    Outcome,
    Plan,
    Progress,
    read_arrivals,
    read_outcomes,
    write_atomically,
)

T = TypeVar("T")
USERS = 64
HEAD_START_S = 1.0
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
PROCESSES = ("users", "streamer")


class Replay:
    """Users and streamer over [start, end); one at a time, since the processes have fixed names."""

    def __init__(self, stack: Stack, name: str, start_utc: dt.datetime, end_utc: dt.datetime) -> None:
        self.stack, self.start_utc, self.end_utc = stack, start_utc, end_utc
        self.folder = stack.layout.run / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clock: ReplayClock | None = None
        self._seen: tuple[float, int, float] = (0.0, 0, 0.0)  # when, requests sent by then, requests per second

    def world(self) -> WorldRequest:
        """What a worker shall prepare for it."""
        return WorldRequest(self.start_utc, self.end_utc, str(self.folder / "arrivals"), str(self.folder / "feed"))

    def arrivals(self) -> list[Arrival]:
        """The requests to send."""
        return read_arrivals(self.folder / "arrivals")

    def start(self) -> None:
        """Start both processes; they warm up and wait for `go`."""
        for name in ("go", "users.ready", "streamer.ready", "users.progress", "streamer.progress", "outcomes"):
            (self.folder / name).unlink(missing_ok=True)
        common = {"go": str(self.folder / "go")}
        users = Plan(
            port=self.stack.ports["gateway"], users=USERS, arrivals=str(self.folder / "arrivals"),
            outcomes=str(self.folder / "outcomes"), progress=str(self.folder / "users.progress"),
            ready=str(self.folder / "users.ready"), **common,
        )  # fmt: skip
        streamer = StreamPlan(
            feed=str(self.folder / "feed"), progress=str(self.folder / "streamer.progress"),
            ready=str(self.folder / "streamer.ready"), **common,
        )  # fmt: skip
        write_atomically(self.folder / "users.json", users)
        write_atomically(self.folder / "streamer.json", streamer)
        self.stack.start_once(
            "streamer", (sys.executable, "-m", "flightdeck.lab.streamer", str(self.folder / "streamer.json"))
        )
        argv = (
            str(find("locust")), "-f", str(LOCUSTFILE), "--headless", "--users", str(USERS), "--spawn-rate", str(USERS),
            "--skip-log-setup", "--only-summary",
        )  # fmt: skip
        self.stack.start_once("users", argv, **{PLAN_ENV: str(self.folder / "users.json")})

    def wait_ready(self, waiting: Callable[[], None]) -> None:
        """Until both could begin; `waiting` is called now and then.

        Raises:
            JobFailed: one ended, or is not ready within a minute.
        """
        missing = {name: self.folder / f"{name}.ready" for name in PROCESSES}
        deadline = time.monotonic() + 60
        while not all(path.is_file() for path in missing.values()):
            for name in missing:
                if not self.stack.supervisor.running(name) or time.monotonic() > deadline:
                    self.stack.supervisor.join(name, 0.1)
            waiting()
            time.sleep(0.05)

    def go(self, speed: float, end_utc: dt.datetime | None = None) -> ReplayClock:
        """Set everybody's clock and let it run, `speed` virtual seconds per second, to `end_utc` at most."""
        clock = ReplayClock(self.start_utc, time.time() + HEAD_START_S, speed, end_utc or self.end_utc)
        self.clock = clock
        set_clock(self.stack, clock)
        write_atomically(self.folder / "go", clock.to_mapping())
        return clock

    @property
    def running(self) -> bool:
        """Whether one of the two still works."""
        return any(self.stack.supervisor.running(name) for name in PROCESSES)

    def progress(self) -> tuple[Progress, StreamProgress]:
        """What both last told."""
        return (
            _read(self.folder / "users.progress", Progress()),
            _read(self.folder / "streamer.progress", StreamProgress()),
        )

    def words(self) -> str:
        """How far it is, in a line."""
        assert self.clock is not None
        users, streamed = self.progress()
        at_s, sent, rate = self._seen
        if time.time() - at_s > 1:
            rate = (users.sent - sent) / (time.time() - at_s) if at_s else 0.0
            self._seen = (time.time(), users.sent, rate)
        return (
            f"{self.clock.now():%d %b %H:%M}Z  {users.answered:,} answers, {rate:,.0f}/s, {users.failed} failed, "
            f"{users.degraded} degraded, p50 {users.p50_ms:.0f} ms, p99 {users.p99_ms:.0f} ms; "
            f"{sum(streamed.rows.values()):,} feature rows pushed, {streamed.outcomes:,} landed"
        )

    def finish(self, timeout_s: float) -> None:
        """Wait for the end of both.

        Raises:
            JobFailed: one did not come to a good end in time.
        """
        deadline = time.monotonic() + timeout_s
        for name in PROCESSES:
            self.stack.supervisor.join(name, max(1.0, deadline - time.monotonic()))

    def stop(self) -> None:
        """End both early; what was answered so far is kept."""
        self.stack.supervisor.stop(*PROCESSES)

    def outcomes(self) -> list[Outcome]:
        """What became of each request that was sent; empty when the users' process was killed."""
        try:
            return read_outcomes(self.folder / "outcomes")
        except FileNotFoundError:
            return []


def set_clock(stack: Stack, clock: ReplayClock) -> None:
    """Make `clock` everybody's now."""
    import redis

    from pipelines.clock import set_clock as tell_everybody

    streams: Any = redis.Redis.from_url(f"redis://127.0.0.1:{stack.ports['redis-streams']}/0")
    tell_everybody(streams, clock)
    streams.close()


def stand_clock(stack: Stack, at_utc: dt.datetime) -> None:
    """Everybody's now is `at_utc`, until the clock is set anew."""
    set_clock(stack, ReplayClock(at_utc, time.time(), 0.0))


def rebuild_online(stack: Stack, at_utc: dt.datetime) -> int:
    """Empty the online store, fill it from the lake as of `at_utc`: a replay left values from later. Returns rows."""
    import redis

    from pipelines.features.materialize import materialize

    online: Any = redis.Redis.from_url(f"redis://127.0.0.1:{stack.ports['redis-online']}/0")
    online.flushdb()
    online.close()
    return sum(item.rows for item in materialize(stack.layout, at_utc, full=True))


def _read(path: Path, default: T) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type(default))
    except OSError:
        return default
