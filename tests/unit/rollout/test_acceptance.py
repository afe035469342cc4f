"""Which plans the operator refuses, which it only doubts, and at which rate."""

from __future__ import annotations

from pathlib import Path

import pytest

from flightdeck.cli.lint import load
from flightdeck.contracts.rollout import RolloutSpec
from services.rollout_operator import acceptance
from services.rollout_operator.kube import accepted
from services.rollout_operator.kube.counters import Counters
from services.rollout_operator.kube.rate import WINDOW_S, Rate
from services.rollout_operator.matching import Attempts
from services.rollout_operator.state import Phase, State

SHIPPED = load(Path(__file__).resolve().parents[3] / "specs" / "late.rollout.yaml").spec


def with_margin(**margins: float) -> RolloutSpec:
    judge = SHIPPED.judge.model_copy(update={"margins": SHIPPED.judge.margins.model_copy(update=margins)})
    return SHIPPED.model_copy(update={"judge": judge})


def test_the_shipped_plan_passes_at_the_rate_that_the_design_names_and_not_at_a_tenth():
    assert acceptance.never(SHIPPED) == ""
    assert acceptance.too_slow(SHIPPED, 50.0) == ""
    words = acceptance.too_slow(SHIPPED, 5.0)
    assert "at the measured 5 requests per second" in words
    assert "Better, and it passes: spec.plan[0].shadow.deadline" in words


def test_the_proposal_in_the_words_passes():
    words = acceptance.too_slow(SHIPPED, 5.0)
    plain = SHIPPED.model_dump(mode="json", by_alias=True)
    for change in words.split("it passes: ")[1].split(", "):
        path, _, value = change.partition(" ")
        index = int(path.split("[")[1].split("]")[0])
        step = plain["plan"][index]["shadow" if ".shadow." in path else "canary"]
        key = path.rpartition(".")[2]
        step[key] = type(step[key])(value)
    assert acceptance.too_slow(RolloutSpec.model_validate(plain), 5.0) == ""


def test_a_margin_that_no_rate_can_decide_on_is_refused_for_good():
    words = acceptance.never(with_margin(error_rate=0.000_000_1))
    assert "at any rate" in words and "errorRate" in words


def test_the_same_question_costs_nothing_the_second_time(monkeypatch: pytest.MonkeyPatch):
    acceptance.too_slow(SHIPPED, 7.0)
    monkeypatch.setattr(acceptance, "lint", None)
    other = SHIPPED.model_copy(update={"release": SHIPPED.release.model_copy(update={"image": "other"})})
    assert acceptance.too_slow(other, 7.0), "another release is the same plan"


@pytest.mark.parametrize(
    ("before", "measured", "then"),
    [
        (None, None, None), (None, 41.7, 42.0), (42.0, 50.0, 42.0), (42.0, 60.0, 60.0), (42.0, None, 42.0),
        (42.0, 0.0, 42.0), (None, 0.0, None), (None, 0.0123, 0.012), (None, 1234.0, 1200.0),
    ],
)  # fmt: skip
def test_a_rate_is_kept_until_it_moved_by_a_quarter_and_silence_is_no_rate(before, measured, then):
    assert acceptance.steady(before, measured) == then


def test_while_users_see_a_candidate_what_was_said_of_this_generation_stands_unasked(monkeypatch: pytest.MonkeyPatch):
    def asked(*_: object) -> str:
        raise AssertionError("the linter was asked in the middle of a canary")

    monkeypatch.setattr(acceptance, "too_slow", asked)
    canary = State(Phase.CANARY, 0.0, 0.0, step=1)
    for reason, message, told in ((acceptance.TOO_SLOW, "slow", "slow"), (acceptance.REFUSED, "bad", "")):
        said = {"type": "PlanAccepted", "status": "False", "reason": reason, "message": message}
        before = {"conditions": [said | {"observedGeneration": 3}]}
        assert accepted.doubt(SHIPPED, canary, before, 5.0, 3) == told
    with pytest.raises(AssertionError, match="was asked"):
        accepted.doubt(SHIPPED, canary, before, 5.0, 4)


# -- the rate ---------------------------------------------------------------------------------------------------------

ROUTE, COPY = "httproute/n/late/rule/0", "httproute/n/late/rule/0-mirror-0"


def at(**totals: int) -> Counters:
    found = {("p", cluster, address): Attempts(total, 0) for address, total in totals.items() for cluster in (ROUTE,)}
    return found | {
        ("p", COPY, "a"): Attempts(totals.get("a", 0), 0), ("p", "httproute/n/other/rule/0", "a"): Attempts(9_999, 0),
    }  # fmt: skip


def test_the_rate_is_that_of_the_users_of_this_route_however_pods_come_and_go():
    now = [0.0]
    rate = Rate("n/late", lambda: now[0])
    assert rate.due
    rate.saw(at(a=1_000))
    assert rate.per_s is None and not rate.due, "one look is no rate"
    now[0] = WINDOW_S / 3
    rate.saw(at(a=1_100, b=50))  # b is new
    now[0] = WINDOW_S * 2 / 3
    rate.saw(at(b=100))  # a went
    now[0] = WINDOW_S
    rate.saw(at(b=30))  # b began anew
    assert rate.per_s == (100 + 50 + 50 + 30) / WINDOW_S
    now[0] = 2 * WINDOW_S
    rate.saw(at(b=30))
    assert rate.per_s == 0.0
