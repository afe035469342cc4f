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
pytestmark = pytest.mark.xdist_group("act")
needs_act = pytest.mark.skipif(shutil.which("act") is None, reason="act is not on the PATH")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is committed, and nothing else."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packages are installed once for all runs; what jobs hand over begins anew with each."""
    return tmp_path_factory.mktemp("act")


def run(workflow: str, clone: Path, home: Path, *options: str, event: str = "push") -> tuple[act.Ran, str]:
    told = io.StringIO()
    ran = act.run(workflow, root=clone, home=home, event=event, options=options, log=told)
    print(told.getvalue()[-20_000:], "\n".join(ran.table()), sep="\n")
    return ran, told.getvalue()


@needs_act
def test_act_runs_a_job_in_a_checkout_of_its_own_and_the_steps_are_counted(clone: Path, home: Path):
    ran, told = run("ci.yml", clone, home, "-j", "changes")
    assert ran.code == 0, told
    assert ran.executed == {("changes", "changes")}
    assert ran.jobs["changes"].result == "success"
    assert "runs: check, integration, data, features, models, images, manifests, e2e" in told
    assert not (clone / ".flightdeck").exists(), "the job worked in its own checkout"


@needs_act
def test_a_red_job_makes_the_run_red_and_what_waits_for_it_does_not_run(clone: Path, home: Path):
    path = clone / ".github" / "workflows" / "ci.yml"
    path.write_text(path.read_text().replace("run: make ci-changes", "run: make ci-changez"))
    ran, told = run("ci.yml", clone, home, "-j", "changes")
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
def test_every_job_hands_its_word_to_the_report_and_the_verdict_is_that_of_all(red: str, clone: Path, home: Path):
    with_stubs(clone, red)
    ran, told = run("ci.yml", clone, home)
    act.gather(home, clone.parent / "state")
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


DIGEST = "sha256:" + "a" * 64
CD_STUBS = """
.PHONY: images
ci-images:
\t@mkdir -p $(FLIGHTDECK_STATE)/ci/sbom && echo '{}' > $(FLIGHTDECK_STATE)/ci/sbom/predictor.cdx.json

images:
\t@mkdir -p $(FLIGHTDECK_STATE)
\t@echo '{"digests": {"flightdeck/predictor": "$(REGISTRY)/predictor@DIGEST"}}' > $(FLIGHTDECK_STATE)/images.json

up down:
\t@echo "$@ of a $${CLUSTER:-cluster}"

deliver:
\t@echo "delivers to $$ENVIRONMENT, cluster=$$CLUSTER, digests=$$(test -z "$$DIGESTS" || cat "$$DIGESTS")"

train:
\t@echo "trains $$SPEC in $$ENVIRONMENT"
""".replace('DIGEST"', f'{DIGEST}"')


def with_cd_stubs(clone: Path) -> None:
    """What needs a registry or a cluster only says what it was asked for; CI's word, signatures and files are real."""
    path = clone / "Makefile"
    text = re.sub(r"^(?:ci-images|images|deliver|train|up|down):.*\n(?:\t.*\n)+", "", path.read_text(), flags=re.M)
    path.write_text(text + CD_STUBS)


@needs_act
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("runner", ["", "ubuntu-24.04"], ids=["a kind cluster in the job", "a deploy runner"])
def test_one_build_goes_from_environment_to_environment(runner: str, clone: Path, home: Path):
    with_cd_stubs(clone)
    options = (
        "--var",
        "REGISTRY=localhost:5001/Some/Flightdeck",
        *(("--var", f"DEPLOY_RUNNER={runner}") if runner else ()),
    )
    ran, told = run("cd.yml", clone, home, *options)
    assert ran.code == 0, told
    assert f"NOT RUN: attestation of localhost:5001/some/flightdeck/predictor@{DIGEST}" in told
    assert "NOT RUN: signatures of 1 images" in told
    assert [f"| delivers to {it}," in told for it in ("dev", "staging", "production")] == [
        True,
        bool(runner),
        bool(runner),
    ]
    assert ("delivers to dev, cluster=kind, digests=\n" in told) is not bool(runner)
    assert (f"predictor@{DIGEST}" in told.split("delivers to dev")[1].split("\n")[0]) is bool(runner)
    assert ("| down of a" in told) is not bool(runner)
    left_out = 1 if runner else 2  # the cluster is not taken away, or there is none that stays
    assert len(ran.executed) == ran.steps - left_out


@needs_act
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_training_is_asked_for_by_name_and_an_unknown_name_trains_nothing(clone: Path, home: Path):
    with_cd_stubs(clone)
    words = ("--input", "spec=late", "--input", "environment=dev")
    ran, told = run("train.yml", clone, home, *words, event="workflow_dispatch")
    assert (ran.code, ran.share) == (0, 1.0), told
    assert "trains late in dev" in told
    for spec, trains in (("late", True), ("$(touch /tmp/x)", False)):
        event = {"action": "train", "client_payload": {"spec": spec}}
        told_to = io.StringIO()
        act.run("train.yml", root=clone, home=home, event="repository_dispatch", payload=event, log=told_to)
        assert ("trains late in dev" in told_to.getvalue()) is trains


def tagged(clone: Path) -> str:
    """A release is a tag on a commit that says the same version and has notes about it."""
    version = re.search(r'^version = "(.*)"$', (clone / "pyproject.toml").read_text(), re.M)
    assert version
    changelog = clone / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("## Unreleased", f"## {version[1]}", 1))
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-qam", "Release"],
        cwd=clone,
        check=True,
    )
    subprocess.run(["git", "tag", f"v{version[1]}"], cwd=clone, check=True)
    subprocess.run(["git", "checkout", "-q", f"v{version[1]}"], cwd=clone, check=True)
    return f"v{version[1]}"


@needs_act
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl renders the overlays")
def test_a_tag_becomes_files_with_checksums(clone: Path, home: Path):
    with_cd_stubs(clone)
    path = clone / "Makefile"  # each image that the manifests name
    names = "predictor pipelines mlflow operator"
    every = ", ".join(f'"flightdeck/{it}": "$(REGISTRY)/{it}@{DIGEST}"' for it in names.split())
    path.write_text(re.sub(r'"digests": \{.*?\}', f'"digests": {{{every}}}', path.read_text()))
    tag = tagged(clone)
    payload = {"ref": f"refs/tags/{tag}"}
    told_to = io.StringIO()
    ran = act.run(
        "release.yml", root=clone, home=home, payload=payload, log=told_to,
        options=("--var", "REGISTRY=localhost:5001/Some/Flightdeck"),
    )  # fmt: skip
    assert (ran.code, ran.share) == (0, 1.0), told_to.getvalue()
    files = home / "artefacts" / "release"
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=files, check=True)
    assert f"localhost:5001/some/flightdeck/predictor@{DIGEST}" in (files / "production.yaml").read_text()


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
def test_nearly_every_step_of_a_workflow_is_executed(workflow, event, options, clone, home):
    if workflow == "release.yml":
        tagged(clone)
    ran, told = run(workflow, clone, home, *options, event=event)
    assert ran.code == 0, told[-3000:]
    # Staging and production need a cluster that stays: without DEPLOY_RUNNER they are left out on purpose.
    skipped = 2 if workflow == "cd.yml" else 0
    assert len(ran.executed) / (ran.steps - skipped) >= 1 - MOST_NOT_RUN
