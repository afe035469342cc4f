from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightdeck.lab.load import TOP_SPEED, pace
from flightdeck.lab.users import (
    Arrival,
    Outcome,
    microseconds,
    percentile,
    read_arrivals,
    read_outcomes,
    reason_counts,
    reason_kind,
    write_arrivals,
    write_outcomes,
)


def outcome(**changes: object) -> Outcome:
    facts: dict = {
        "at_us": 0, "entity_id": "f", "intended_s": 10.0, "sent_s": 10.5, "done_s": 10.75, "status": 200, "score": 0.5,
        "degraded": [], "error": "",
    }  # fmt: skip
    return Outcome(**{**facts, **changes})


def test_latency_counts_from_the_intended_start_not_from_sending():
    assert outcome().latency_ms == pytest.approx(750)
    assert outcome().service_ms == pytest.approx(250)


@pytest.mark.parametrize(("status", "ok"), [(200, True), (204, True), (0, False), (422, False), (503, False)])
def test_only_2xx_is_no_failure(status: int, ok: bool):
    assert outcome(status=status).ok is ok


def test_percentiles_are_of_the_values_themselves():
    assert percentile([], 0.5) == 0.0
    assert percentile([3.0], 0.99) == 3.0
    assert [percentile([4.0, 1.0, 3.0, 2.0], share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1, 1, 2, 3, 4]


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_has_its_share_of_values_at_or_below_it(values: list[float], share: float):
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6


def test_reasons_are_counted_once_per_answer_and_without_their_numbers():
    assert reason_kind("congestion: stale 9000 s > 7200 s") == "congestion: stale"
    away = outcome(degraded=["weather: store unreachable", "congestion: store did not answer within 0.2 s"])
    assert reason_counts([away]) == {"online store did not answer": 1}
    twice = outcome(degraded=["congestion: stale 9000 s > 7200 s", "congestion: stale 1 s > 0 s", "weather: missing"])
    assert reason_counts([twice, outcome()]) == {"congestion: stale": 1, "weather: missing": 1}


def test_microseconds_are_exact():
    assert microseconds(dt.datetime(2013, 7, 1, 4, 0, 0, 1, dt.UTC)) == 1_372_651_200_000_001


def test_arrivals_and_outcomes_survive_a_round_trip(tmp_path: Path):
    arrivals = [Arrival(1, "a", b"{}"), Arrival(2, "b", b"[]")]
    write_arrivals(tmp_path / "a", arrivals)
    assert read_arrivals(tmp_path / "a") == arrivals
    write_outcomes(tmp_path / "o", [outcome()])
    assert read_outcomes(tmp_path / "o") == [outcome()]


def test_a_fast_machine_replays_the_whole_month_at_top_speed():
    chosen = pace(3000, 950, 31, 68)
    assert chosen.speed == TOP_SPEED
    assert chosen.days == 31


def test_a_slow_machine_replays_fewer_days_and_says_so():
    chosen = pace(300, 950, 31, 68)
    assert chosen.speed < TOP_SPEED
    assert chosen.days * 86_400 / chosen.speed <= 68
    assert 1 <= chosen.days < 31
    assert "300 answers/s" in chosen.why
    assert str(chosen.days) in chosen.why


def test_at_least_one_day_is_replayed_whatever_the_machine():
    assert pace(1, 950, 31, 68).days == 1
