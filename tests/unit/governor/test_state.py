"""What the journal's entries come to, and when a schedule is due."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flightdeck.contracts.retrain import Decision, Entry, Outcome, TriggerKind
from pipelines.governor.state import Start, State, age, fold, scheduled

DAY = dt.timedelta(days=1)
T0 = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)


def entries(*decisions: Decision, model: str = "late") -> list[Entry]:
    return [
        Entry(model=model, number=number, at=T0 + number * DAY, by="ada", decision=decision)
        for number, decision in enumerate(decisions, 1)
    ]


def of(outcome: Outcome, **more: object) -> Decision:
    return Decision.model_validate({"outcome": outcome, "reason": "because", **more})


def test_a_training_is_open_until_its_end_is_kept():
    found = fold(entries(of(Outcome.TRAIN)))
    assert found.open is not None
    order = found.order("late")
    assert order is not None
    assert (order.key, order.until) == ("late-1", T0 + DAY)
    assert fold(entries(of(Outcome.TRAIN), of(Outcome.TRAINED, of=1))).open is None
    assert fold(entries(of(Outcome.TRAIN), of(Outcome.FAILED, of=1))).starts[0].ended is Outcome.FAILED


def test_the_last_decision_is_not_one_that_only_settled_triggers():
    wait = of(Outcome.WAIT, cause="busy")
    found = fold(entries(wait, of(Outcome.ANSWERED, of=1), of(Outcome.NOTED)))
    assert found.last is not None
    assert found.last.decision == wait


def test_freezes_of_a_model_and_of_all_stand_until_each_is_lifted():
    own, every = entries(of(Outcome.FROZEN)), entries(of(Outcome.FROZEN), of(Outcome.UNFROZEN), model="*")
    assert [item.model for item in fold(own, every).freezes] == ["late"]
    assert [item.model for item in fold(own, every[:1]).freezes] == ["*", "late"]
    assert not fold([*own, *entries(of(Outcome.FROZEN), of(Outcome.UNFROZEN))[1:]]).freezes


def test_incidents_stay_open_until_resolved_each_for_itself():
    skew = of(Outcome.INCIDENT, kind="skew", seen_at=T0, seen_id=4)
    data = of(Outcome.INCIDENT, kind="broken_data", seen_at=T0, seen_id=9)
    found = fold(entries(skew, data, of(Outcome.RESOLVED, of=1, kind="skew")))
    assert [(item.number, item.kind) for item in found.incidents] == [(2, TriggerKind.BROKEN_DATA)]


TIMES = st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2050, 1, 1)).map(lambda it: it.replace(tzinfo=dt.UTC))
SPANS = st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(days=400))


@given(TIMES, st.lists(TIMES, max_size=5), TIMES, SPANS)
def test_whatever_the_clock_does_an_age_is_never_negative_and_a_wait_ends_in_time(began, shown, now, within):
    """The clock showed `shown` since, one after the other, and now shows `now`, which is looked at and kept."""
    history = [
        Entry(model="late", number=number, at=at, by="governor", decision=decision)
        for number, (at, decision) in enumerate(
            [(began, of(Outcome.TRAIN)), *((at, of(Outcome.WAIT, cause="cool_down")) for at in [*shown, now])], 1
        )
    ]
    (start,) = fold(history).starts
    found = age(start, now, within)
    assert found is None or found >= dt.timedelta(0)
    later = age(start, now + within, within)
    assert later is None or later >= within, "one wait after this look it is over, and it stays so"
    again = age(start, now + 2 * within, within)
    assert again is None or again >= within


@given(TIMES, SPANS)
def test_a_clock_that_only_goes_on_tells_the_true_age(began, since):
    assert age(Start(1, began, ""), began + since, dt.timedelta(days=1)) == since


@pytest.mark.parametrize(
    ("last", "asked", "due"),
    [
        (None, None, True),
        (T0, None, False),
        (T0 - 6 * DAY, None, False),
        (T0 - 7 * DAY, None, True),
        (T0 - 9 * DAY, T0 - DAY, False),  # asked already, and a pre-test may have said no
        (T0 - 9 * DAY, T0 - 8 * DAY, True),
        (T0 + 200 * DAY, None, True),  # another replay's
    ],
)
def test_a_schedule_is_due_when_nothing_was_trained_or_asked_for_so_long(last, asked, due):
    state = State((Start(1, last, "", Outcome.TRAINED),) if last else ())
    assert scheduled(7 * DAY, state, asked, T0) is due
