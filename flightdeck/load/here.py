"""A load test from this machine: real requests, and users in a process of their own."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from flightdeck.lab.users import Arrival, Outcome, write_arrivals
from flightdeck.load.plan import LoadPlan
from flightdeck.load.requests import asked_around
from flightdeck.load.runner import run_users

AROUND = dt.timedelta(minutes=45)  # requests made for so long before and after the clock are not degraded by it
DAY = dt.timedelta(hours=14)


def send(plan: LoadPlan, bodies: Sequence[Arrival]) -> list[Outcome]:
    """Send them as the plan says; what became of each.

    Raises:
        Refused: the plan may not be run, or the users ended without outcomes.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_arrivals(folder / "requests", list(bodies))
        files = {"requests": str(folder / "requests"), "outcomes": str(folder / "outcomes")}
        return run_users(msgspec.structs.replace(plan, **files), folder)


def real_requests(at: dt.datetime | None = None) -> list[Arrival]:
    """Requests around a moment, UTC; default: the coming day's, all asked around the end of the first run.

    Raises:
        ValueError: nobody asked around that moment.
    """
    from flightdeck.cluster.up import first_run
    from flightdeck.lab.world import arrivals

    if at is None:
        return requests_around(first_run().until)
    middle = at.replace(tzinfo=dt.UTC)
    first, last = middle - AROUND, middle + AROUND
    found = arrivals(first, last)
    if not found:
        raise ValueError(f"no request falls between {first:%Y-%m-%d %H:%M} and {last:%H:%M} UTC; choose another --at")
    return found


def requests_around(moment: dt.datetime) -> list[Arrival]:
    """The first run's coming day, all asked around a moment: where a cluster's clock stands it may be night."""
    from flightdeck.cluster.up import first_run
    from flightdeck.lab.world import arrivals

    until = first_run().until
    return asked_around(arrivals(until, until + DAY), moment, AROUND)
