"""Which jobs a change needs, and whether it may go in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flightdeck.cluster import images
from flightdeck.delivery import changes, verdict

ROOT = Path(__file__).parents[3]


def test_a_page_needs_no_further_job_than_check():
    assert changes.jobs_for(["README.md", "docs/data.md", "docs/pictures/canary.png"]) == frozenset()


def test_a_path_that_no_rule_knows_needs_every_job():
    assert changes.jobs_for(["something/new.py"]) == changes.ALL
    assert changes.jobs_for(["README.md", "something/new.py"]) == changes.ALL


@pytest.mark.parametrize(
    "path", ["pyproject.toml", "requirements/dev.txt", "Makefile", ".github/workflows/ci.yml", ".ci/run",
             "flightdeck/contracts/release.py", "flightdeck/delivery/changes.py", "flightdeck/cli/ci.py"],
)  # fmt: skip
def test_what_everything_rests_on_needs_every_job(path):
    assert changes.jobs_for([path]) == changes.ALL


def test_a_feature_needs_everything_and_a_manifest_only_the_cluster():
    assert changes.jobs_for(["feature_repo/definitions.py"]) == changes.ALL
    assert changes.jobs_for(["k8s/base/kustomization.yaml"]) == {"manifests", "e2e"}


def test_every_rule_fits_a_file_of_the_repository():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for pattern, _ in changes.RULES:
        assert any(changes.fnmatch.fnmatchcase(path, pattern) for path in listed), f"{pattern} fits no file"


def test_what_goes_into_an_image_needs_the_images():
    for name, inputs in images.INPUTS.items():
        for path in inputs:
            below = path if (ROOT / path).is_file() else f"{path}/module.py"
            assert "images" in changes.jobs_for([below]), f"{below} goes into the image {name}"


def git(*args: str, cwd: Path) -> str:
    argv = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false", *args]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=True).stdout.strip()


def test_changes_are_those_since_the_common_ancestor(tmp_path: Path):
    git("init", "-q", "-b", "main", cwd=tmp_path)
    (tmp_path / "k8s").mkdir()
    (tmp_path / "k8s" / "a.yaml").write_text("a: 1\n" * 9)
    git("add", "-A", cwd=tmp_path)
    git("commit", "-qm", "first", cwd=tmp_path)
    git("checkout", "-qb", "branch", cwd=tmp_path)
    git("mv", "k8s/a.yaml", "page.md", cwd=tmp_path)
    git("commit", "-qm", "move", cwd=tmp_path)
    git("checkout", "-q", "main", cwd=tmp_path)
    (tmp_path / "else.py").write_text("1\n")
    git("add", "-A", cwd=tmp_path)
    git("commit", "-qm", "main goes on", cwd=tmp_path)
    base = git("rev-parse", "HEAD", cwd=tmp_path)
    git("checkout", "-q", "branch", cwd=tmp_path)

    assert changes.changed(base, root=tmp_path) == ["k8s/a.yaml", "page.md"], "both names of what was moved, not main's"


@pytest.mark.parametrize("base", ["", "0" * 40, "f" * 40, "--output=/tmp/x", "main; rm -rf ."])
def test_a_base_that_is_no_commit_of_the_repository_leaves_the_change_unknown(base):
    assert changes.changed(base, root=ROOT) is None


def test_the_workflow_reads_one_line_for_each_job():
    lines = changes.outputs(frozenset({"e2e"})).splitlines()
    assert len(lines) == len(changes.JOBS)
    assert "e2e=true" in lines
    assert "data=false" in lines


def needs(**results: str) -> dict[str, dict[str, object]]:
    wanted = dict.fromkeys(changes.JOBS, "true") | {"data": "false"}
    every = dict.fromkeys((*verdict.ALWAYS, *changes.JOBS), "success") | results
    return {job: {"result": result, "outputs": wanted if job == "changes" else {}} for job, result in every.items()}


def test_a_job_skipped_on_purpose_is_no_refusal():
    assert verdict.refusals(needs(data="skipped")) == []


@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
@pytest.mark.parametrize("job", ["check", "changes", "e2e"])
def test_a_needed_job_that_did_not_succeed_refuses(job, result):
    found = verdict.refusals(needs(**{job: result}))
    assert [line for line in found if line.startswith(f"{job}: {result}")]


def test_a_job_that_was_not_needed_but_failed_refuses():
    assert verdict.refusals(needs(data="failure")) == ["data: failure"]


def test_without_the_word_of_changes_nothing_may_be_skipped():
    silent = needs(data="skipped")
    silent["changes"]["outputs"] = {}
    assert verdict.refusals(silent)
    assert {line.split(":")[0] for line in verdict.refusals({})} == set(verdict.ALWAYS)


def test_a_comment_that_could_not_be_written_stops_nobody():
    assert verdict.refusals(needs(report="failure")) == []


def test_the_exit_code_is_the_verdict(monkeypatch, capsys):
    monkeypatch.setenv(verdict.NEEDS_ENV, json.dumps(needs(data="skipped")))
    assert verdict.main() == 0
    assert "not needed by this change: data" in capsys.readouterr().out
    monkeypatch.setenv(verdict.NEEDS_ENV, json.dumps(needs(e2e="failure")))
    assert verdict.main() == 1
    assert "e2e: failure" in capsys.readouterr().err
    monkeypatch.setenv(verdict.NEEDS_ENV, "")
    assert verdict.main() == 1
