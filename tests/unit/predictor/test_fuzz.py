"""Whatever is sent, the answer is a 2xx or a 4xx with the stable body (or a stated 503)."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

QUIET = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
ANY_JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
)
GOOD = {
    "carrier": "UA",
    "flight": 1545,
    "origin": "EWR",
    "dest": "IAH",
    "sched_dep_utc": "2013-07-04T21:15:00Z",
    "tailnum": None,
}
TIMES = st.datetimes().map(lambda at: at.isoformat() + "Z") | st.text(max_size=30)
ODD = SCALARS | TIMES | ANY_JSON | st.sampled_from(["JFK", "ZZZ", "N0", "9E", 10**400, -0.0, 1e308])


@st.composite
def nearly_flights(draw):
    row = dict(GOOD)
    for name in draw(st.sets(st.sampled_from(sorted(GOOD)), max_size=3)):
        row[name] = draw(ODD)
    if draw(st.booleans()):
        row.pop(draw(st.sampled_from(sorted(row))))
    if draw(st.booleans()):
        row[draw(st.text(max_size=10))] = draw(ODD)
    return {"rows": draw(st.lists(st.just(row), min_size=0, max_size=3))}


def expect_no_fault(answer) -> None:
    assert answer.status in (200, 400, 408, 413, 415, 422)
    if answer.status != 200:
        error = answer.json["error"]
        assert set(error) == {"code", "message", "field"}
        assert error["code"] != "internal"


@QUIET
@given(body=ANY_JSON)
def test_any_json_is_answered_without_a_fault(predictor, body):
    for path in ("/v1/predict", "/v1/score"):
        expect_no_fault(predictor.post(path, body))


@QUIET
@given(body=nearly_flights())
def test_requests_that_are_nearly_right_are_answered_without_a_fault(predictor, body):
    expect_no_fault(predictor.post("/v1/predict", body))


@QUIET
@given(data=st.data())
def test_vectors_of_odd_numbers_are_answered_without_a_fault(predictor, data):
    numbers = st.floats() | st.integers(min_value=-(10**30), max_value=10**30) | st.none() | ODD
    row = {name: data.draw(numbers) for name in predictor.runtime.plan.names}
    expect_no_fault(predictor.post("/v1/score", {"rows": [row]}))


@QUIET
@given(body=st.binary(max_size=200), kind=st.sampled_from(["application/json", "text/html", "\x00"]))
def test_any_bytes_are_answered_without_a_fault(predictor, body, kind):
    expect_no_fault(predictor.ask("POST", "/v1/predict", body, {"content-type": kind}))


@QUIET
@given(body=nearly_flights(), cut=st.floats(0, 1))
def test_bodies_cut_short_are_answered_without_a_fault(predictor, body, cut):
    content = json.dumps(body).encode()
    expect_no_fault(predictor.post("/v1/predict", content[: int(cut * len(content))]))
