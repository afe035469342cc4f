"""Forecasts say what simulated rollouts do: how long, with which chance, and which fault is still found."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flightdeck.contracts.rollout import RolloutSpec, load_rollout
from services.rollout_operator.forecast import Traffic, forecast, real_share, shares_by_replicas, slower_than
from services.rollout_operator.simulate import End, Outcomes, simulate
from services.rollout_operator.traffic import Behaviour, Candidate, Load
from tests.unit.rollout.test_lint import RELEASE, SHIPPED, spec

HALF = spec({"canary": {"weight": 50, "minRequests": 100, "deadline": "20m"}},
            margins={"errorRate": 0.02, "latencyP50Ratio": 1.3, "degradedRate": 0.03})  # fmt: skip
_SHIPPED = load_rollout(SHIPPED, release=RELEASE).spec
WHOLE = _SHIPPED.model_copy(
    update={"judge": _SHIPPED.judge.model_copy(update={"slices": None})}
)  # slices: a test below
PLANS = {
    "shipped, 100/s": (WHOLE, 100.0, Behaviour()),
    "shipped, 25/s": (WHOLE, 25.0, Behaviour()),
    "narrow margins, 50/s": (spec(), 50.0, Behaviour()),
    "without a shadow, 30/s": (HALF, 30.0, Behaviour()),
    "a champion that fails more often": (
        spec(margins={"errorRate": 0.02, "degradedRate": 0.03}), 40.0, Behaviour(errors=0.006, degraded=0.02)
    ),
}  # fmt: skip


def rolled_out(of: RolloutSpec, rate_per_s: float, champion: Behaviour, rollouts: int = 150) -> Outcomes:
    load = Load(rate_per_s, tick_s=40 / rate_per_s)  # so often that looks hardly cost time
    return simulate(of, load, Candidate(champion), champion=champion, rollouts=rollouts, seed=2)


@pytest.mark.parametrize(("of", "rate_per_s", "champion"), PLANS.values(), ids=PLANS)
def test_the_median_time_of_the_whole_and_of_each_step_is_within_35_per_cent_of_the_simulated_one(
    of: RolloutSpec, rate_per_s: float, champion: Behaviour
):
    ahead, out = forecast(of, Traffic(rate_per_s), champion=champion), rolled_out(of, rate_per_s, champion)
    for step, passed_s in zip(ahead.steps, out.passed_s.T, strict=True):
        assert_median(passed_s[np.isfinite(passed_s)], step.seconds)
    assert_median(out.time_s[out.end == End.PROMOTED], ahead.seconds)


def assert_median(times_s: np.ndarray, expected_s: float) -> None:
    """Within 35 per cent, give or take 15 of 100 rollouts: times to a pass cluster by the number of errors met, and a
    median that lies between two clusters falls into either of them by chance."""
    assert np.mean(times_s <= 1.35 * expected_s) >= 0.35
    assert np.mean(times_s < expected_s / 1.35) <= 0.65


def test_slices_are_never_promised_sooner_than_they_come_and_not_much_later():
    judged = {"margins": {"degradedRate": 0.1, "labelFlips": 0.1}, "slices": {"by": ["origin"], "minShare": 0.2}}
    of = spec(
        {"shadow": {"minPairs": 50, "deadline": "10m"}}, {"canary": {"weight": 50, "deadline": "1m"}}, judge=judged
    )
    ahead = forecast(of, Traffic(50), faults=False)
    load = Load(50, tick_s=0.8, slices=((0.23, 0.23, 0.23, 0.23, 0.05, 0.03),))  # two are too small to be waited for
    out = simulate(of, load, rollouts=60, seed=2)
    assert {it.metric for it in ahead.steps[0].metrics} > {"labelFlips by slice", "degradedRate by slice"}
    assert ahead.steps[0].seconds / 2.5 <= np.median(out.passed_s[:, 0]) <= 1.1 * ahead.steps[0].seconds


def test_the_chance_to_pass_in_time_is_the_simulated_share():
    hasty = spec({"shadow": {"minPairs": 100, "deadline": "30s"}}, {"canary": {"weight": 50, "deadline": "30s"}},
                 margins={"errorRate": 0.01, "latencyP99Ratio": 2.0})  # fmt: skip
    ahead, out = forecast(hasty, Traffic(40)), rolled_out(hasty, 40.0, Behaviour(), 400)
    assert 0.05 < ahead.in_time < 0.95
    assert ahead.in_time == pytest.approx(out.share(End.PROMOTED), abs=0.12)


@pytest.mark.parametrize(
    "metric",
    ["errorRate", "latencyP50Ratio", "latencyP99Ratio", "labelFlips", "featureSkew", "scoreDelta", "scoreShift"],
)
def test_nine_of_ten_simulated_rollouts_find_the_smallest_fault_and_hardly_any_a_smaller_one(metric: str):
    shipped = WHOLE
    ahead = forecast(shipped, Traffic(50))
    found = {it.metric: it for it in ahead.steps[0].metrics}[metric]
    assert found.fault is not None

    def aborted(size: float) -> float:
        field = {
            "errorRate": {"errors": 0.001 + size}, "labelFlips": {"flips": size}, "featureSkew": {"skew": size},
            "latencyP50Ratio": {"median_ms": 5 * size}, "latencyP99Ratio": {"median_ms": 5 * size},
        }.get(metric, {"score_shift": size})  # fmt: skip
        only = shipped.judge.margins.model_copy(
            update={name: None for name, value in shipped.judge.margins if name.replace("_", "") != metric.lower()}
        )
        alone = shipped.model_copy(
            update={"judge": shipped.judge.model_copy(update={"margins": only, "alpha": 0.05 / 9})}
        )
        candidate = Candidate(dataclasses.replace(Behaviour(), **field))
        return simulate(alone, Load(50, tick_s=4), candidate, rollouts=80, seed=4).share(End.ABORTED)

    assert aborted(found.fault) >= 0.75
    margin = found.margin
    assert aborted(margin + 0.4 * (found.fault - margin)) < 0.75


def test_a_proxy_gives_the_weight_itself():
    step = spec().plan[1]
    assert real_share(step, 3, Traffic(100)) == (0.1, 0.1, 0.1)
    assert real_share(spec().plan[0], 3, Traffic(100)) == (0, 0, 0)


def test_without_a_proxy_a_share_is_counted_in_replicas_and_strays_with_few_connections():
    assert shares_by_replicas(3) == [1 / 4, 2 / 5, 1 / 2]
    share, low, high = real_share(spec().plan[1], 3, Traffic(100, connections=48, weighting_proxy=False))
    assert share == 0.25
    assert (low, high) == pytest.approx((0.147, 0.353), abs=0.001)


def test_more_traffic_never_makes_a_step_longer_and_a_later_step_has_only_its_minimum_left():
    ahead = [forecast(spec(), Traffic(rate), faults=False) for rate in (10, 40, 160)]
    assert ahead[0].seconds > ahead[1].seconds > ahead[2].seconds
    assert ahead[1].steps[2].metrics == ()
    assert ahead[1].steps[2].seconds == pytest.approx(100 / 20)


def test_errors_are_judged_anew_under_weight_and_carried_between_weights():
    ahead = forecast(spec(), Traffic(50), faults=False)
    assert [[it.metric for it in step.metrics] for step in ahead.steps] == [
        ["errorRate", "latencyP99Ratio", "labelFlips"], ["errorRate"], [],
    ]  # fmt: skip


def test_a_wider_margin_is_decided_sooner():
    wide, narrow = (forecast(spec(margins={"errorRate": it}), Traffic(50), faults=False) for it in (0.05, 0.005))
    assert wide.steps[0].metrics[0].pairs < narrow.steps[0].metrics[0].pairs


def test_the_share_of_slow_answers_is_that_of_the_assumed_distribution():
    drawn = np.random.default_rng(0)
    taken = 5 * np.exp(0.4 * drawn.standard_normal(200_000)) * np.where(drawn.random(200_000) < 0.02, 4, 1) + 3
    limits = np.array([5.0, 9.0, 20.0])
    expected = (taken[:, None] > limits).mean(axis=0)
    assert slower_than(Behaviour(added_ms=3), limits) == pytest.approx(expected, abs=0.004)


def test_the_same_seed_gives_the_same_forecast():
    assert forecast(spec(), Traffic(50)) == forecast(spec(), Traffic(50))
