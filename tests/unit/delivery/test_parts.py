"""Gates that are commands: all that is wrong shows at once, and what follows a failed foundation is named."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from typer.testing import CliRunner

from flightdeck.cli.ci import app
from flightdeck.cli.ci_parts import E2E, without
from flightdeck.delivery.outcome import Found
from flightdeck.delivery.parts import Part, closing, run_parts

LINT = Part("lint", ("make", "lint"), "mend it")
TESTS = Part("tests", ("pytest",), "read it")
UP = Part("up", ("make", "up"), "look", hold=True)
DOWN = Part("down", ("make", "down"), "again")


class Commands:
    """Remembers what ran; the named programs fail."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.ran: list[str] = []

    def __call__(self, argv: Sequence[str]) -> tuple[int, str]:
        self.ran.append(argv[-1])
        return (3 if argv[-1] in self.failing else 0), "===== 12 passed, 1 skipped in 3.21s =====\n"


def silent(line: str) -> None:
    return None


def test_a_gate_passes_when_all_parts_pass():
    found = run_parts("check", (LINT, TESTS), run=Commands(), tell=silent)
    assert found.found is Found.PASSED
    assert "tests: 12 passed, 1 skipped" in found.says


def test_what_takes_minutes_does_not_begin_when_the_gate_is_red_already():
    run = Commands("lint")
    slow = Part("tests", ("pytest",), "read it", costly=True)
    found = run_parts("check", (LINT, UP, slow), run=run, tell=silent)
    assert run.ran == ["lint", "up"], "quick parts all run, so that one push shows all that is wrong"
    assert found.not_run == ("tests, since what is before it failed",)


def test_a_failed_part_is_named_with_what_to_do_and_the_next_one_still_runs():
    run = Commands("lint")
    found = run_parts("check", (LINT, TESTS), run=run, tell=silent)
    assert run.ran == ["lint", "pytest"]
    assert [(finding.what, finding.do) for finding in found.findings] == [("lint: `make lint` ended with 3", "mend it")]
    assert ("lint", "0", "✗") in found.tables["check, part by part"]


def test_nothing_is_tested_on_a_foundation_that_failed_and_it_is_still_taken_away():
    run = Commands("up")
    found = run_parts("e2e", (UP, TESTS), run=run, last=DOWN, tell=silent)
    assert run.ran == ["up", "down"]
    assert found.not_run == ("tests, since up failed",)


def test_an_interrupted_gate_takes_away_what_it_made():
    run = Commands()

    def interrupted(argv: Sequence[str]) -> tuple[int, str]:
        run(argv)
        if argv[-1] == "pytest":
            raise KeyboardInterrupt
        return 0, ""

    with pytest.raises(KeyboardInterrupt):
        run_parts("e2e", (UP, TESTS), run=interrupted, last=DOWN, tell=silent)
    assert run.ran == ["up", "pytest", "down"]


@pytest.mark.parametrize(
    ("line", "words"),
    [("1 failed, 32 passed in 1.19s", "1 failed, 32 passed"), ("==== 3 passed in 9.99s (0:00:09) ====", "3 passed"),
     ("12 passengers in a row", None)],
)  # fmt: skip
def test_the_closing_line_of_pytest_is_found(line, words):
    assert closing(f"something\n{line}\n") == ([words] if words else [])


def test_without_the_tools_of_a_cluster_its_tests_are_loudly_not_run(capsys):
    found = without(["docker", "kind"], required=False)
    assert found.found is Found.PASSED
    assert "docker, kind" in found.not_run[0]
    assert "# NOT RUN" in capsys.readouterr().out


def test_where_the_cluster_is_required_its_absence_refuses():
    found = without(["kind"], required=True)
    assert found.found is Found.FAILED
    assert "install kind" in found.findings[0].do


def test_where_the_cluster_must_not_run_the_reason_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("FLIGHTDECK_E2E_LEFT_OUT", "a cluster of yours stands here")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    monkeypatch.setenv("FLIGHTDECK_STATE", str(tmp_path))
    told = CliRunner().invoke(app, ["e2e"])
    assert told.exit_code == 0
    assert "# NOT RUN: the cluster's tests, since a cluster of yours stands here" in told.output


def test_the_cluster_is_the_one_a_user_would_make():
    assert [part.argv[2:] for part in E2E] == [("up", "CLUSTER=kind"), ("e2e",)]
