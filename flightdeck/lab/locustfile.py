"""Entry point of locust: virtual users who replay the schedule. Started by the lab in a process of its own.

Locust patches the standard library, so nothing else of the lab runs here. The users share one list of arrivals; each
takes the next one, waits for its intended start and sends it, so up to `users` requests are under way at once.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

import gevent
import msgspec
from geventhttpclient import HTTPClient
from locust import User, constant, events, task

from flightdeck.contracts.clock import ReplayClock, clock_from_mapping
from flightdeck.lab.envoy import UPSTREAM_HEADER
from flightdeck.lab.ports import HOST
from flightdeck.lab.sending import ask, tell_locust
from flightdeck.lab.users import (
    PLAN_ENV,
    Arrival,
    Outcome,
    Plan,
    Progress,
    percentile,
    read_arrivals,
    write_atomically,
    write_outcomes,
)


class _World:
    """What all users of this process share."""

    def __init__(self) -> None:
        self.plan = msgspec.json.decode(Path(os.environ[PLAN_ENV]).read_bytes(), type=Plan)
        self.arrivals = deque(read_arrivals(Path(self.plan.arrivals)))
        self.total = len(self.arrivals)
        self.sent = 0
        self.outcomes: list[Outcome] = []
        self.failed = self.degraded = 0
        self.start_us, self.start_s, self.speed = 0, 0.0, 1.0

    def wait_for_go(self) -> None:
        """Until the lab has set the clock."""
        Path(self.plan.ready).touch()
        go = Path(self.plan.go)
        while not go.is_file():
            gevent.sleep(0.02)
        clock = clock_from_mapping(json.loads(go.read_text()))
        assert isinstance(clock, ReplayClock)
        self.start_us = round(clock.virtual_start.timestamp() * 1e6)
        self.start_s, self.speed = clock.real_start_s, clock.speed
        if clock.virtual_end is not None:
            end_us = round(clock.virtual_end.timestamp() * 1e6)
            self.arrivals = deque(arrival for arrival in self.arrivals if arrival.at_us < end_us)
            self.total = len(self.arrivals)

    def intended_s(self, arrival: Arrival) -> float:
        """Unix time at which the request should start."""
        return self.start_s + (arrival.at_us - self.start_us) / 1e6 / self.speed

    def report(self) -> Progress:
        """Figures of the newest second or so."""
        newest = self.outcomes[-1000:]
        latencies = [outcome.latency_ms for outcome in newest]
        return Progress(
            sent=self.sent,
            answered=len(self.outcomes),
            failed=self.failed,
            degraded=self.degraded,
            total=self.total,
            late_ms=max(((o.sent_s - o.intended_s) * 1e3 for o in newest[-50:]), default=0.0),
            p50_ms=percentile(latencies, 0.5),
            p99_ms=percentile(latencies, 0.99),
        )


WORLD = _World()


class Passenger(User):
    """One connection that sends one request after the other."""

    wait_time = constant(0)

    def on_start(self) -> None:
        """Open the connection when the first request needs it."""
        self.http = HTTPClient(HOST, WORLD.plan.port, connection_timeout=2.0, network_timeout=10.0, concurrency=1)

    @task
    def fly(self) -> None:
        """All arrivals, until none is left."""
        while WORLD.arrivals:
            arrival = WORLD.arrivals.popleft()
            intended_s = WORLD.intended_s(arrival)
            delay_s = intended_s - time.time()
            if delay_s > 0:
                gevent.sleep(delay_s)
            self._ask(arrival, intended_s)
        gevent.sleep(0.2)

    def _ask(self, arrival: Arrival, intended_s: float) -> None:
        WORLD.sent += 1
        outcome, length = ask(self.http, arrival, intended_s, upstream_header=UPSTREAM_HEADER)
        WORLD.outcomes.append(outcome)
        WORLD.failed += not outcome.ok
        WORLD.degraded += bool(outcome.degraded)
        tell_locust(self.environment, outcome, length)


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    """Wait for the clock, then watch for the last answer."""
    WORLD.wait_for_go()

    def watch() -> None:
        while len(WORLD.outcomes) < WORLD.total:
            write_atomically(Path(WORLD.plan.progress), WORLD.report())
            gevent.sleep(0.25)
        environment.runner.quit()

    gevent.spawn(watch)


@events.quitting.add_listener
def end(environment: Any, **_: Any) -> None:
    """Keep what became of each request, also when the users were stopped early."""
    write_outcomes(Path(WORLD.plan.outcomes), WORLD.outcomes)
    report = WORLD.report()
    report.done = True
    write_atomically(Path(WORLD.plan.progress), report)
    environment.process_exit_code = 0  # failed requests are the lab's to judge, not locust's
