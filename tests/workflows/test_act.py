"""Every workflow is run by act in a clean clone; at least nine in ten of its `run:` steps are really executed.

Exhaustive: each is what a push would do here: up to an hour, and a cluster of its own; ci.yml is what `.ci/run`
runs. `FLIGHTDECK_ACT_REGISTRY=localhost:5001/flightdeck` names a registry for the images of cd.yml and release.yml.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from flightdeck.delivery import act, changes

ROOT = Path(__file__).parents[2]
MOST_NOT_RUN = 0.1
REGISTRY = os.environ.get("FLIGHTDECK_ACT_REGISTRY", "localhost:5001/flightdeck")
needs_act = pytest.mark.skipif(shutil.which("act") is None, reason="act is not on the PATH")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is committed, and nothing else."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def run(workflow: str, clone: Path, *options: str, event: str = "push") -> tuple[act.Ran, str]:
    told = io.StringIO()
    ran = act.run(workflow, root=clone, home=clone.parent / "act", event=event, options=options, log=told)
    print(told.getvalue()[-20_000:], "\n".join(ran.table()), sep="\n")
    return ran, told.getvalue()


@needs_act
def test_act_runs_a_job_in_a_checkout_of_its_own_and_the_steps_are_counted(clone: Path):
    ran, told = run("ci.yml", clone, "-j", "changes")
    assert ran.code == 0, told
    assert ran.executed == {("changes", "changes")}
    assert ran.jobs["changes"].result == "success"
    assert "runs: check, integration, data, features, models, images, manifests, e2e" in told
    assert not (clone / ".flightdeck").exists(), "the job worked in its own checkout"


@needs_act
def test_a_red_job_makes_the_run_red_and_what_waits_for_it_does_not_run(clone: Path):
    path = clone / ".github" / "workflows" / "ci.yml"
    path.write_text(path.read_text().replace("run: make ci-changes", "run: make ci-changez"))
    ran, told = run("ci.yml", clone, "-j", "changes")
    assert ran.code != 0
    assert ran.jobs["changes"].result == "failure"
    assert "ci-changez" in told


GATES = ("check", *changes.JOBS)
STUB = """
ci-%(gate)s:
\t@mkdir -p $(FLIGHTDECK_STATE)/ci
\t@echo '%(kept)s' > $(FLIGHTDECK_STATE)/ci/%(gate)s.json
\t@exit %(code)d
"""


def with_stubs(clone: Path, red: str = "") -> None:
    """Each gate only keeps a word: what is tried is the way from job to job."""
    path = clone / "Makefile"
    text = re.sub(rf"^ci-(?:{'|'.join(GATES)}):.*\n(?:\t.*\n)+", "", path.read_text(), flags=re.M)
    for gate in GATES:
        kept = {"gate": gate, "says": [f"a word of {gate}"], "took_s": 60}
        if gate == red:
            kept["findings"] = [{"what": "column `x` is null", "do": "mend the source"}]
        text += STUB % {"gate": gate, "kept": json.dumps(kept), "code": gate == red}
    path.write_text(text)


@needs_act
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("red", ["", "data"], ids=["green", "red"])
def test_every_job_hands_its_word_to_the_report_and_the_verdict_is_that_of_all(red: str, clone: Path, monkeypatch):
    with_stubs(clone, red)
    ran, told = run("ci.yml", clone)
    act.gather(clone.parent / "act", clone.parent / "state")
    report = (clone.parent / "state" / "ci" / "report.md").read_text()
    assert ran.share == 1, "every run: step was executed"
    assert {name for name, job in ran.jobs.items() if job.result == "failure"} == ({red, "ci"} if red else set()), told
    assert ran.code == (1 if red else 0)
    assert "a word of models" in report
    assert {path.stem for path in (clone.parent / "state" / "ci").glob("*.json")} == set(GATES)
    if red:
        assert f"Refused by {red}" in report
        assert "mend the source" in report
        assert "data: failure" in told
    else:
        assert "Every gate that this change needs has passed" in report


def test_without_act_it_says_what_else_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(act.CannotRun, match="make ci"):
        act.run("ci.yml", root=ROOT, home=tmp_path)


def test_an_action_without_a_stand_in_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(act.CannotRun, match="some/action"):
        act.stand_ins([f"uses: some/action@{'a' * 40} # v1.0.0"], tmp_path)


def test_a_step_finds_nothing_of_the_hook_that_began_it():
    told = act.environment(
        {"GIT_DIR": "/x", "MAKEFLAGS": "k", "GITHUB_TOKEN": "t", "FLIGHTDECK_STATE": "/s", "HOME": "/h"}, Path("/a")
    )
    assert told["HOME"] == "/h"
    assert not [name for name in told if re.match("GIT|MAKE|FLIGHTDECK_STATE", name)]


@needs_act
@pytest.mark.exhaustive
@pytest.mark.timeout(3 * 3600)
@pytest.mark.parametrize(
    ("workflow", "event", "options"),
    [
        ("ci.yml", "push", ()),
        ("train.yml", "workflow_dispatch", ("--input", "spec=late", "--input", "environment=dev")),
        ("cd.yml", "push", ("--var", f"REGISTRY={REGISTRY}")),
        ("release.yml", "push", ("--var", f"REGISTRY={REGISTRY}")),
    ],
    ids=lambda it: it if isinstance(it, str) and it.endswith(".yml") else "",
)
def test_nearly_every_step_of_a_workflow_is_executed(workflow, event, options, clone, monkeypatch):
    if workflow == "release.yml":  # a release is a tag on a commit that says the same version
        version = re.search(r'^version = "(.*)"$', (clone / "pyproject.toml").read_text(), re.M)
        assert version
        changelog = clone / "CHANGELOG.md"
        changelog.write_text(changelog.read_text().replace("## Unreleased", f"## {version[1]}", 1))
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run([*git, "commit", "-qam", "Release"], cwd=clone, check=True)
        subprocess.run(["git", "tag", f"v{version[1]}"], cwd=clone, check=True)
        subprocess.run(["git", "checkout", "-q", f"v{version[1]}"], cwd=clone, check=True)
    ran, told = run(workflow, clone, *options, event=event)
    assert ran.code == 0, told[-3000:]
    # Staging and production need a cluster that stays: without DEPLOY_RUNNER they are left out on purpose.
    skipped = 2 if workflow == "cd.yml" else 0
    assert len(ran.executed) / (ran.steps - skipped) >= 1 - MOST_NOT_RUN
