"""The journal on real databases: what is kept, what is settled, and two governors at once."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError

from flightdeck.contracts.retrain import Cause, Decision, Outcome, TriggerKind
from pipelines.governor.journal import Journal, JournalUnavailable

CHECKOUT = str(Path(__file__).parents[3])
LOOK = Path(__file__).parent / "look.py"
NOW = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)


def test_a_trigger_told_twice_is_kept_once(url, trigger):
    journal = Journal(url)
    same = [trigger(number=1), trigger(number=2)]
    assert journal.tell(same, NOW) == 2
    assert journal.tell([*same, trigger(number=3)], NOW) == 1
    assert [item.trigger for item in Journal(url).waiting("late")] == [*same, trigger(number=3)]


def test_a_decision_settles_its_triggers_and_no_others(url, trigger):
    journal = Journal(url)
    journal.tell([trigger(number=n) for n in range(1200)], NOW)
    waiting = journal.waiting("late")
    with journal.turn() as turn:
        claims = tuple(item.id for item in waiting[:1100])
        turn.keep("late", Decision(outcome=Outcome.TRAIN, reason="drift", claims=claims), NOW, "test")
    assert journal.waiting("late") == waiting[1100:]
    assert journal.settled_by("late", 1) == waiting[:1100]
    assert journal.models() == ["late"]
    assert journal.newest("late", TriggerKind.DRIFT) == trigger(number=1199)
    assert journal.newest("late", TriggerKind.SKEW) is None


def test_one_wait_is_kept_once_though_triggers_are_settled_between_its_looks(url):
    journal, wait = Journal(url), Decision(outcome=Outcome.WAIT, reason="busy", cause=Cause.BUSY)
    for decision in (wait, Decision(outcome=Outcome.ANSWERED, reason="answered", of=1), wait, wait):
        with journal.turn() as turn:
            turn.keep("late", decision, NOW, "test")
    assert [entry.decision.outcome for entry in journal.history("late")] == [Outcome.WAIT, Outcome.ANSWERED]
    assert journal.state("late").last == journal.history("late")[0]


def test_a_turn_that_fails_changes_nothing(url, trigger):
    journal = Journal(url)
    journal.tell([trigger()], NOW)
    waiting = journal.waiting("late")
    decision = Decision(outcome=Outcome.TRAIN, reason="drift", claims=(waiting[0].id,))
    with pytest.raises(KeyError), journal.turn() as turn:
        turn.keep("late", decision, NOW, "test")
        raise KeyError("killed here")
    assert not journal.history("late")
    assert journal.waiting("late") == waiting


def test_a_trigger_is_settled_once(url, trigger):
    journal = Journal(url)
    journal.tell([trigger()], NOW)
    decision = Decision(outcome=Outcome.TRAIN, reason="drift", claims=(journal.waiting("late")[0].id,))
    with journal.turn() as turn:
        turn.keep("late", decision, NOW, "test")
    with pytest.raises(RuntimeError, match="settles 1 triggers, 0 of them are open"), journal.turn() as turn:
        turn.keep("late", decision, NOW, "test")
    assert len(journal.history("late")) == 1


def test_the_tables_refuse_a_second_decision_of_one_number(url, trigger):
    journal = Journal(url)
    with journal.turn() as turn:
        turn.keep("late", Decision(outcome=Outcome.FROZEN, reason="audit"), NOW, "test")
    copy = "INSERT INTO retrain_decisions SELECT * FROM retrain_decisions"
    with pytest.raises(IntegrityError), create_engine(url).begin() as connection:
        connection.execute(text(copy))


def test_a_journal_that_is_away_says_which_and_shows_no_password(tmp_path):
    with pytest.raises(ConnectionError, match=r"does not answer|governor's journal") as raised:
        Journal("postgresql+psycopg2://ada:secret@127.0.0.1:1/governor")
    assert "secret" not in str(raised.value)
    (tmp_path / "broken.db").write_text("no database at all, but a text that is long enough" * 100)
    with pytest.raises(JournalUnavailable, match=r"broken\.db"):
        Journal(f"sqlite:///{tmp_path / 'broken.db'}")


def test_governors_in_several_processes_decide_once(url, trigger):
    """A storm of triggers, then three governors at the same moment: one training, and all triggers in it."""
    journal = Journal(url)
    journal.tell([trigger("drift", number=n) for n in range(100)], NOW)
    looks = [
        subprocess.Popen(
            [sys.executable, str(LOOK), url, "5"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": CHECKOUT},
        )
        for _ in range(3)
    ]
    for look in looks:
        assert look.stdout is not None
        assert look.stdout.readline() == "ready\n"
    for look in looks:
        assert look.stdin is not None
        look.stdin.write("go\n")
        look.stdin.flush()
    orders = set()
    for look in looks:
        said, _ = look.communicate(timeout=120)
        assert look.returncode == 0
        orders |= set(said.split())
    outcomes = [entry.decision.outcome for entry in journal.history("late")]
    assert outcomes == [Outcome.TRAIN]
    assert orders == {"late-1"}, "asked for again and again, it is one training"
    assert not journal.waiting("late")
    settled = journal.settled_by("late", 1)
    assert sum(item.trigger.kind is TriggerKind.DRIFT for item in settled) == 100
    assert sum(item.trigger.kind is TriggerKind.SCHEDULE for item in settled) >= 1
