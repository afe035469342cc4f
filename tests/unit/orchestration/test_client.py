from __future__ import annotations

import datetime as dt
import json
from typing import Any

import httpx
import pytest

from flightdeck.cluster import dagster_client
from flightdeck.cluster.dagster_client import (
    DagsterClient,
    DagsterError,
    Job,
    RunFailed,
    day_tags,
    month_days,
    run_config,
)
from flightdeck.cluster.dagster_events import told
from pipelines.orchestration import names

TRAIN = Job("train_a", "", {"flightdeck/takes": "until"}, {"candidate__a": ["until", "trials"]}, "r", "l")
DAILY = Job("daily", "", {"flightdeck/takes": "days"}, {"lake__x": ["strict"], "lake__y": ["strict"]}, "r", "l")
MARCH = (dt.date(2013, 3, 1), dt.date(2013, 3, 31))


def test_both_sides_name_the_tags_alike():
    ours = (dagster_client.TAKES_TAG, dagster_client.THEN_TAG, dagster_client.AFTER_TAG)
    assert ours == (names.TAKES_TAG, names.THEN_TAG, names.AFTER_TAG)
    assert (dagster_client.DAYS, dagster_client.UNTIL) == (names.DAYS, names.UNTIL)


def test_a_setting_goes_to_every_step_that_knows_it():
    assert run_config(DAILY, {"strict": True}) == {
        "ops": {"lake__x": {"config": {"strict": True}}, "lake__y": {"config": {"strict": True}}}
    }
    with pytest.raises(DagsterError, match="no setting 'tirals'; it has: trials, until"):
        run_config(TRAIN, {"tirals": 3})


def test_one_day_is_a_partition_and_several_are_a_range_in_one_run():
    assert day_tags(DAILY, MARCH[0], None) == {"dagster/partition": "2013-03-01"}
    assert set(day_tags(DAILY, *MARCH).values()) == {"2013-03-01", "2013-03-31"}
    with pytest.raises(DagsterError, match="needs days"):
        day_tags(DAILY, None, None)
    with pytest.raises(DagsterError, match="takes no days"):
        day_tags(TRAIN, *MARCH)


def test_a_month_is_all_of_its_days():
    assert month_days("2013-03") == MARCH
    with pytest.raises(DagsterError, match="not a month"):
        month_days("March")


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"__typename": kind, "message": "", "timestamp": "1000", "stepKey": "lake__x", **more}


def check(severity: str) -> dict[str, Any]:
    evaluation = {
        "checkName": "fit", "success": False, "severity": severity, "description": "too few",
        "assetKey": {"path": ["lake", "x"]},
    }  # fmt: skip
    return event("AssetCheckEvaluationEvent", evaluation=evaluation)


class FakeDagster(DagsterClient):
    """Answers from a script: runs by id, each (status, tags, events)."""

    def __init__(self, runs: dict[str, tuple[str, dict[str, str], list[dict[str, Any]]]]) -> None:
        super().__init__("http://127.0.0.1:1")
        self.script = runs

    def describe(self, run_id: str) -> dict[str, Any]:
        status, tags, _ = self.script[run_id]
        shown = [{"key": key, "value": value} for key, value in tags.items()]
        return {"status": status, "jobName": run_id, "startTime": 1, "endTime": 3, "tags": shown}

    def runs(self, *, limit: int = 20, tags: Any = None) -> list[Any]:
        return [{"runId": name} for name, (_, has, _) in self.script.items() if tags.items() <= has.items()]

    def _ask(self, query: str, variables: Any) -> dict[str, Any]:
        events = self.script[variables["run"]][2] if variables["after"] is None else []
        return {"logsForRun": {"__typename": "EventConnection", "cursor": "1", "hasMore": False, "events": events}}


def test_a_run_and_what_follows_it_are_followed_to_the_end():
    lines: list[str] = []
    client = FakeDagster(
        {
            "train": ("SUCCESS", {names.THEN_TAG: "gate"}, [event("ExecutionStepStartEvent")]),
            "gate": ("SUCCESS", {names.AFTER_TAG: "train"}, [check("WARN")]),
        }
    )
    outcome = client.follow("train", tell=lines.append)
    assert outcome.then is not None
    assert (outcome.seconds, outcome.then.job) == (2, "gate")
    assert outcome.then.warnings == ["warning: lake/x fit: too few"]
    assert "lake__x ..." in lines


def test_a_failed_check_fails_the_command_though_the_run_ended_well():
    with pytest.raises(RunFailed, match=r"ended, but.*\n.*check failed: lake/x fit: too few"):
        FakeDagster({"daily": ("SUCCESS", {}, [check("ERROR")])}).follow("daily")


def test_a_failed_run_says_why_and_its_last_lines():
    error = {"message": "outer", "errorChain": [{"error": {"message": "the store does not answer"}}]}
    events = [event("LogMessageEvent", message="reads"), event("ExecutionStepFailureEvent", error=error)]
    with pytest.raises(RunFailed) as found:
        FakeDagster({"daily": ("FAILURE", {}, events)}).follow("daily")
    assert "daily (run daily) failed:\n  the store does not answer" in str(found.value)
    assert "lake__x: reads" in str(found.value)


def test_what_only_dagster_needs_to_know_is_not_told():
    assert told(event("StepWorkerStartedEvent")) is None
    assert told(event("LogMessageEvent", message="Dependencies for step features failed: ['x']")) is None


@pytest.mark.parametrize(
    ("away", "words"),
    [
        (httpx.Response(500), "500 Internal Server Error"),
        (httpx.Response(200, json={"errors": [{"message": "(psycopg2.OperationalError) closed"}]}), "OperationalError"),
    ],
    ids=["the page fails", "its database is away"],
)
def test_a_database_that_restarts_is_waited_for_while_a_run_is_followed(monkeypatch, away, words):
    answers = [
        away,
        away,
        httpx.Response(200, json={"data": {"runOrError": {"__typename": "Run", "status": "SUCCESS"}}}),
    ]
    client = DagsterClient("http://127.0.0.1:1")
    client._http = httpx.Client(
        base_url="http://127.0.0.1:1", transport=httpx.MockTransport(lambda _: answers.pop(0) if answers else away)
    )
    monkeypatch.setattr(dagster_client, "POLL_S", 0.0)
    said: list[str] = []
    assert client._patiently(lambda: client.describe("r"), said.append)["status"] == "SUCCESS"
    assert len(said) == 1
    monkeypatch.setattr(dagster_client, "AWAY_S", 0.0)
    with pytest.raises(DagsterError, match=words):
        client._patiently(lambda: client.describe("r"), said.append)


def test_what_dagster_refuses_is_not_waited_for():
    client = DagsterClient("http://127.0.0.1:1")
    refusal = httpx.Response(200, json={"errors": [{"message": "no such field"}]})
    client._http = httpx.Client(base_url="http://127.0.0.1:1", transport=httpx.MockTransport(lambda _: refusal))
    with pytest.raises(DagsterError, match="no such field"):
        client._patiently(lambda: client.describe("r"), pytest.fail)


class OldRuns:
    """Answers for Dagster's runs that ended: so many, deleted one by one."""

    def __init__(self, count: int, refuse: str = "") -> None:
        self.left, self.refuse, self.asked = [f"run-{number}" for number in range(count)], refuse, dict[str, Any]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        sent = json.loads(request.content)
        variables = sent["variables"]
        if "Delete" not in sent["query"]:
            self.asked = variables["filter"]
            shown = [{"runId": name} for name in self.left[: variables["limit"]]]
            return httpx.Response(200, json={"data": {"runsOrError": {"__typename": "Runs", "results": shown}}})
        if variables["run"] == self.refuse:
            said = {"__typename": "UnauthorizedError", "message": "not yours"}
            return httpx.Response(200, json={"data": {"deleteRun": said}})
        self.left.remove(variables["run"])
        return httpx.Response(200, json={"data": {"deleteRun": {"__typename": "DeletePipelineRunSuccess"}}})


def client_of(runs: OldRuns) -> DagsterClient:
    client = DagsterClient("http://127.0.0.1:1")
    client._http = httpx.Client(base_url="http://127.0.0.1:1", transport=httpx.MockTransport(runs))
    return client


def test_old_runs_are_deleted_page_by_page_and_only_those_that_ended():
    before, runs = dt.datetime(2013, 3, 1, tzinfo=dt.UTC), OldRuns(250)
    assert client_of(runs).trim(before, dry_run=True) == 250
    assert len(runs.left) == 250
    assert client_of(runs).trim(before) == 250
    assert runs.left == []
    assert runs.asked == {"statuses": ["CANCELED", "FAILURE", "SUCCESS"], "updatedBefore": before.timestamp()}


def test_a_run_that_dagster_does_not_delete_is_told():
    with pytest.raises(DagsterError, match="does not delete run run-1: not yours"):
        client_of(OldRuns(3, refuse="run-1")).trim(dt.datetime(2013, 3, 1, tzinfo=dt.UTC))
