"""What is read out of act's JSON: who ran, what came of it, and which share of the steps was executed."""

from __future__ import annotations

from typing import Any

from flightdeck.delivery.act import Ran, event_of, variables


def event(job: str = "check", **told: Any) -> dict[str, Any]:
    return {"jobID": job, "level": "info", "msg": "", **told}


def step(
    result: str, name: str = "make ci-check", path: tuple[str, ...] = ("2",), job: str = "check"
) -> dict[str, Any]:
    return event(job, step=name, stepID=list(path), stepResult=result, msg=f"  ✅  Success - Main {name}")


def test_a_step_that_failed_was_executed_and_one_that_was_skipped_was_not():
    ran = Ran(steps=4)
    for told in (step("success"), step("failure", path=("3",)), step("skipped", path=("4",)), step("success")):
        ran.hear(told, 0.0)
    assert ran.executed == {("check", "2"), ("check", "3")}
    assert ran.share == 0.5


def test_only_make_targets_of_the_workflow_itself_count():
    ran = Ran(steps=1)
    ran.hear(step("success", name="actions/checkout@x"), 0.0)
    ran.hear(step("success", path=("2", "0")), 0.0)
    assert not ran.executed


def test_a_job_has_its_result_and_its_time_and_the_worst_of_a_matrix_counts():
    ran = Ran(steps=1)
    ran.hear(event(msg="⭐ Run Main make"), 10.0)
    ran.hear(event(jobResult="failure"), 25.0)
    ran.hear(event(jobResult="success"), 30.0)
    assert ran.jobs["check"].result == "failure"
    assert ran.jobs["check"].took_s == 20.0


def test_people_see_output_and_steps_and_errors_but_no_machinery():
    ran = Ran(steps=1)
    assert ran.hear(event(msg="12 passed in 3.2s\n", raw_output=True), 0) == "[check] | 12 passed in 3.2s"
    assert ran.hear(step("success"), 0).startswith("[check] ✅")
    assert ran.hear(event(msg="⭐ Run Set up job"), 0) == ""
    assert ran.hear(step("success", path=("2", "0")), 0) == "", "a stand-in's own steps"
    assert ran.hear({**step("success"), "stage": "Post"}, 0) == ""
    assert ran.hear(event(msg="🧪  Matrix: map[]"), 0) == ""
    assert ran.hear(event(msg="exit status 1", level="error"), 0) == "[check] exit status 1"
    assert ran.hear({"level": "info", "msg": "Using docker host"}, 0) == ""
    assert ran.hear({"level": "error", "msg": "no such workflow"}, 0) == "no such workflow"


def test_the_table_ends_with_the_share():
    ran = Ran(steps=2)
    ran.hear(step("success"), 0.0)
    assert ran.table()[-1] == "act executed 1 of 2 run: steps (50 %)"


def test_a_push_here_carries_labels_and_the_champion_card_as_github_would_tell_them():
    given = {"FLIGHTDECK_LABELS": "a,features:destructive", "FLIGHTDECK_CHAMPION_CARD": "/card.json"}
    assert event_of(given, "b" * 40) == {
        "before": "b" * 40, "pull_request": {"labels": [{"name": "a"}, {"name": "features:destructive"}]},
    }  # fmt: skip
    assert variables(given) == ["--var", "CHAMPION_CARD=/card.json"]
    assert event_of({}, "") == {"before": ""}
    assert variables({}) == []
