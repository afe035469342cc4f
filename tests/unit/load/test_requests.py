"""What `flightdeck load` sends when nobody says what."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from flightdeck.cluster.up import first_run
from flightdeck.lab.users import Arrival
from flightdeck.load import here
from flightdeck.load.requests import asked_around


def test_by_default_there_are_many_requests_and_all_are_asked_around_the_end_of_the_first_run():
    found = here.real_requests(None)
    assert len(found) > 300
    until = first_run().until
    leaves = [dt.datetime.fromisoformat(json.loads(it.body)["rows"][0]["sched_dep_utc"]) for it in found]
    horizon = dt.timedelta(hours=2)
    assert all(abs(it - horizon - until) <= here.AROUND for it in leaves)
    assert leaves == sorted(leaves) and len({it.entity_id for it in found}) == len(found)


def test_only_times_are_moved():
    body = b'{"rows": [{"carrier": "T", "tail": "NOT-A-TIME", "at": "2013-07-01T10:00:00+00:00", "n": 3}]}'
    (found,) = asked_around([Arrival(0, "x", body)], dt.datetime(1970, 1, 2, tzinfo=dt.UTC), dt.timedelta(hours=1))
    (row,) = json.loads(found.body)["rows"]
    assert row == {"carrier": "T", "tail": "NOT-A-TIME", "at": "2013-07-02T09:00:00+00:00", "n": 3}
    assert found.at_us == 23 * 3_600_000_000


def test_a_moment_at_which_nobody_asks_is_said_before_anything_is_sent():
    with pytest.raises(ValueError, match="no request falls between 2013-07-01 03:15 and 04:45 UTC"):
        here.real_requests(dt.datetime(2013, 7, 1, 4))
