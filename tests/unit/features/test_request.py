import datetime as dt
import math
import subprocess
import sys
from typing import Any

import msgspec
import pytest

from feature_repo.request import FlightRequest, entity_id, entity_keys, on_demand

GOOD: dict[str, Any] = {
    "carrier": "UA",
    "flight": 1545,
    "origin": "EWR",
    "dest": "IAH",
    "sched_dep_utc": "2013-01-01T10:15:00Z",
    "tailnum": "N14228",
}


def request(**change: Any) -> FlightRequest:
    return msgspec.convert({**GOOD, **change}, FlightRequest)


def test_the_entity_id_counts_days_in_new_york():
    assert entity_id(request(sched_dep_utc="2013-07-02T03:59:00Z")) == "2013-07-01-UA1545-EWR"
    assert entity_id(request(sched_dep_utc="2013-07-02T04:00:00Z")) == "2013-07-02-UA1545-EWR"


def test_a_plane_not_known_yet_is_looked_up_as_unknown():
    assert entity_keys(request(tailnum=None)) == {
        "carrier": "UA",
        "origin": "EWR",
        "dest": "IAH",
        "tailnum": "UNKNOWN",
    }


def test_equal_instants_in_different_offsets_are_the_same_request():
    assert on_demand(request(sched_dep_utc="2013-01-01T05:15:00-05:00")) == on_demand(request())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("carrier", "united"),
        ("flight", 0),
        ("flight", "1545"),
        ("flight", True),
        ("origin", "BOS"),
        ("dest", "QQQ"),
        ("dest", "iah"),
        ("sched_dep_utc", "2013-01-01T10:15:00"),
        ("sched_dep_utc", "tomorrow"),
        ("sched_dep_utc", "1713-01-01T10:15:00Z"),
        ("sched_dep_utc", float("nan")),
        ("tailnum", "N14228; DROP TABLE"),
        ("late", 1),
    ],
)
def test_a_bad_field_is_refused_by_name(field, value):
    with pytest.raises(msgspec.ValidationError, match=field):
        request(**{field: value})


@pytest.mark.parametrize("field", sorted(set(GOOD) - {"tailnum"}))
def test_a_missing_field_is_refused_by_name(field):
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({key: value for key, value in GOOD.items() if key != field}, FlightRequest)


def test_the_request_loads_neither_feast_nor_pandas():
    code = "import sys, feature_repo.request; print([m for m in ('feast', 'pandas', 'ibis') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_on_demand_features_are_finite_for_every_minute_of_a_day_of_clock_change():
    start = dt.datetime(2013, 3, 10, tzinfo=dt.UTC)
    rows = [on_demand(request(sched_dep_utc=(start + dt.timedelta(minutes=m)).isoformat())) for m in range(0, 2880, 7)]
    assert all(math.isfinite(value) for row in rows for value in row.values())
