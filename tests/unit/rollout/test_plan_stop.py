"""The emergency stop of all rollouts: what runs is aborted, nothing begins, and all of it is told."""

from __future__ import annotations

from typing import Any

import pytest

from services.rollout_operator import plan
from services.rollout_operator.plan import Observed, OrderKind, Phase, State, Stop
from tests.unit.rollout.test_plan import (
    CANARY,
    FAIL,
    IDLE,
    ONE,
    PASS,
    PAUSED,
    PROMOTING,
    RUNNING,
    SHADOW,
    THREE,
    TWO,
    advance,
    order,
    see,
    spec,
    state,
)

STOP = Stop("ann@desk", "bad feature data")
UNREAD = Stop("controller", "whether they are stopped cannot be read: 403", aborts=False)


def stopped(stop: Stop = STOP, **changes: Any) -> Observed:
    return see(stopped=stop, **changes)


@pytest.mark.parametrize("before", [*RUNNING, *PAUSED])
def test_every_running_rollout_is_aborted_whatever_the_judge_says_and_it_is_told_by_whom_and_why(before: State):
    after, log = advance(before, stopped(), PASS)
    assert after.phase is Phase.ABORTING
    assert "all rollouts are stopped by ann@desk: bad feature data" in after.reason
    assert [it.who for it in log] == ["ann@desk"]
    wanted = plan.wanted(spec(), after, stopped())
    assert (wanted.weight, wanted.mirror, wanted.champion_replicas) == (0, False, 3)


def test_a_candidate_that_was_stopped_is_not_to_blame_and_begins_anew_when_the_stop_is_lifted():
    after, _ = advance(CANARY, stopped())
    gone = stopped(candidate_running=0, candidate_ready=0)
    after, log = advance(after, gone)
    assert after.phase is Phase.ABORTED and after.refused is None
    for _ in range(3):
        after, log = advance(after, gone)
        if log:
            assert [it.reason for it in log] == [f"{TWO.short} waits: {STOP.words}"]
    assert after.phase is Phase.ABORTED and after.queued == TWO, "and it is said once"
    serial = after.serial
    after, log = advance(after, gone)
    assert (after.serial, log) == (serial, [])
    after, log = advance(after, see(candidate_running=0, candidate_ready=0))
    assert after.phase is Phase.PENDING and after.candidate == TWO and after.queued is None


def test_a_candidate_that_failed_in_the_same_moment_is_to_blame_and_stays_at_home():
    after, _ = advance(CANARY, stopped(), FAIL)
    assert after.refused == TWO and "labelFlips" in after.reason
    after, _ = advance(SHADOW, stopped(), None, order(OrderKind.ABORT))
    assert after.refused == TWO


def test_nothing_begins_and_the_newest_release_waits():
    after, log = advance(IDLE, stopped())
    assert after.phase is Phase.DONE and after.queued == TWO
    assert [(it.reason, it.who) for it in log] == [(f"{TWO.short} waits: {STOP.words}", "ann@desk")]
    after, log = advance(after, stopped(), wanted=spec(THREE))
    assert after.queued == THREE and len(log) == 1
    after, log = advance(after, stopped(), wanted=spec(ONE))
    assert after.queued is None and not log, "set back to what serves: nothing waits"


def test_the_very_first_release_waits_too():
    after, log = advance(None, stopped(champion_ready=0))
    assert after.phase is Phase.DONE and after.candidate is None and after.queued == TWO and len(log) == 1
    after, _ = advance(after, see(champion_ready=0))
    assert after.phase is Phase.PENDING


def test_an_idle_rollout_says_nothing():
    after, log = advance(IDLE, stopped(), wanted=spec(ONE))
    assert (after, log) == (IDLE, [])


@pytest.mark.parametrize("before", [PROMOTING, CANARY, IDLE])
def test_a_promotion_by_hand_is_refused_with_words(before: State):
    after, log = advance(before, stopped(), PASS, order(OrderKind.PROMOTE))
    assert after.phase not in plan.RUNNING
    (told,) = [it.reason for it in log if it.reason.startswith("promote by ann@desk")]
    assert "no effect" in told and ("the abort wins" in told or STOP.words in told)


def test_a_retry_is_noted_and_begins_when_the_stop_is_lifted():
    home = state(Phase.ABORTED, candidate=None, refused=TWO)
    after, _ = advance(home, stopped(), None, order(OrderKind.RETRY))
    assert after.phase is Phase.ABORTED and after.refused is None and after.queued == TWO
    after, _ = advance(after)
    assert after.phase is Phase.PENDING


def test_while_it_cannot_be_read_what_runs_goes_on_and_nothing_begins():
    assert advance(CANARY, stopped(UNREAD), PASS)[0].step == 2
    assert advance(CANARY, stopped(UNREAD), FAIL)[0].phase is Phase.ABORTING
    after, log = advance(IDLE, stopped(UNREAD))
    assert after.phase is Phase.DONE and "cannot be read" in log[0].reason
    after, log = advance(CANARY, stopped(UNREAD), None, order(OrderKind.PROMOTE))
    assert after.phase is Phase.CANARY and "no effect" in log[0].reason and "cannot be read" in log[0].reason
