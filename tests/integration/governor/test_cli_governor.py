"""`flightdeck governor` as a person meets it."""

from __future__ import annotations

import datetime as dt
import json
import time

import pytest

from flightdeck.cli.main import main
from flightdeck.contracts.retrain import Decision, Outcome, Trigger, TriggerKind
from pipelines.governor.journal import JOURNAL_ENV, Journal, journal_url

NOW = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """`run("status")` -> (exit code, stdout, stderr)."""
    monkeypatch.delenv(JOURNAL_ENV, raising=False)
    monkeypatch.delenv("FLIGHTDECK_STREAMS_REDIS", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*argv: str) -> tuple[int, str, str]:
        monkeypatch.setenv("FLIGHTDECK_STATE", str(tmp_path))
        with pytest.raises(SystemExit) as stop:
            main(["governor", *argv])
        shown = capsys.readouterr()
        return int(stop.value.code or 0), " ".join(shown.out.split()), shown.err

    return call


@pytest.fixture
def journal(tmp_path) -> Journal:
    from flightdeck.contracts.layout import StateLayout

    return Journal(journal_url(StateLayout(tmp_path)))


def test_status_shows_every_model_of_the_specs_before_anything_happened(run):
    code, said, _ = run("status")
    assert code == 0
    for words in ("model late", "model delay", "asks nothing", "IDLE: nothing asks", "no decision yet", "every 28 d"):
        assert words in said


def test_a_request_by_hand_shows_with_who_and_why_and_what_comes_next(run):
    assert run("request", "late", "--reason", "new schedule", "--by", "ada")[0] == 0
    code, said, _ = run("status", "late")
    assert code == 0
    assert "asks hand: new schedule" in said
    assert "next TRAIN: hand: new schedule" in said


def test_a_freeze_shows_in_status_and_why_until_it_is_lifted(run):
    assert run("freeze", "late", "--reason", "audit", "--by", "ada")[0] == 0
    assert run("freeze", "--all", "--reason", "holidays", "--by", "bob")[0] == 0
    run("request", "late", "--reason", "now")
    said = run("status", "late")[1]
    assert "late by ada" in said
    assert "* by bob" in said
    assert "WAIT (freeze)" in said
    code, _, wrong = run("freeze", "late", "--reason", "again")
    assert code == 5
    assert "late is frozen already, by ada" in wrong
    assert run("unfreeze", "late", "--reason", "done")[0] == 0
    assert run("unfreeze", "--all", "--reason", "done")[0] == 0
    assert "TRAIN: hand: now" in run("status", "late")[1]
    told = run("why", "late")[1]
    assert told.index("FROZEN ada audit") < told.index("FROZEN bob holidays") < told.index("UNFROZEN")


def test_why_tells_decisions_with_their_figures_and_as_json(run, journal):
    trigger = Trigger(model="late", kind=TriggerKind.DRIFT, at=NOW, evidence="PSI of dew point 0.31", source="monitor")
    journal.tell([trigger], NOW)
    with journal.turn() as turn:
        decision = Decision(
            outcome=Outcome.SKIP, reason="pre-test: would not: gain -0.001 [-0.002, -0.0005]", claims=(1,)
        )
        turn.keep("late", decision, NOW, "governor")
    code, said, _ = run("why", "late")
    assert code == 0
    assert "late 1 2013-07-01 12:00Z SKIP governor pre-test: would not: gain -0.001 [-0.002, -0.0005]" in said
    entry = json.loads(run("why", "late", "--json")[1])
    assert (entry["number"], entry["decision"]["outcome"]) == (1, "SKIP")


def test_an_incident_shows_until_it_is_resolved_by_hand(run, journal):
    with journal.turn() as turn:
        decision = Decision(
            outcome=Outcome.INCIDENT, reason="dew point is in °C", kind=TriggerKind.BROKEN_DATA, seen_at=NOW, seen_id=1
        )
        turn.keep("late", decision, NOW, "governor")
    assert (
        "incident 1 broken_data since 2013-07-01 12:00Z; ends with data_clean or `resolve`" in run("status", "late")[1]
    )
    code, said, _ = run("resolve", "late", "--reason", "mended at the source")
    assert (code, "mended at the source" in said) == (0, True)
    assert "incident" not in run("status", "late")[1].partition("last")[0]
    assert run("resolve", "late", "--reason", "again")[0] == 5


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("status", "early"), "no model 'early'; there are: delay, late"),
        (("request", "early", "--reason", "x"), "no model 'early'"),
        (("request", "late", "--reason", " "), "--reason must say why"),
        (("freeze", "--reason", "x"), "name one model, or give --all"),
        (("freeze", "late", "--all", "--reason", "x"), "name one model, or give --all"),
        (("unfreeze", "late", "--reason", "x"), "late is not frozen"),
        (("status", "--redis", "redis://127.0.0.1:1/0"), "the clock's server does not answer"),
    ],
)
def test_what_has_no_effect_is_refused_with_the_reason(run, argv, words):
    code, _, wrong = run(*argv)
    assert code == 5
    assert words in wrong


def test_the_replays_clock_is_the_governors(run, tmp_path):
    import subprocess

    import redis

    from flightdeck.contracts.clock import ReplayClock
    from flightdeck.lab.ports import free_port
    from flightdeck.lab.programs import find
    from pipelines.clock import set_clock

    port = free_port()
    server = subprocess.Popen(
        [find("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL
    )
    try:
        client = redis.Redis(port=port)
        for _ in range(100):
            try:
                set_clock(client, ReplayClock(NOW, time.time(), 0))
                break
            except redis.ConnectionError:
                time.sleep(0.1)
        address = f"redis://127.0.0.1:{port}/0"
        run("request", "late", "--reason", "now", "--redis", address)
        assert "clock 2013-07-01 12:00Z" in run("status", "late", "--redis", address)[1]
    finally:
        server.terminate()
        server.wait(10)
