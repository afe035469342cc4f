"""What CD and a release ask: CI's word, digests to sign, files with checksums. What cannot be known is a refusal."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flightdeck.cli import ci_release
from flightdeck.cli.ci import app
from flightdeck.delivery import release_files, signing
from flightdeck.delivery.release_files import NoRelease

DIGEST = "sha256:" + "a" * 64
PROJECT = '[project]\nname = "x"\nversion = "1.2.3"\n'
CHANGELOG = "# Changelog\n\n## Unreleased\n\n- later\n\n## 1.2.3 - 2026-11-28\n\n- a thing\n\n## 1.2.2\n\n- old\n"


def silent(line: str) -> None:
    return None


def test_the_verdict_is_that_of_the_newest_run_once_it_has_ended():
    answers = iter([[None, "failure"], [None], ["success", "failure"]])
    assert ci_release.wait(lambda: next(answers), tell=silent, sleep=silent) == "success"


def test_a_commit_without_a_check_is_not_waited_for_long():
    looks: list[float] = []
    assert "no check" in ci_release.wait(lambda: [], tell=silent, sleep=looks.append)
    assert len(looks) == 10


def test_a_check_that_never_ends_is_no_pass():
    assert "did not end" in ci_release.wait(lambda: [None], tell=silent, sleep=silent)


@pytest.mark.parametrize(("act", "code", "words"), [("", 1, "nothing is deployed"), ("true", 0, "NOT RUN")])
def test_without_an_answer_of_github_nothing_is_deployed_but_under_act_it_is_said(act, code, words, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_API_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ACT", act)
    told = CliRunner().invoke(app, ["passed"])
    assert told.exit_code == code, told.output
    assert words in told.output


def test_each_image_is_named_by_digest_with_its_bill(tmp_path: Path):
    (tmp_path / "s" / "ci" / "sbom").mkdir(parents=True)
    (tmp_path / "s" / "ci" / "sbom" / "operator.cdx.json").write_text("{}")
    pushed = {"flightdeck/predictor": f"ghcr.io/o/r/predictor@{DIGEST}", "flightdeck/operator": f"ghcr.io/o/r/operator@{DIGEST}"}  # fmt: skip  # noqa: E501
    found = signing.subjects(pushed, tmp_path / "s", root=tmp_path)
    assert json.loads(signing.matrix(found)) == [
        {"name": "ghcr.io/o/r/operator", "digest": DIGEST, "bill": "s/ci/sbom/operator.cdx.json"},
        {"name": "ghcr.io/o/r/predictor", "digest": DIGEST, "bill": ""},
    ]


@pytest.mark.parametrize(
    "pushed", [{}, {"a": "ghcr.io/o/r/a:tag"}, {"a": f"ghcr.io/O/r/a@{DIGEST}"}, {"a": f"ghcr.io/o/r /a@{DIGEST}"}]
)
def test_what_is_not_pushed_by_digest_in_small_letters_is_refused(pushed, tmp_path: Path):
    with pytest.raises(ValueError):
        signing.subjects(pushed, tmp_path, root=tmp_path)


@pytest.mark.parametrize(("act", "code"), [("", 1), ("true", 0)])
def test_on_github_an_image_that_cannot_be_signed_is_a_failure(act, code, tmp_path, monkeypatch):
    monkeypatch.delenv("ACTIONS_ID_TOKEN_REQUEST_URL", raising=False)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("ACT", act)
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "out"))
    (tmp_path / "images.json").write_text(json.dumps({"digests": {"flightdeck/a": f"ghcr.io/o/r/a@{DIGEST}"}}))
    told = CliRunner().invoke(app, ["sign", "--state", str(tmp_path)])
    assert told.exit_code == code, told.output
    assert (tmp_path / "out").read_text().startswith('images=[{"name": "ghcr.io/o/r/a"')


def test_a_release_takes_the_section_of_its_version():
    assert release_files.version_of("v1.2.3", PROJECT) == "1.2.3"
    assert release_files.notes("1.2.3", CHANGELOG) == "- a thing\n"


@pytest.mark.parametrize("tag", ["v1.2.4", "1.2.3", "v1", "v1.2.3$(id)", "v1.2.3/../../x", ""])
def test_a_tag_that_is_not_the_projects_version_is_no_release(tag):
    with pytest.raises(NoRelease):
        release_files.version_of(tag, PROJECT)


@pytest.mark.parametrize(
    "changelog", ["# Changelog\n\n## Unreleased\n\n- x\n", "## 1.2.3\n\n## 1.2.2\n\n- x\n", "## 1.2.31\n\n- x\n"]
)
def test_a_release_without_notes_is_none(changelog):
    with pytest.raises(NoRelease, match="CHANGELOG"):
        release_files.notes("1.2.3", changelog)


def test_the_checksums_are_read_by_sha256sum(tmp_path: Path):
    release_files.write(tmp_path, {"b.yaml": "b: 1\n", "a.yaml": "é\n"})
    subprocess.run(["sha256sum", "--check", "--strict", release_files.SUMS], cwd=tmp_path, check=True)
