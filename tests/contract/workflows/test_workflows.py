"""The workflows are thin, ask for little, and run the same on any machine: facts that their linters do not hold."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flightdeck.delivery import act, changes, verdict
from flightdeck.delivery.images import bill, scanners
from flightdeck.delivery.manifests import alerts

ROOT = Path(__file__).parents[3]
WORKFLOWS = {path.stem: path for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
FILES = [*WORKFLOWS.values(), *(ROOT / ".github" / "actions").glob("*/action.yml")]
TARGETS = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.M))
DEPLOY = "${{ vars.DEPLOY_RUNNER || 'ubuntu-24.04' }}"


def read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOWS[name].read_text())
    return found


def triggers(name: str) -> dict[str, Any]:
    return read(name)[True]  # YAML reads `on` as a boolean


def steps(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for job, content in read(name)["jobs"].items():
        for step in content["steps"]:
            yield job, step


each = pytest.mark.parametrize("name", WORKFLOWS)


def test_the_four_workflows_are_there():
    assert set(WORKFLOWS) == {"ci", "cd", "train", "release"}


@each
def test_every_step_is_one_make_target_that_exists(name):
    ran = [step for _, step in steps(name) if "run" in step]
    assert ran
    for step in ran:
        words = step["run"].split()
        assert words[0] == "make", step
        assert len(words) == 2, f"what a target needs comes from the environment, where nothing is interpolated: {step}"
        assert words[1] in TARGETS, f"no target {words[1]}"
        assert "name" not in step, "act's runner counts a step by its command"


@each
def test_the_runner_counts_every_run_step(name):
    assert len(act.STEP.findall(WORKFLOWS[name].read_text())) == sum("run" in step for _, step in steps(name))


@each
def test_nothing_is_allowed_unless_a_job_asks_for_it(name):
    content = read(name)
    assert content["permissions"] == {}
    for job, it in content["jobs"].items():
        assert isinstance(it["permissions"], dict), job
        assert it["timeout-minutes"] <= 180, job


@each
def test_runners_are_named_exactly(name):
    for job, it in read(name)["jobs"].items():
        assert it["runs-on"] in ("ubuntu-24.04", DEPLOY), job


@each
def test_no_pull_request_reaches_the_deploy_runner_or_a_secret(name):
    assert "pull_request_target" not in triggers(name)
    if "pull_request" in triggers(name):
        assert "DEPLOY_RUNNER" not in WORKFLOWS[name].read_text()
        assert "secrets." not in WORKFLOWS[name].read_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name + "/" + path.name)
def test_actions_are_pinned_by_commit_the_same_everywhere_and_have_a_stand_in(path):
    lines = [line for line in path.read_text().splitlines() if "uses:" in line and "./" not in line]
    for line in lines:
        assert re.search(r"uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line
    everywhere = {
        (action, commit) for it in FILES for action, commit in act.USES.findall(it.read_text())
    }  # fmt: skip
    names = [action for action, _ in everywhere]
    assert len(names) == len(set(names)), f"one action with two commits: {sorted(everywhere)}"
    act.stand_ins([path.read_text()], ROOT / act.STAND_INS)  # raises when one is missing


def test_no_stand_in_is_left_of_an_action_that_nobody_uses():
    used = {action for it in FILES for action, _ in act.USES.findall(it.read_text())}
    there = {
        "/".join(it.relative_to(ROOT / act.STAND_INS).parts[:2]) for it in (ROOT / act.STAND_INS).rglob("action.yml")
    }
    assert there <= used


@each
def test_a_checkout_keeps_no_credentials(name):
    for job, step in steps(name):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False, job


def test_only_main_leaves_a_cache_and_what_users_get_takes_none():
    for name in WORKFLOWS:
        for job, step in steps(name):
            uses = step.get("uses", "")
            assert not uses.startswith("actions/cache@"), "it would save in any run"
            if uses.startswith("actions/cache/save@"):
                assert (name, job) == ("ci", "check")
                assert step["if"] == "github.event_name == 'push' && github.ref == 'refs/heads/main'"
            if name in ("cd", "release"):
                assert "cache" not in uses
                assert uses != "./.github/actions/python"


def test_the_required_check_waits_for_every_job_and_always_reports():
    jobs = read("ci")["jobs"]
    assert set(jobs["ci"]["needs"]) == set(jobs) - {"ci"}
    assert jobs["ci"]["if"] == "always()"
    assert set(jobs["report"]["needs"]) == set(jobs) - {"ci", "report"}
    assert jobs["report"]["if"] == "always()"
    assert set(verdict.INFORMS) | set(verdict.ALWAYS) | set(changes.JOBS) == set(jobs) - {"ci"}


@pytest.mark.parametrize("job", changes.JOBS)
def test_a_job_runs_exactly_when_the_change_needs_it_and_keeps_what_it_found(job):
    content = read("ci")["jobs"]
    assert content[job]["if"] == f"needs.changes.outputs.{job} == 'true'"
    needs = content[job]["needs"]
    assert "changes" in needs
    assert content["changes"]["outputs"][job] == f"${{{{ steps.changes.outputs.{job} }}}}"
    assert [step["run"] for step in content[job]["steps"] if "run" in step] == [f"make ci-{job}"]
    kept = content[job]["steps"][-1]
    assert kept["uses"].startswith("actions/upload-artifact@")
    assert kept["if"] == "always()"
    assert kept["with"]["name"] == f"outcome-{job}"
    assert kept["with"]["include-hidden-files"] is True


def test_the_bills_of_materials_are_kept_with_the_outcome_and_the_scanners_database_is_not():
    kept = ROOT / read("ci")["jobs"]["images"]["steps"][-1]["with"]["path"]
    scanner = scanners.named({scanners.SCANNER_ENV: "trivy"}, state=ROOT / ".flightdeck", root=ROOT)
    assert isinstance(scanner, scanners.Trivy)
    assert (ROOT / ".flightdeck" / bill.FOLDER).is_relative_to(kept)
    assert not scanner.cache.is_relative_to(kept), "hundreds of megabytes in every run's artefacts"


@pytest.mark.parametrize(
    ("job", "name", "value"),
    [("manifests", alerts.PULL_ENV, "1"), ("images", scanners.SCANNER_ENV, "trivy")],
)
def test_what_needs_the_network_runs_on_github_and_elsewhere_only_when_asked(job, name, value):
    (environment,) = [step["env"] for step in read("ci")["jobs"][job]["steps"] if "run" in step]
    assert environment[name] == f"${{{{ !env.ACT && '{value}' || env.{name} }}}}"


def test_check_and_changes_run_for_every_change():
    jobs = read("ci")["jobs"]
    assert not {"if", "needs"} & set(jobs["check"])
    assert not {"if", "needs"} & set(jobs["changes"])


def test_the_targets_in_order_are_those_of_the_workflow():
    gates = re.search(r"^GATES := (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert gates
    assert {*gates[1].split(), "e2e"} == {"check", *changes.JOBS}


def test_ci_has_its_own_group_per_pull_request_and_a_deploy_is_never_cancelled():
    assert read("ci")["concurrency"] == {
        "group": "ci-${{ github.event.pull_request.number || github.sha }}", "cancel-in-progress": True,
    }  # fmt: skip
    for name in ("cd", "train", "release"):
        assert read(name)["concurrency"]["cancel-in-progress"] is False
    for environment in ("dev", "staging", "production"):
        job = read("cd")["jobs"][environment]
        assert job["environment"] == environment
        assert job["concurrency"] == {"group": f"deploy-{environment}", "cancel-in-progress": False}


def test_environments_follow_each_other_and_nothing_goes_without_cis_word():
    jobs = read("cd")["jobs"]
    assert "passed" in jobs["dev"]["needs"]
    assert jobs["staging"]["needs"] == "dev"
    assert jobs["production"]["needs"] == "staging"
    built = [job for job, step in steps("cd") if step.get("run") == "make images"]
    assert built == ["images"], "built once"


def test_a_training_from_outside_can_only_name_a_model_that_has_a_rollout():
    names = sorted(path.name.removesuffix(".rollout.yaml") for path in (ROOT / "specs").glob("*.rollout.yaml"))
    assert triggers("train")["workflow_dispatch"]["inputs"]["spec"]["options"] == names
    listed = re.findall(r"fromJSON\('(.*?)'\)", read("train")["jobs"]["train"]["if"])
    assert [yaml.safe_load(it) for it in listed] == [names]


def test_a_label_is_never_a_command(tmp_path):
    for number, label in enumerate(
        ["$(shell touch {})", "`touch {}`", "$(touch {})", "; touch {} #", "' && touch {} '"]
    ):
        planted = tmp_path / str(number)
        environment = {
            **os.environ, "FLIGHTDECK_LABELS": label.format(planted), "FLIGHTDECK_BASE": label.format(planted),
            "GITHUB_HEAD_REF": label.format(planted), "GITHUB_OUTPUT": str(tmp_path / "out"),
        }  # fmt: skip
        done = subprocess.run(
            ["make", "ci-changes"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert not planted.exists(), label


def test_a_registry_is_written_in_small_letters():
    argv = ["make", "--no-print-directory", "--eval", "shown:\n\t@echo '$(REGISTRY)/x' \"$$REGISTRY/x\"", "shown"]
    environment = {**os.environ, "REGISTRY": "ghcr.io/Some-Owner/Flightdeck"}
    done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == " ".join(["ghcr.io/some-owner/flightdeck/x"] * 2)


def test_bots_keep_every_kind_of_pin_fresh():
    kinds = {
        it["package-ecosystem"] for it in yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())["updates"]
    }
    assert kinds == {"github-actions", "pip", "gomod", "docker"}
