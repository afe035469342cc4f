"""What virtual users send and what is kept of each answer. Plain data, shared by the locust process and the lab.

Arrivals follow the airline schedule, not the answers: every request has an intended start, and its latency counts from
there. A slow server can therefore not slow the users down and look fast (coordinated omission, G. Tene).
"""

from __future__ import annotations

import collections
import datetime as dt
import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

PLAN_ENV = "FLIGHTDECK_LAB_PLAN"


class Arrival(msgspec.Struct, frozen=True, array_like=True):
    """One request: when on the virtual clock, microseconds since 1970, and its body."""

    at_us: int
    entity_id: str
    body: bytes


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """One answered (or failed) request; times in seconds since 1970, real time.

    status 0: a transport error, told in `error`. degraded: the reasons of the answer's row. port: of the replica that
    answered, as the gateway tells; 0 when none did.
    """

    at_us: int
    entity_id: str
    intended_s: float
    sent_s: float
    done_s: float
    status: int
    score: float | None
    degraded: list[str]
    error: str
    port: int = 0

    @property
    def ok(self) -> bool:
        """A 2xx answer."""
        return 200 <= self.status < 300

    @property
    def latency_ms(self) -> float:
        """From the intended start to the answer."""
        return (self.done_s - self.intended_s) * 1e3

    @property
    def service_ms(self) -> float:
        """From sending to the answer: what the users' own process adds is left out."""
        return (self.done_s - self.sent_s) * 1e3


class Plan(msgspec.Struct, frozen=True):
    """What the users' process needs; written by the lab, found through `PLAN_ENV`.

    Args:
        users: requests that may be under way at once.
        arrivals: what to send. outcomes: what became of it, written at the end. progress: written as it goes on.
        ready: the process makes this file when it could begin.
        go: appears when the clock is set, and holds it (contracts.clock, as JSON).
    """

    port: int
    users: int
    arrivals: str
    outcomes: str
    progress: str
    ready: str
    go: str


class Progress(msgspec.Struct):
    """How far the users are; written a few times a second."""

    sent: int = 0
    answered: int = 0
    failed: int = 0
    degraded: int = 0
    total: int = 0
    late_ms: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    done: bool = False


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest-rank percentile, `share` 0 to 1; 0 when there is none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered) - 1e-9) - 1))]


def microseconds(time_utc: dt.datetime) -> int:
    """Microseconds since 1970, exact."""
    return (time_utc - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)) // dt.timedelta(microseconds=1)


def write_arrivals(path: Path, arrivals: Sequence[Arrival]) -> None:
    """Write the requests to send, in order."""
    path.write_bytes(msgspec.msgpack.encode(list(arrivals)))


def read_arrivals(path: Path) -> list[Arrival]:
    """The requests to send."""
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Arrival])


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Write what became of each request."""
    path.write_bytes(msgspec.msgpack.encode(list(outcomes)))


def read_outcomes(path: Path) -> list[Outcome]:
    """What became of each request.

    Raises:
        FileNotFoundError: the users' process did not come to its end.
    """
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Outcome])


def write_atomically(path: Path, content: object) -> None:
    """JSON in one move, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(msgspec.json.encode(content))
    temporary.replace(path)


def reason_counts(outcomes: Sequence[Outcome]) -> collections.Counter[str]:
    """How many answers gave each kind of reason for being degraded."""
    return collections.Counter(
        kind for outcome in outcomes for kind in {reason_kind(reason) for reason in outcome.degraded}
    )


def reason_kind(reason: str) -> str:
    """A reason without its numbers: `congestion: stale 9000 s > 7200 s` counts as `congestion: stale`.

    A store that does not answer is one reason, however many views it concerns.
    """
    view, _, rest = reason.partition(": ")
    if rest.startswith("store"):
        return "online store did not answer"
    words = rest.split()
    return f"{view}: {words[0].rstrip(',;')}" if words else view
