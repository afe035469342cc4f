"""The rules of the governor, each on a state small enough to read."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from flightdeck.contracts.card import Interval
from flightdeck.contracts.retrain import Answer, Cause, Entry, Freeze, Incident, Outcome, Pretest, TriggerKind
from pipelines.governor.decide import decide, length, worth_keeping
from pipelines.governor.state import Start, State

MINUTE, HOUR, DAY = dt.timedelta(minutes=1), dt.timedelta(hours=1), dt.timedelta(days=1)


def started(at: dt.datetime, ended: Outcome | None = Outcome.TRAINED, number: int = 1) -> Start:
    return Start(number, at, "quality: worse", ended)


def said(answer: Answer) -> Pretest:
    gain = Interval(value=0.002, low=0.001, high=0.003)
    return Pretest(answer=answer, reason="gain +0.0020 [+0.0010, +0.0030]", gain=gain)


def test_nothing_asks_nothing_happens(policy, now):
    assert decide(State(), [], policy, now).outcome is Outcome.IDLE


def test_a_thousand_triggers_are_one_training_that_settles_all(told, policy, now):
    storm = told(*["drift", "quality", "schedule", "new_data"] * 250)
    found = decide(State(), storm, policy, now)
    assert found.outcome is Outcome.TRAIN
    assert found.claims == tuple(range(1, 1001))
    assert sum(found.counts.values()) == 1000
    assert "1,000 triggers since 2013-07-01 11:59Z" in found.reason


def test_while_a_training_runs_all_wait_and_nothing_is_settled(told, policy, now):
    found = decide(State((started(now - HOUR, ended=None),)), told("quality", "drift"), policy, now)
    assert (found.outcome, found.cause, found.claims) == (Outcome.WAIT, Cause.BUSY, ())
    assert found.until is None, "no clock tells when a training ends"


def test_a_rollout_under_way_is_busy_and_named(told, policy, now):
    state = State(busy="the rollout of late v7 is at canary 10 %")
    found = decide(state, told("new_data"), policy, now)
    assert found.cause is Cause.BUSY
    assert "the rollout of late v7 is at canary 10 %" in found.reason


@pytest.mark.parametrize("since", [dt.timedelta(0), MINUTE, HOUR - MINUTE])
def test_a_training_cools_down(told, policy, now, since):
    found = decide(State((started(now - since),)), told("new_data"), policy, now)
    assert (found.outcome, found.cause, found.until) == (Outcome.WAIT, Cause.COOL_DOWN, now - since + HOUR)
    assert decide(State((started(now - HOUR),)), told("new_data"), policy, now).outcome is Outcome.TRAIN


def test_a_pretest_that_said_no_cools_down_too(told, policy, now):
    state = State(skips=(started(now - 10 * MINUTE, ended=Outcome.SKIP),))
    assert decide(state, told("drift"), policy, now).cause is Cause.COOL_DOWN


@pytest.mark.parametrize("ahead", [MINUTE, HOUR])
def test_a_clock_set_back_a_little_keeps_the_cool_down_and_never_doubles_it(told, policy, now, ahead):
    state, triggers = State((started(now + ahead),)), told("new_data")
    assert decide(state, triggers, policy, now).cause is Cause.COOL_DOWN
    assert decide(state, triggers, policy, now + 2 * HOUR).outcome is Outcome.TRAIN


@pytest.mark.parametrize("ahead", [HOUR + MINUTE, 365 * DAY])
def test_a_clock_set_back_far_ends_the_cool_down_of_the_other_time(told, policy, now, ahead):
    assert decide(State((started(now + ahead),)), told("new_data"), policy, now).outcome is Outcome.TRAIN


def test_what_another_replay_did_at_the_same_time_does_not_count(told, policy, now):
    """The clock comes by again: a training of then neither cools down, nor spends, nor answers."""
    state = State(tuple(dataclasses.replace(started(now, number=n), least=now - 30 * DAY) for n in (1, 2, 3)))
    assert decide(state, told("new_data"), policy, now).outcome is Outcome.TRAIN
    assert decide(state, told("quality"), policy, now).outcome is Outcome.TRAIN


def test_a_clock_set_forward_ends_every_wait(told, policy, now):
    spent = State(tuple(started(now - n * MINUTE, number=n) for n in (3, 2, 1)))
    assert decide(spent, told("new_data"), policy, now).cause is Cause.COOL_DOWN
    assert decide(spent, told("new_data"), policy, now + 300 * DAY).outcome is Outcome.TRAIN


def test_the_budget_of_a_day_holds_until_its_first_training_is_a_day_old(told, policy, now):
    hours = (20, 10, 2)
    state = State(tuple(started(now - n * HOUR, number=n) for n in hours))
    found = decide(state, told("new_data"), policy, now)
    assert (found.outcome, found.cause, found.until) == (Outcome.WAIT, Cause.BUDGET, now + 4 * HOUR)
    assert decide(state, told("new_data"), policy, now + 4 * HOUR).outcome is Outcome.TRAIN


def test_a_clock_set_back_far_frees_the_budget_of_the_other_time(told, policy, now):
    state = State(tuple(started(now + 100 * DAY + n * HOUR, number=n) for n in (1, 2, 3)))
    assert decide(state, told("new_data"), policy, now).outcome is Outcome.TRAIN


@pytest.mark.parametrize("model", ["late", "*"])
def test_a_freeze_holds_even_a_request_by_hand_and_says_who_and_why(told, policy, now, model):
    state = State(freezes=(Freeze(model=model, at=now, by="ada@host", reason="audit"),))
    found = decide(state, told("hand"), policy, now)
    assert (found.outcome, found.cause) == (Outcome.WAIT, Cause.FREEZE)
    assert "ada@host" in found.reason
    assert "audit" in found.reason


def test_by_hand_waits_for_neither_cool_down_nor_budget_nor_pretest(told, policy, now):
    state = State(tuple(started(now - n * MINUTE, number=n) for n in (3, 2, 1)))
    assert decide(state, told("hand"), policy, now).outcome is Outcome.TRAIN


# The pre-test


def test_the_pretest_is_asked_when_the_policy_says_so(told, policy, now):
    assert decide(State(), told("drift"), policy, now).outcome is Outcome.PRETEST
    assert decide(State(), told("drift", "quality"), policy, now).outcome is Outcome.TRAIN, "quality needs none"


@pytest.mark.parametrize(
    ("answer", "severity", "outcome"),
    [
        (Answer.WOULD_WIN, "warning", Outcome.TRAIN),
        (Answer.WOULD_NOT, "warning", Outcome.SKIP),
        (Answer.WOULD_NOT, "critical", Outcome.SKIP),
        (Answer.CANNOT_TELL, "warning", Outcome.SKIP),
        (Answer.CANNOT_TELL, "critical", Outcome.TRAIN),
    ],
)
def test_the_pretests_answer_decides_and_its_figures_are_in_the_reason(  # noqa: PLR0917
    told, policy, now, answer, severity, outcome
):
    found = decide(State(pretest=said(answer)), told("drift", severity=severity), policy, now)
    assert found.outcome is outcome
    assert found.claims == (1,)
    assert "gain +0.0020 [+0.0010, +0.0030]" in found.reason
    assert found.pretest == said(answer)


def test_a_policy_may_train_when_the_pretest_cannot_tell(told, policy, now):
    open_policy = policy.model_copy(update={"pretest": policy.pretest.model_copy(update={"on_cannot_tell": "train"})})
    found = decide(State(pretest=said(Answer.CANNOT_TELL)), told("drift"), open_policy, now)
    assert found.outcome is Outcome.TRAIN


# Broken pipelines


@pytest.mark.parametrize("kind", ["broken_data", "skew"])
def test_what_is_broken_opens_one_incident_however_often_it_is_told_and_trains_nothing(told, policy, now, kind):
    storm = told(*[kind] * 500, "quality")
    found = decide(State(), storm, policy, now)
    assert (found.outcome, found.kind, len(found.claims)) == (Outcome.INCIDENT, TriggerKind(kind), 500)
    assert "no training on a broken pipeline" in found.reason
    held = decide(State(incidents=(incident(kind, now, 500),)), storm[500:], policy, now)
    assert (held.outcome, held.cause) == (Outcome.WAIT, Cause.INCIDENT)


def incident(kind: str, seen_at: dt.datetime, seen_id: int) -> Incident:
    return Incident(
        number=3, kind=TriggerKind(kind), opened_at=seen_at, seen_at=seen_at, seen_id=seen_id, reason="unit is °F"
    )


def test_only_a_later_clean_check_of_the_same_kind_resolves_it(told, policy, now):
    state = State(incidents=(incident("broken_data", now - HOUR, 1),))
    for kind, at in (("skew_clean", now), ("data_clean", now - HOUR), ("data_clean", now - 2 * HOUR)):
        triggers = [*told(kind, first=2, at=at), *told("quality", first=3)]
        found = decide(state, triggers, policy, now)
        if found.outcome is Outcome.NOTED:  # a check of what is not broken
            found = decide(state, triggers[1:], policy, now)
        assert found.cause is Cause.INCIDENT, (kind, at)
    found = decide(state, told("data_clean", first=2), policy, now)
    assert (found.outcome, found.of, found.claims) == (Outcome.RESOLVED, 3, (2,))


def test_evidence_after_the_clean_check_keeps_the_incident_open(told, policy, now):
    state = State(incidents=(incident("skew", now - HOUR, 1),))
    triggers = told("skew_clean", "skew", first=2, at=[now - 20 * MINUTE, now - 10 * MINUTE])
    assert decide(state, triggers, policy, now).outcome is Outcome.IDLE
    again = decide(state, [*triggers, *told("skew_clean", first=4)], policy, now)
    assert (again.outcome, set(again.claims)) == (Outcome.RESOLVED, {2, 3, 4})


def test_an_incident_of_another_replay_is_resolved_by_a_check_that_came_in_later(told, policy, now):
    state = State(incidents=(incident("skew", now + 200 * DAY, 5),))
    assert decide(state, told("skew_clean", first=4), policy, now).outcome is Outcome.IDLE
    assert decide(state, told("skew_clean", first=6), policy, now).outcome is Outcome.RESOLVED


# Triggers that ask for nothing (more)


def test_complaints_within_the_cool_down_of_a_training_are_answered_by_it(told, policy, now):
    state = State((started(now - 30 * MINUTE, number=9),))
    triggers = told("drift", "quality", "new_data")
    found = decide(state, triggers, policy, now)
    assert (found.outcome, found.of, found.claims) == (Outcome.ANSWERED, 9, (1, 2))
    rest = decide(state, triggers[2:], policy, now)
    assert (rest.outcome, rest.cause) == (Outcome.WAIT, Cause.COOL_DOWN), "new data are not lost"


def test_complaints_before_the_end_of_a_longer_training_are_answered_by_it(told, policy, now):
    long = dataclasses.replace(started(now - 5 * HOUR, number=9), ended_at=now)
    found = decide(State((long,)), told("drift"), policy, now)
    assert (found.outcome, found.of) == (Outcome.ANSWERED, 9)
    assert decide(State((long,)), told("quality", at=now + MINUTE), policy, now + HOUR).outcome is Outcome.TRAIN


def test_a_training_that_failed_answers_nobody(told, policy, now):
    state = State((started(now - 30 * MINUTE, ended=Outcome.FAILED),))
    assert decide(state, told("quality"), policy, now).cause is Cause.COOL_DOWN
    assert decide(state, told("quality"), policy, now + HOUR).outcome is Outcome.TRAIN


def test_complaints_after_the_cool_down_ask_again(told, policy, now):
    state = State((started(now - 2 * HOUR),))
    assert decide(state, told("quality"), policy, now).outcome is Outcome.TRAIN


def test_what_the_policy_does_not_follow_is_noted_and_so_is_mere_information(told, policy, now):
    triggers = [*told("code"), *told("drift", first=2, severity="info")]
    found = decide(State(), triggers, policy, now)
    assert (found.outcome, set(found.claims)) == (Outcome.NOTED, {1, 2})
    assert "of severity info" in found.reason
    assert "does not follow" in found.reason


def test_without_a_policy_only_a_person_starts_a_training(told, now):
    assert decide(State(), told("quality", "schedule"), None, now).outcome is Outcome.NOTED
    assert decide(State(), told("hand"), None, now).outcome is Outcome.TRAIN


# What is kept


def test_one_wait_is_kept_once_and_another_cause_again(told, policy, now):
    busy = decide(State(busy="a rollout"), told("new_data"), policy, now)
    cooling = decide(State((started(now),)), told("new_data"), policy, now)
    last = Entry(model="late", number=1, at=now, by="governor", decision=busy)
    assert worth_keeping(None, busy, now)
    assert worth_keeping(None, decide(State(), told("code"), policy, now), now), "it is noted"
    assert not worth_keeping(last, busy.model_copy(update={"reason": "canary 50 % now"}), now)
    assert worth_keeping(last, busy, now - MINUTE), "the clock was set back"
    assert worth_keeping(last, cooling, now)
    assert not worth_keeping(last, decide(State(), [], policy, now), now)
    assert worth_keeping(last, decide(State(), told("new_data"), policy, now), now)


@pytest.mark.parametrize(
    ("span", "words"), [(DAY + 12 * HOUR, "1 d 12 h"), (10 * MINUTE, "10 min"), (dt.timedelta(0), "0 s")]
)
def test_lengths_are_told_in_units(span, words):
    assert length(span) == words
