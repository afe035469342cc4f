"""Real requests, asked as of another moment. Pure."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any

from flightdeck.lab.users import Arrival

_UTC_1970 = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def asked_around(arrivals: Sequence[Arrival], moment: dt.datetime, either_side: dt.timedelta) -> list[Arrival]:
    """The same requests in the same order, spread evenly around `moment`; every time in a body moves with its request.

    So a cluster whose clock stands at an hour at which nobody asks still gets requests at the horizon that its model
    was made for: what is asked too early or too late is answered, and marked as degraded.
    """
    step = 2 * either_side / max(1, len(arrivals))
    return [_moved(one, moment - either_side + number * step) for number, one in enumerate(arrivals)]


def _moved(one: Arrival, to: dt.datetime) -> Arrival:
    by = to - (_UTC_1970 + dt.timedelta(microseconds=one.at_us))
    rows = json.loads(one.body)["rows"]
    moved = {"rows": [{name: _later(value, by) for name, value in row.items()} for row in rows]}
    at_us = round((to - _UTC_1970) / dt.timedelta(microseconds=1))
    return Arrival(at_us, one.entity_id, json.dumps(moved, separators=(",", ":")).encode())


def _later(value: Any, by: dt.timedelta) -> Any:
    if not (isinstance(value, str) and "T" in value):
        return value
    try:
        return (dt.datetime.fromisoformat(value) + by).isoformat()
    except ValueError:  # a text with a T in it
        return value
