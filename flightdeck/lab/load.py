"""How much the serving side can take, and how fast the replay may therefore run."""

from __future__ import annotations

import dataclasses
import http.client
import threading
import time
from collections.abc import Sequence

from flightdeck.lab.ports import HOST
from flightdeck.lab.users import Arrival

PROBE_ID = "probe-"  # request ids of the probe: its predictions are no flight's
TOP_SPEED = 40_000.0
BUSY_HOURS_PER_DAY = 17.0  # flights are scheduled from 05:00 to 23:00
RESERVE = 3.0  # the probe must do so many times the rate of a busy hour: users and streamer need the cores too,
# and a hiccup of the machine must not make the features old


@dataclasses.dataclass(frozen=True)
class Pace:
    """How a replay runs: virtual seconds per real second, and how many virtual days."""

    speed: float
    days: int
    why: str


def pace(capacity_per_s: float, flights_per_day: float, days: int, seconds: float) -> Pace:
    """The fastest pace, `TOP_SPEED` at most, that the measured capacity can follow.

    Args:
        capacity_per_s: answers per second of the probe.
        flights_per_day: requests of one virtual day.
        days: to replay when possible.
        seconds: real time that the replay may take.
    """
    per_busy_second = flights_per_day / (BUSY_HOURS_PER_DAY * 3600)
    speed = min(TOP_SPEED, capacity_per_s / RESERVE / per_busy_second)
    fitting = int(speed * seconds / 86_400)
    chosen = max(1, min(days, fitting))
    why = f"measured {capacity_per_s:,.0f} answers/s"
    if chosen < days:
        why += f": {days} days would take more than {seconds:.0f} s, so {chosen} are replayed"
    return Pace(speed, chosen, why)


def probe(port: int, arrivals: Sequence[Arrival], *, seconds: float = 2.0, connections: int = 8) -> tuple[int, float]:
    """Answers within `seconds` through the gateway, closed loop: (answers, answers per second)."""
    counts = [0] * connections
    deadline = time.monotonic() + seconds

    def run(index: int) -> None:
        connection = http.client.HTTPConnection(HOST, port, timeout=5)
        at = index
        while time.monotonic() < deadline:
            body = arrivals[at % len(arrivals)].body
            headers = {"content-type": "application/json", "x-request-id": f"{PROBE_ID}{at}"}
            connection.request("POST", "/v1/predict", body=body, headers=headers)
            answer = connection.getresponse()
            answer.read()
            counts[index] += answer.status == 200
            at += connections
        connection.close()

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(connections)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 10)
    return sum(counts), sum(counts) / (time.monotonic() - began)
