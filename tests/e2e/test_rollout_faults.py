"""The table of planted faults: each is sent home where, when and for the reason that it must be."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.open_load import Load
from flightdeck.contracts.rollout import RolloutSpec
from flightdeck.lab.faults import CATALOGUE
from services.rollout_operator import traffic
from services.rollout_operator.simulate import simulate
from services.rollout_operator.traffic import Behaviour, Candidate
from tests.e2e.conftest import Figures, first_failure
from tests.e2e.rollouts import RATE_PER_S, Drill, Outcome, caught

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]
AFTER_FORECAST_S = 10.0  # at most, between the request that the simulator forecasts and the decision
# What the simulator is told of a fault.
ALIKE = {
    "slow-50ms": Behaviour(added_ms=50),
    "slow-2s": Behaviour(added_ms=2000),
    "errors-5pct": Behaviour(errors=0.05),
    "unit": Behaviour(skew=1.0),
    "nan": Behaviour(degraded=1.0),
    "shift-005": Behaviour(score_shift=0.05),
}
NEVER_STARTS = ("crash-at-start", "never-ready")


def forecast(spec: RolloutSpec, name: str) -> float:
    """Copies of users' requests until half of such candidates are sent home."""
    found = simulate(spec, traffic.Load(RATE_PER_S, tick_s=1.0), Candidate(fault=ALIKE[name]), rollouts=300)
    return float(np.median(found.requests))


def within_forecast(found: Outcome, requests: float, figures: Figures, name: str) -> str:
    """The decision came soon after the request at which the simulator expects it."""
    seen = found.requests_until(found.left)
    late_s = max(0.0, found.left - found.moment_of(requests)) if seen >= requests else 0.0
    figures.add(f"{name}: after the forecast request was sent", late_s, AFTER_FORECAST_S)
    return f"{seen:,} requests from the first copy, {requests:,.0f} forecast, {late_s:.0f} s after it"


@pytest.mark.parametrize("name", ALIKE)
def test_a_fault_that_answers_show_is_sent_home_out_of_the_shadow(
    drill: Drill, users: Load, figures: Figures, name: str
):
    margins = {**drill.spec["judge"]["margins"], **CATALOGUE[name].margins}
    spec = drill.plan(judge={**drill.spec["judge"], "margins": margins}) if CATALOGUE[name].margins else drill.shipped()
    drill.ask(drill.candidate(name))
    found = drill.end(users, name, within_s=300)
    words = within_forecast(found, forecast(spec, name), figures, name)
    drill.note(found, f"{words}; margins {dict(CATALOGUE[name].margins)}" if CATALOGUE[name].margins else words)
    caught(found, name)
    assert not found.failed, first_failure(found.answers)
    assert not found.answered, f"users got {found.answered} answers from a shadow"


def test_a_crash_after_a_hundred_requests_shows_in_the_shadow(drill: Drill, users: Load):
    drill.ask(drill.candidate("crash-100"))
    found = drill.end(users, "crash-100", within_s=300)
    drill.note(found)
    caught(found, "crash-100", where="shadow")  # Envoy Gateway marks no copies: they count among the hundred
    assert not found.failed, first_failure(found.answers)


@pytest.mark.parametrize("name", NEVER_STARTS)
def test_a_fault_that_keeps_it_from_starting_is_sent_home_before_any_request(drill: Drill, users: Load, name: str):
    drill.ask(drill.candidate(name))
    found = drill.end(users, name, within_s=300)
    drill.note(found)
    caught(found, name)
    assert math.isnan(found.evidence), "it got requests without having been ready"
    assert not found.failed, first_failure(found.answers)


def test_a_model_with_another_sha256_than_the_release_says_is_sent_home(drill: Drill, users: Load):
    other = drill.champion.model.model_copy(update={"sha256": drill.champion.model.sha256[::-1]})
    drill.ask(drill.champion.model_copy(update={"model": other}), break_glass="the rollout tests try a wrong digest")
    found = drill.end(users, "wrong digest of the model", within_s=300)
    drill.note(found)
    assert found.phase == "aborted"
    assert found.metrics == ["restarts"], found.reason
    assert math.isnan(found.evidence), "it got requests without having been ready"
    assert not found.failed, first_failure(found.answers)


def test_an_image_that_is_not_there_is_told_by_name_at_the_deadline(drill: Drill, users: Load):
    drill.plan(readyDeadline="45s")
    image = drill.champion.image.partition("@")[0] + "@sha256:" + "0" * 64
    drill.ask(drill.champion.model_copy(update={"image": image}))
    found = drill.end(users, "image not there", within_s=200)
    drill.note(found)
    assert found.phase == "aborted"
    assert found.metrics == ["readyDeadline"], found.reason
    assert "ImagePull" in found.reason, found.reason
    assert not found.failed, first_failure(found.answers)
