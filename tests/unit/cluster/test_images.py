"""Building and pushing, with a program in Docker's place that notes what it is asked."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flightdeck.cluster import images
from flightdeck.cluster.commands import CommandFailed

DIGEST = "sha256:" + "a" * 64
FAKE = f"""#!/bin/sh
echo "$@" >> "$FAKE_LOG"
case "$1 $2" in
"image inspect")
  case "$5" in
  *RepoDigests*) echo '["localhost:5001/flightdeck/mlflow@{DIGEST}"]' ;;
  *) if [ -e "$FAKE_LOG.built" ]; then echo 500000000; else echo "Error: No such image: $3" >&2; exit 1; fi ;;
  esac ;;
"build --file")
  if [ -n "$FAKE_FAILS" ]; then echo "step 3 of 4" >&2; echo "THESE PACKAGES DO NOT MATCH THE HASHES" >&2; exit 1; fi
  touch "$FAKE_LOG.built" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    for path, text in {
        "images/mlflow/Dockerfile": "FROM x\n",
        "requirements/tracking.txt": "mlflow==3\n",
        "flightdeck/cli/main.py": "",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.fixture
def asked(tmp_path, monkeypatch):
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(FAKE)
    (folder / "docker").chmod(0o755)
    log = tmp_path / "asked"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_LOG", str(log))
    return lambda: log.read_text().splitlines() if log.exists() else []


def test_a_change_of_an_input_makes_another_tag_and_any_other_change_does_not(checkout):
    before = images.content_of("mlflow", checkout)
    (checkout / "flightdeck/cli/main.py").write_text("changed\n")
    assert images.content_of("mlflow", checkout) == before
    (checkout / "requirements/tracking.txt").write_text("mlflow==4\n")
    assert images.content_of("mlflow", checkout) != before


def test_what_is_there_is_not_built_again(checkout, asked):
    first, second = (images.build("mlflow", root=checkout) for _ in range(2))
    assert (first.fresh, second.fresh) == (True, False)
    assert first.tag == second.tag
    assert len([line for line in asked() if line.startswith("build ")]) == 1


def test_labels_name_the_last_commit_that_changed_the_image_and_whether_it_was_changed_since(checkout, asked):
    def git(*args: str) -> str:
        author = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(["git", *author, *args], cwd=checkout, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    commit = git("rev-parse", "HEAD")
    (checkout / "flightdeck/cli/main.py").write_text("changed\n")
    git("commit", "-q", "-a", "-m", "of no concern to this image")
    images.build("mlflow", root=checkout)
    assert f"REVISION={commit} " in asked()[-2]
    (checkout / "requirements/tracking.txt").write_text("mlflow==4\n")
    (checkout / "asked.built").unlink()
    images.build("mlflow", root=checkout)
    assert f"REVISION={commit}-dirty " in asked()[-2]


def test_a_failed_build_shows_the_last_lines(checkout, asked, monkeypatch):
    monkeypatch.setenv("FAKE_FAILS", "1")
    with pytest.raises(CommandFailed, match="DO NOT MATCH THE HASHES"):
        images.build("mlflow", root=checkout)


def test_without_docker_the_message_says_what_to_install(checkout, monkeypatch):
    monkeypatch.setenv("PATH", str(checkout))
    with pytest.raises(CommandFailed, match="docker is not on the PATH: install Docker"):
        images.build("mlflow", root=checkout)


def test_a_push_gives_a_digest_and_keeps_it_for_the_deploy(checkout, asked):
    reference = images.push("mlflow", "localhost:5001/flightdeck", state=checkout / "state")
    assert reference == f"localhost:5001/flightdeck/mlflow@{DIGEST}"
    assert images.pushed(checkout / "state") == {"flightdeck/mlflow": reference}
    assert json.loads((checkout / "state" / "images.json").read_text())["digests"] == {"flightdeck/mlflow": reference}


def test_the_command_that_runs_each_night_finds_all_its_code_in_the_image(tmp_path: Path):
    for item in images.INPUTS["pipelines"]:
        source, target = images.CHECKOUT / item, tmp_path / item
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    environment = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        (sys.executable, "-m", "flightdeck.cli", "data", "upkeep"), cwd=tmp_path, capture_output=True, text=True,
        env={**environment, "PYTHONPATH": str(tmp_path), "FLIGHTDECK_STATE": str(tmp_path / "state")}, check=False,
    )  # fmt: skip
    assert "no MLflow server is named" in done.stderr, done.stderr


def test_a_base_by_digest_is_given_to_the_build_and_makes_another_tag(checkout, asked, monkeypatch):
    by_tag = images.content_of("mlflow", checkout)
    pins = checkout / "images" / "pins"
    pins.mkdir()
    (pins / "base.Dockerfile").write_text(f"# why\nFROM python:3.11@{DIGEST}\n")
    monkeypatch.setenv("FLIGHTDECK_BASE_IMAGE", "pinned")
    built = images.build("mlflow", root=checkout)
    assert f"--build-arg BASE=python:3.11@{DIGEST}" in asked()[-2]
    assert not built.tag.endswith(by_tag)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [("python:3.11", "may be another image tomorrow"), ("pinned", "names no image by tag and digest")],
)
def test_a_base_that_floats_or_is_not_there_is_refused(checkout, monkeypatch, wanted, words):
    monkeypatch.setenv("FLIGHTDECK_BASE_IMAGE", wanted)
    with pytest.raises(CommandFailed, match=words):
        images.content_of("mlflow", checkout)


def test_an_image_without_a_budget_is_refused(checkout, asked):
    images.build("mlflow", root=checkout)
    (checkout / "images" / "budget.yaml").write_text("base: b\nabove_base_mb: {}\n")
    with pytest.raises(CommandFailed, match=r"mlflow has no budget; .* into budget\.yaml"):
        images.sizes(checkout, names=("mlflow",))


def test_a_budget_that_is_none_is_refused_with_what_to_write(checkout, asked):
    (checkout / "images" / "budget.yaml").write_text("above_base_mb: 3\n")
    with pytest.raises(CommandFailed, match="is no budget: write `base: image`"):
        images.sizes(checkout, names=("mlflow",))
