"""A plan that cannot happen or cannot find anything out is refused, with figures that can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flightdeck.contracts.release import ModelRef, Release
from flightdeck.contracts.rollout import RolloutSpec, load_rollout
from services.rollout_operator.forecast import Traffic
from services.rollout_operator.lint import Finding, Level, lint, propose
from services.rollout_operator.traffic import Behaviour

RELEASE = Release(image="code", model=ModelRef(name="late", version="7", sha256="a" * 64), feature_service="late_v1")
SHIPPED = Path(__file__).resolve().parents[3] / "specs" / "late.rollout.yaml"
ISSUE_MARGINS = {"errorRate": 0.005, "latencyP99Ratio": 1.2, "labelFlips": 0.05}


def spec(*plan: dict[str, Any], margins: dict[str, float] | None = None, **more: Any) -> RolloutSpec:
    steps = plan or (
        {"shadow": {"minPairs": 1000, "deadline": "10m"}},
        {"canary": {"weight": 10, "deadline": "10m"}},
        {"canary": {"weight": 50, "deadline": "10m"}},
    )
    content = {
        "release": RELEASE.model_dump(by_alias=True), "replicas": 3, "plan": list(steps),
        "judge": {"margins": margins or ISSUE_MARGINS}, "onDeadline": "abort", "onNoData": "hold",
        "onNewRelease": "queueNewest", **more,
    }  # fmt: skip
    return RolloutSpec.model_validate(content)


def errors(found: list[Finding]) -> list[str]:
    return [it.path for it in found if it.level is Level.ERROR]


def warnings(found: list[Finding]) -> list[str]:
    return [it.path for it in found if it.level is Level.WARNING]


def test_the_shipped_plan_has_nothing_to_find_at_the_labs_traffic():
    assert lint(load_rollout(SHIPPED, release=RELEASE).spec, Traffic(100)) == []


def test_a_plan_with_narrow_margins_is_accepted_where_the_traffic_can_carry_it():
    assert lint(spec(), Traffic(50)) == []
    assert errors(lint(spec(), Traffic(20))) == ["spec.plan[0].shadow.deadline", "spec.plan[1].canary.deadline"]


def test_ten_per_cent_of_three_replicas_is_impossible_without_a_weighting_proxy():
    plan = {"canary": {"weight": 10, "deadline": "1h"}}
    margins = {"errorRate": 0.02}
    assert lint(spec(plan, margins=margins), Traffic(100)) == []
    (found,) = lint(spec(plan, margins=margins), Traffic(100, weighting_proxy=False))
    assert (found.level, found.path) == (Level.ERROR, "spec.plan[0].canary.weight")
    assert "25%, 40%, 50%" in found.sentence
    assert found.proposal.startswith("25")


@pytest.mark.parametrize("weight", [25, 40, 50])
def test_what_counting_replicas_can_give_needs_no_proxy(weight: int):
    plan = {"canary": {"weight": weight, "deadline": "1h"}}
    assert errors(lint(spec(plan, margins={"errorRate": 0.02}), Traffic(100, weighting_proxy=False))) == []


def test_few_kept_connections_make_any_share_of_a_weight():
    plan = {"canary": {"weight": 25, "deadline": "1h"}}
    found = lint(spec(plan, margins={"errorRate": 0.02}), Traffic(100, connections=6, weighting_proxy=False))
    assert errors(found) == ["spec.plan[0].canary.weight"]
    assert "from 0% to" in found[0].sentence
    assert errors(lint(spec(plan, margins={"errorRate": 0.02}), Traffic(100, 400, weighting_proxy=False))) == []


def test_without_a_proxy_there_is_no_shadow():
    assert "spec.plan[0].shadow" in errors(lint(spec(), Traffic(100, weighting_proxy=False)))


def test_twenty_requests_before_the_deadline_are_powerless():
    plan = {"canary": {"weight": 10, "minRequests": 20, "deadline": "20s"}}
    (found,) = lint(spec(plan, margins={"errorRate": 0.02}), Traffic(10))
    assert (found.level, found.path) == (Level.ERROR, "spec.plan[0].canary.deadline")
    assert "20 requests can be compared" in found.sentence
    assert found.proposal in ("15m", "20m")  # 470 pairs in 9 of 10 rollouts at 1 request per second, and some room


def test_a_minimum_that_no_margin_could_use_is_a_warning():
    few = {"shadow": {"minPairs": 20, "deadline": "10m"}}, {"canary": {"weight": 50, "deadline": "10m"}}
    found = lint(spec(*few, margins={"errorRate": 0.02}), Traffic(100))
    assert warnings(found) == ["spec.plan[0].shadow.minPairs"]
    assert not errors(found)
    assert found[0].proposal == "200"


def test_a_minimum_that_takes_longer_than_the_deadline_is_an_error():
    slow = {"canary": {"weight": 50, "minRequests": 100_000, "deadline": "10m"}}
    (found,) = lint(spec(slow, margins={"errorRate": 0.02}), Traffic(100))
    assert "minRequests alone takes 33m20s" in found.sentence


def test_what_could_promote_on_nothing_is_a_warning():
    assert warnings(lint(spec(onNoData="promote"), Traffic(50))) == ["spec.onNoData"]
    assert warnings(lint(spec(onDeadline="promote"), Traffic(50))) == ["spec.onDeadline"]


def test_a_plan_that_judges_no_errors_is_a_warning():
    found = lint(spec(margins={"degradedRate": 0.02, "latencyP50Ratio": 2.0}), Traffic(50))
    assert warnings(found) == ["spec.judge.margins"]


def test_a_champion_that_fails_more_often_needs_more_time():
    assert errors(lint(spec(), Traffic(50), champion=Behaviour(errors=0.02)))


SPECS = {
    "narrow": spec(),
    "hasty": spec({"canary": {"weight": 5, "minRequests": 10, "deadline": "10s"}}, margins={"errorRate": 0.01}),
    "few pairs": spec(
        {"shadow": {"minPairs": 5, "deadline": "5s"}}, {"canary": {"weight": 10, "deadline": "1m"}},
        margins={"errorRate": 0.02, "scoreDelta": 0.05, "featureSkew": 0.01},
    ),
    "hopeless margins": spec(margins={"errorRate": 0.00001, "latencyP50Ratio": 1.0001, "labelFlips": 0.05}),
    "every margin": load_rollout(SHIPPED, release=RELEASE).spec,
    "small slices": spec(judge={
        "margins": {"degradedRate": 0.01, "scoreShift": 0.02, "labelFlips": 0.3, "errorRate": 0.02},
        "slices": {"by": ["origin", "carrier"], "minShare": 0.002, "marginFactor": 3},
    }),
}  # fmt: skip
TRAFFIC = {
    "fast": Traffic(500), "slow": Traffic(2), "a trickle": Traffic(0.1),
    "no proxy": Traffic(20, weighting_proxy=False), "no proxy, few connections": Traffic(20, 30, weighting_proxy=False),
}  # fmt: skip


@pytest.mark.parametrize("traffic", TRAFFIC.values(), ids=TRAFFIC)
@pytest.mark.parametrize("before", SPECS.values(), ids=SPECS)
def test_what_is_proposed_passes_the_linter_and_the_schema(before: RolloutSpec, traffic: Traffic):
    better = propose(before, traffic)
    assert better is not None
    assert errors(lint(better, traffic)) == []
    assert "spec.plan[0].shadow.minPairs" not in warnings(lint(better, traffic))
    assert RolloutSpec.model_validate(better.model_dump(by_alias=True, mode="json")) == better


@pytest.mark.parametrize("traffic", [Traffic(50), Traffic(2)], ids=["50/s", "2/s"])
def test_a_proposal_keeps_margins_and_weights_that_time_alone_can_serve(traffic: Traffic):
    better = propose(spec(), traffic)
    assert better is not None
    assert better.judge == spec().judge
    assert [step.weight for step in better.plan] == [0, 10, 50]


def test_slices_take_time_and_the_linter_knows():
    plan = {"shadow": {"minPairs": 300, "deadline": "1m"}}, {"canary": {"weight": 50, "deadline": "1m"}}
    margins = {"errorRate": 0.02, "labelFlips": 0.05}
    assert errors(lint(spec(*plan, margins=margins), Traffic(50))) == []
    sliced = spec(*plan, judge={"margins": margins, "slices": {"by": ["origin"], "minShare": 0.01}})
    (found,) = (it for it in lint(sliced, Traffic(50)) if it.level is Level.ERROR)
    assert found.path == "spec.plan[0].shadow.deadline"
    assert "labelFlips by slice 0.1 needs 3,500 in 9 of 10" in found.sentence  # 35 pairs, one request in a hundred
    assert errors(lint(spec(*plan, judge={"margins": margins, "slices": {"by": ["origin"]}}), Traffic(50))) == []


def test_there_is_no_plan_without_proxy_and_connections():
    assert propose(spec(), Traffic(50, connections=2, weighting_proxy=False)) is None


def test_nothing_but_a_shadows_margins_leaves_no_plan_without_a_shadow():
    assert propose(spec(margins={"labelFlips": 0.05}), Traffic(50, weighting_proxy=False)) is None
