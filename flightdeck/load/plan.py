"""What a load test sends, where, how fast and how long; and where load may go at all. Pure."""

from __future__ import annotations

import ipaddress
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from flightdeck.lab.users import Arrival

PLAN_ENV = "FLIGHTDECK_LOAD_PLAN"
MOST_REQUESTS = 200_000
LONGEST_S = 900.0
HIGHEST_RATE = 2000.0
GRACE_S = 15.0  # after the last intended start: what has no answer by then has failed


class Refused(ValueError):
    """A load test that is not run: the message says why."""


class Limits(msgspec.Struct, frozen=True):
    """What the users must meet at least.

    Args:
        p50_ms, p99_ms: latency from the intended start, at most.
        failed: requests without a 2xx answer, at most.
        rate_share: of the asked rate that must have been sent, 0 to 1.
    """

    p50_ms: float = 50.0
    p99_ms: float = 500.0
    failed: int = 0
    rate_share: float = 0.98


class LoadPlan(msgspec.Struct, frozen=True):
    """One load test. `requests` is a file of Arrivals, sent in turn and again from the first; `outcomes` is written."""

    url: str
    rate_per_s: float
    seconds: float
    requests: str
    outcomes: str
    limits: Limits = Limits()

    @property
    def total(self) -> int:
        """Requests to send."""
        return max(1, round(self.rate_per_s * self.seconds))

    @property
    def users(self) -> int:
        """Requests that may be under way at once: what comes in a second. More wait, and the wait counts."""
        return int(min(512, max(16, self.rate_per_s)))


def checked(plan: LoadPlan) -> LoadPlan:
    """The plan, when it is one that may be run.

    Raises:
        Refused: it goes where load must not go, or is beyond the bounds.
    """
    address_of(plan.url)
    if not 0 < plan.rate_per_s <= HIGHEST_RATE:
        raise Refused(f"a rate above 0 and at most {HIGHEST_RATE:g} requests a second; found {plan.rate_per_s:g}")
    if not 0 < plan.seconds <= LONGEST_S:
        raise Refused(f"above 0 and at most {LONGEST_S:g} seconds; found {plan.seconds:g}")
    if plan.total > MOST_REQUESTS:
        raise Refused(f"{plan.total:,} requests are more than {MOST_REQUESTS:,}; lower --rate or --seconds")
    return plan


def address_of(url: str) -> tuple[str, int]:
    """Host and port of the target.

    Raises:
        Refused: it is neither this machine nor a Service of the cluster.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or not host or parts.path not in ("", "/") or parts.query or parts.username:
        raise Refused(f"the target is http://HOST:PORT without a path; found {url!r}")
    if not (_is_here(host) or _is_service(host)):
        raise Refused(
            f"load goes only to this machine (127.0.0.0/8, localhost) or to a Service of the cluster (NAME or "
            f"NAME.NAMESPACE.svc); found {host!r}"
        )
    try:
        return host, parts.port or 80
    except ValueError as error:
        raise Refused(f"{url!r}: {error}") from error


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network("127.0.0.0/8")
    except ValueError:
        return host == "localhost"


def _is_service(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        bare = host.removesuffix(".cluster.local")
        return "." not in host or (bare.endswith(".svc") and bare.count(".") == 2)
    return False


def schedule(requests: Sequence[Arrival], plan: LoadPlan) -> list[Arrival]:
    """The requests of the test in order; `at_us` is the intended start after the beginning, in microseconds.

    Raises:
        Refused: there is nothing to send.
    """
    if not requests:
        raise Refused("there are no requests to send")
    return [
        Arrival(round(1e6 * number / plan.rate_per_s), one.entity_id, one.body)
        for number, one in enumerate(itertools.islice(itertools.cycle(requests), plan.total))
    ]


def read_plan(environment: Mapping[str, str] = os.environ) -> LoadPlan:
    """The plan that the environment names.

    Raises:
        Refused: it names none, or not one that may be run.
    """
    if not environment.get(PLAN_ENV):
        raise Refused(f"{PLAN_ENV} must name a file with a load plan (JSON)")
    try:
        return checked(msgspec.json.decode(Path(environment[PLAN_ENV]).read_bytes(), type=LoadPlan))
    except (OSError, msgspec.DecodeError) as error:
        raise Refused(f"{environment[PLAN_ENV]}: {error}") from error
