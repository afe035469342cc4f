"""Entry point of locust: users who send at a constant rate. `flightdeck load` starts it, here or as a Job.

The users share one list; each takes the next request, waits for its intended start and sends it. Nobody waits for
another's answer: a slow server meets the same rate as a fast one.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Any

import gevent
from geventhttpclient import HTTPClient
from locust import User, constant, events, task

from flightdeck.lab.sending import ask, tell_locust
from flightdeck.lab.users import Outcome, read_arrivals, write_outcomes
from flightdeck.load.plan import GRACE_S, address_of, read_plan, schedule

HEAD_START_S = 1.0
PLAN = read_plan()
HOST, PORT = address_of(PLAN.url)
ARRIVALS = deque(schedule(read_arrivals(Path(PLAN.requests)), PLAN))
OUTCOMES: list[Outcome] = []
START = {"s": 0.0}


class Constant(User):
    """One connection that sends one request after the other."""

    wait_time = constant(0)

    def on_start(self) -> None:
        self.http = HTTPClient(HOST, PORT, connection_timeout=2.0, network_timeout=10.0, concurrency=1)

    @task
    def send(self) -> None:
        while ARRIVALS:
            arrival = ARRIVALS.popleft()
            intended_s = START["s"] + arrival.at_us / 1e6
            gevent.sleep(max(0.0, intended_s - time.time()))
            outcome, length = ask(self.http, arrival, intended_s)
            OUTCOMES.append(outcome)
            tell_locust(self.environment, outcome, length)
        gevent.sleep(0.2)


@events.test_start.add_listener
def begin(environment: Any, **_: Any) -> None:
    START["s"] = time.time() + HEAD_START_S
    end_s = START["s"] + PLAN.seconds + GRACE_S

    def watch() -> None:
        while len(OUTCOMES) < PLAN.total and time.time() < end_s:
            gevent.sleep(0.1)
        environment.runner.quit()

    gevent.spawn(watch)


@events.quitting.add_listener
def end(environment: Any, **_: Any) -> None:
    write_outcomes(Path(PLAN.outcomes), OUTCOMES)
    environment.process_exit_code = 0  # whether that is good is for the verdict to say
