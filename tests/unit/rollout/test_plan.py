"""The rules of the plan, one example each."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from flightdeck.contracts.release import ModelRef, Release
from flightdeck.contracts.rollout import RolloutSpec
from services.rollout_operator import plan
from services.rollout_operator.plan import Observed, Order, OrderKind, Phase, State, Transition
from services.rollout_operator.verdict import Judgement, Verdict

PASS = Judgement(Verdict.PASS, "all 3 metrics are within their margins")
FAIL = Judgement(Verdict.FAIL, "labelFlips is 0.31, margin 0.05")
WATCHING = Judgement(Verdict.WATCHING, "errorRate is not decided")
NO_DATA = Judgement(Verdict.NO_DATA, "errorRate has no observation")


def release(version: int) -> Release:
    model = ModelRef(name="late", version=str(version), sha256=f"{version:064x}")
    return Release(image="1a2b3c4d", model=model, feature_service="late_v1")


ONE, TWO, THREE = release(1), release(2), release(3)


def spec(wanted: Release = TWO, **changes: Any) -> RolloutSpec:
    values: dict[str, Any] = {
        "release": wanted,
        "replicas": 3,
        "plan": [
            {"shadow": {"minPairs": 100, "deadline": "10m"}},
            {"canary": {"weight": 10, "deadline": "10m"}},
            {"canary": {"weight": 50, "deadline": "10m"}},
        ],
        "judge": {"margins": {"errorRate": 0.01}, "maxRestarts": 3},
        "readyDeadline": "5m",
        "onDeadline": "abort",
        "onNoData": "hold",
        "onNewRelease": "queueNewest",
    }
    return RolloutSpec.model_validate(values | changes)


def state(phase: Phase, step: int | None = None, **changes: Any) -> State:
    """A rollout of release TWO against champion ONE; the phase began at 1000 s."""
    values: dict[str, Any] = {
        "since_s": 1000.0, "started_s": 900.0, "champion": ONE, "candidate": TWO, "reason": "as before",
    }  # fmt: skip
    return State(phase=phase, step=step, **(values | changes))


def see(**changes: Any) -> Observed:
    values = {"champion_ready": 3, "candidate_ready": 3, "champion_running": 3, "candidate_running": 3}
    return Observed(**(values | changes))


def advance(
    before: State | None,
    observed: Observed | None = None,
    judgement: Judgement | None = None,
    *orders: Order,
    now_s: float = 1010.0,
    wanted: RolloutSpec | None = None,
) -> tuple[State, list[Transition]]:
    return plan.advance(wanted or spec(), before, observed or see(), judgement, orders, now_s)


def order(kind: OrderKind) -> Order:
    return Order(kind, "ann@desk")


IDLE = state(Phase.DONE, champion=ONE, candidate=None)
SHADOW, CANARY, HALF = state(Phase.SHADOW, 0), state(Phase.CANARY, 1), state(Phase.CANARY, 2)
PROMOTING = state(Phase.PROMOTING)
RUNNING = [state(Phase.PENDING), SHADOW, CANARY, HALF, PROMOTING]
PAUSED = [
    state(Phase.PAUSED, it.step, paused=plan.Paused(it.phase, 10.0)) for it in RUNNING
]  # fmt: skip


def named(it: State) -> str:
    return f"{it.phase}-{it.works_in}-{it.step}"


# The way forward


def test_the_first_release_waits_for_its_replicas_and_is_champion_without_a_comparison():
    first, log = advance(None, see(candidate_ready=0), wanted=spec(ONE))
    assert (first.phase, first.candidate, first.champion, log[0].source) == (Phase.PENDING, ONE, None, None)
    assert plan.wanted(spec(ONE), first, see(candidate_ready=2)).weight == 0
    second, log = advance(first, see(), wanted=spec(ONE))
    assert second.phase is Phase.PROMOTING
    assert "no champion to compare with" in log[0].reason
    assert plan.wanted(spec(ONE), second, see()).weight == 100
    third, log = advance(second, see(routed_weight=100), wanted=spec(ONE))
    assert (third.phase, third.champion, third.candidate) == (Phase.DONE, ONE, None)
    assert "nothing to compare it with" in log[0].reason


def test_another_release_begins_and_its_reason_names_both():
    after, log = advance(IDLE)
    assert (after.phase, after.candidate, after.started_s) == (Phase.PENDING, TWO, 1010.0)
    assert TWO.short in log[0].reason
    assert ONE.short in log[0].reason


def test_the_champions_own_release_is_nothing_to_do():
    assert advance(IDLE, wanted=spec(ONE)) == (IDLE, [])


def test_the_plan_begins_when_every_candidate_replica_is_ready():
    assert advance(state(Phase.PENDING), see(candidate_ready=2))[0].phase is Phase.PENDING
    after, log = advance(state(Phase.PENDING))
    assert (after.phase, after.step) == (Phase.SHADOW, 0)
    assert log[0].reason == "3 of 3 replicas ready after 10s; shadow begins, at most 10m"


def test_a_step_advances_only_on_a_pass():
    for judgement in (None, WATCHING, NO_DATA):
        assert advance(SHADOW, judgement=judgement) == (SHADOW, [])
    after, log = advance(SHADOW, judgement=PASS)
    assert (after.phase, after.step, after.since_s) == (Phase.CANARY, 1, 1010.0)
    assert log[0].reason == f"shadow passed: {PASS.reason}; canary 10 % begins, at most 10m"


def test_one_verdict_moves_one_step():
    assert advance(CANARY, judgement=PASS)[0].step == 2


def test_after_the_last_step_it_is_promoted_and_the_champion_keeps_its_replicas_until_done():
    after, _ = advance(HALF, see(routed_weight=50), PASS)
    assert after.phase is Phase.PROMOTING
    assert plan.wanted(spec(), after, see(routed_weight=50)) == plan.Wanted(3, 3, 100, mirror=False)
    assert advance(after, see(routed_weight=50))[0].phase is Phase.PROMOTING
    done, log = advance(after, see(routed_weight=100))
    assert (done.phase, done.champion, done.candidate) == (Phase.DONE, TWO, None)
    assert plan.wanted(spec(), done, see()) == plan.Wanted(3, 0, 0, mirror=False)
    kept = "with the 3 replicas it already had"
    assert log[0].reason == f"{TWO.short} is champion after 1m50s, {kept}; champion {ONE.short} retires"
    assert (log[0].champion, log[0].candidate) == (ONE.id, TWO.id)


def test_promotion_is_not_done_while_a_replica_is_away():
    assert advance(PROMOTING, see(candidate_ready=2, routed_weight=100))[0].phase is Phase.PROMOTING


# Weight and mirror


@pytest.mark.parametrize(("ready", "weight"), [(0, 0), (1, 16), (2, 33), (3, 50), (4, 50)])
def test_weight_moves_only_onto_ready_replicas(ready: int, weight: int):
    assert plan.wanted(spec(), HALF, see(candidate_ready=ready)).weight == weight


def test_a_promotion_with_a_replica_away_keeps_the_last_steps_weight():
    assert plan.wanted(spec(), PROMOTING, see(candidate_ready=2, routed_weight=100)).weight == 33


@pytest.mark.parametrize("it", RUNNING + PAUSED, ids=named)
def test_the_mirror_is_on_in_the_shadow_only_and_needs_a_ready_replica(it: State):
    assert plan.wanted(spec(), it, see()).mirror == (it.works_in is Phase.SHADOW)
    assert not plan.wanted(spec(), it, see(candidate_ready=0)).mirror


def test_aborting_takes_the_weight_first_and_the_replicas_after_it():
    aborting = state(Phase.ABORTING)
    assert plan.wanted(spec(), aborting, see(routed_weight=10)) == plan.Wanted(3, 3, 0, mirror=False)
    assert plan.wanted(spec(), aborting, see(mirrored=True)) == plan.Wanted(3, 3, 0, mirror=False)
    assert plan.wanted(spec(), aborting, see()) == plan.Wanted(3, 0, 0, mirror=False)


# Ends and deadlines


@pytest.mark.parametrize("it", RUNNING + PAUSED, ids=named)
@pytest.mark.parametrize("other", [*OrderKind])
def test_abort_wins_from_any_state_and_over_any_other_order(it: State, other: OrderKind):
    orders = [order(other), order(OrderKind.ABORT)]
    after, log = advance(it, see(routed_weight=10), PASS, *orders)
    assert (after.phase, after.refused, after.paused, after.candidate) == (Phase.ABORTING, TWO, None, TWO)
    assert log[0].who == "ann@desk"


def test_an_abort_at_full_weight_brings_the_champion_back():
    after, log = advance(PROMOTING, see(routed_weight=100), None, order(OrderKind.ABORT))
    assert plan.wanted(spec(), after, see(routed_weight=100)) == plan.Wanted(3, 3, 0, mirror=False)
    assert log[0].reason == "aborted in promoting: abort by ann@desk; the users' 100 % go back to the champion"
    gone, log = advance(after, see(candidate_running=0))
    assert (gone.phase, gone.candidate, gone.champion) == (Phase.ABORTED, None, ONE)
    assert log[0].reason.endswith(f"champion {ONE.short} has all users, the candidate's replicas are gone after 0s")


@pytest.mark.parametrize("it", [SHADOW, CANARY, HALF, PROMOTING, *PAUSED[1:]], ids=named)
def test_a_failed_judgement_aborts_at_once_with_its_reason(it: State):
    after, log = advance(it, see(routed_weight=10), FAIL)
    assert (after.phase, after.refused) == (Phase.ABORTING, TWO)
    assert FAIL.reason in log[0].reason


@pytest.mark.parametrize("it", RUNNING + PAUSED, ids=named)
def test_too_many_deaths_abort_and_the_death_is_named(it: State):
    seen = see(candidate_deaths=2, candidate_death="signal 11 after 103 requests")
    assert advance(it, seen)[0].phase is not Phase.ABORTING
    after, log = advance(it, msgspec.structs.replace(seen, candidate_deaths=3))
    assert after.phase is Phase.ABORTING
    assert "died 3 times, judge.maxRestarts is 3; the last: signal 11 after 103 requests" in log[0].reason


@pytest.mark.parametrize("phase", [Phase.PENDING, Phase.PROMOTING])
def test_replicas_that_do_not_get_ready_abort_at_the_deadline(phase: Phase):
    seen = see(candidate_ready=2)
    assert advance(state(phase), seen, now_s=1299.9)[0].phase is phase
    after, log = advance(state(phase), seen, now_s=1300.0)
    assert after.phase is Phase.ABORTING
    assert log[0].reason == f"aborted in {phase}: only 2 of 3 replicas ready after 5m"


def test_a_gateway_that_never_reaches_full_weight_aborts_at_the_deadline():
    after, log = advance(PROMOTING, see(routed_weight=50), now_s=1300.0)
    assert after.phase is Phase.ABORTING
    assert "50 % instead of 100 % after 5m" in log[0].reason


def test_an_abort_that_cannot_be_finished_ends_and_says_what_is_left_over():
    seen = see(candidate_running=2, routed_weight=10)
    assert advance(state(Phase.ABORTING), seen, now_s=1299.0)[0].phase is Phase.ABORTING
    after, log = advance(state(Phase.ABORTING), seen, now_s=1300.0)
    assert after.phase is Phase.ABORTED
    assert "left over after 5m: 2 of its processes, a weight of 10 % at the gateway" in log[0].reason


@pytest.mark.parametrize("choice", ["hold", "abort", "promote"])
@pytest.mark.parametrize(
    ("judgement", "setting"), [(WATCHING, "onDeadline"), (NO_DATA, "onNoData"), (None, "onNoData")]
)
def test_nothing_is_decided_before_the_deadline_and_the_setting_decides_at_it(
    judgement: Judgement | None, setting: str, choice: str
):
    other = "abort" if choice != "abort" else "hold"
    wanted = spec(**({"onDeadline": other, "onNoData": other} | {setting: choice}))
    assert advance(CANARY, judgement=judgement, now_s=1599.0, wanted=wanted) == (CANARY, [])
    after, log = advance(CANARY, judgement=judgement, now_s=1600.0, wanted=wanted)
    assert (after.phase, after.step) == {
        "hold": (Phase.CANARY, 1), "abort": (Phase.ABORTING, None), "promote": (Phase.CANARY, 2),
    }[choice]  # fmt: skip
    assert f"deadline of 10m, {judgement.verdict if judgement else 'no data'}" in log[0].reason
    assert f"({setting}: {choice})" in log[0].reason


def test_what_holds_says_so_once_and_later_verdicts_and_orders_still_act():
    held, log = advance(CANARY, judgement=NO_DATA, now_s=1600.0)
    assert held.holding == log[0].reason
    assert (log[0].source, log[0].target) == (Phase.CANARY, Phase.CANARY)
    assert advance(held, judgement=WATCHING, now_s=1700.0) == (held, [])
    assert (moved := advance(held, judgement=PASS, now_s=1700.0)[0]).step == 2
    assert moved.holding == ""
    assert advance(held, judgement=FAIL, now_s=1700.0)[0].phase is Phase.ABORTING
    assert advance(held, None, NO_DATA, order(OrderKind.PROMOTE), now_s=1700.0)[0].phase is Phase.PROMOTING


# Orders


@pytest.mark.parametrize("it", [RUNNING[0], SHADOW, CANARY, HALF, *PAUSED], ids=named)
def test_a_promote_order_skips_the_rest_of_the_plan_and_says_who(it: State):
    after, log = advance(it, see(), WATCHING, order(OrderKind.PROMOTE))
    assert (after.phase, log[0].who) == (Phase.PROMOTING, "ann@desk")
    assert "promote by ann@desk" in log[0].reason


def test_a_pause_leaves_weight_and_mirror_and_the_deadline_stands_still():
    paused, log = advance(CANARY, see(routed_weight=10), PASS, order(OrderKind.PAUSE), now_s=1400.0)
    assert (paused.phase, paused.step) == (Phase.PAUSED, 1)
    assert "6m40s of the deadline used" in log[0].reason
    assert plan.wanted(spec(), paused, see()).weight == 10
    assert advance(paused, judgement=NO_DATA, now_s=9000.0) == (paused, [])
    resumed, _ = advance(paused, None, WATCHING, order(OrderKind.RESUME), now_s=9000.0)
    assert (resumed.phase, resumed.step, resumed.since_s) == (Phase.CANARY, 1, 8600.0)
    assert advance(resumed, judgement=WATCHING, now_s=9199.0)[0].phase is Phase.CANARY
    assert advance(resumed, judgement=WATCHING, now_s=9200.0)[0].phase is Phase.ABORTING


def test_a_paused_promotion_neither_rises_nor_ends():
    paused = PAUSED[-1]
    assert plan.wanted(spec(), paused, see(routed_weight=50)).weight == 50
    assert plan.wanted(spec(), paused, see(routed_weight=100)).weight == 100
    assert advance(paused, see(routed_weight=100)) == (paused, [])


@pytest.mark.parametrize("kind", [*OrderKind])
def test_an_order_without_effect_is_answered_in_the_history(kind: OrderKind):
    after, log = advance(IDLE, None, None, order(kind), wanted=spec(ONE))
    assert log[0].reason == f"{kind} by ann@desk: no effect in done"
    assert (after.phase, after.reason, after.serial) == (Phase.DONE, IDLE.reason, 1)


# Releases


def test_the_refused_release_is_tried_again_only_by_order():
    aborted = state(Phase.ABORTED, candidate=None, refused=TWO)
    assert advance(aborted) == (aborted, [])
    after, log = advance(aborted, None, None, order(OrderKind.RETRY))
    assert (after.phase, after.candidate, after.refused) == (Phase.PENDING, TWO, None)
    assert log[0].who == "ann@desk"


def test_the_newest_release_waits_and_begins_after_the_end():
    queued, log = advance(CANARY, wanted=spec(THREE))
    assert (queued.phase, queued.queued) == (Phase.CANARY, THREE)
    assert "waits for the end of this rollout" in log[0].reason
    assert advance(queued, wanted=spec(THREE)) == (queued, [])
    newer, log = advance(queued, wanted=spec(release(4)))
    assert newer.queued == release(4)
    assert f"instead of {THREE.short}" in log[0].reason
    assert advance(newer, wanted=spec(TWO))[0].queued is None
    ended = state(Phase.ABORTED, candidate=None, refused=TWO, queued=THREE)
    begun, _ = advance(ended, wanted=spec(THREE))
    assert (begun.phase, begun.candidate, begun.queued) == (Phase.PENDING, THREE, None)


def test_a_superseding_release_aborts_and_begins_and_the_old_one_is_not_blamed():
    wanted = spec(THREE, onNewRelease="supersede")
    after, log = advance(CANARY, see(routed_weight=10), wanted=wanted)
    assert (after.phase, after.queued, after.refused) == (Phase.ABORTING, THREE, None)
    assert f"superseded by {THREE.short}" in log[0].reason
    gone, _ = advance(after, see(candidate_running=0), wanted=wanted)
    assert advance(gone, wanted=wanted)[0].candidate == THREE


def test_setting_the_release_back_to_the_champions_aborts():
    after, log = advance(CANARY, see(routed_weight=10), wanted=spec(ONE))
    assert after.phase is Phase.ABORTING
    assert "set back to the champion's" in log[0].reason


# Files


@pytest.mark.parametrize("it", [*RUNNING, *PAUSED, IDLE], ids=named)
def test_a_state_survives_the_disk(it: State):
    assert plan.load(plan.dump(it)) == it


def test_a_plan_that_was_shortened_under_a_running_step_goes_on_at_its_last_step():
    shorter = spec(plan=[{"canary": {"weight": 5, "deadline": "10m"}}])
    after, log = advance(HALF, wanted=shorter)
    assert (after.step, after.since_s) == (0, HALF.since_s)
    assert "now in step 1 of 1, canary 5 %" in log[0].reason
    assert plan.wanted(shorter, HALF, see()).weight == 5
