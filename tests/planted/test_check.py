"""Bad code as a developer would commit it: `make ci-check` is red and says what to do."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from flightdeck.cli.ci_parts import CHECK
from flightdeck.delivery.outcome import Found, Outcome
from flightdeck.delivery.parts import Part, run_parts

ROOT = Path(__file__).parents[2]
PARTS = {part.name: part for part in CHECK}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the repository's files, to be spoilt."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    return tmp_path


def gate(tree: Path, *parts: Part) -> Outcome:
    """The gate's parts in that tree, with the packages that are here."""

    def run(argv: Sequence[str]) -> tuple[int, str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "PYTEST_"))}
        done = subprocess.run(list(argv), cwd=tree, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return run_parts("check", parts, run=run)


def installed(name: str) -> Part:
    """A part of the real gate; what it needs is there already (`-o`: make does not look after it)."""
    part = PARTS[name]
    return dataclasses.replace(part, argv=("make", "-o", "setup-dev", f"VENV={sys.prefix}", *part.argv[1:]))


def add(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_the_tree_as_it_is_passes(tree: Path):
    assert gate(tree, installed("lint"), installed("import rules"), installed("workflows")).found is Found.PASSED


def test_a_style_error_is_refused(tree: Path):
    add(tree / "pipelines/clock.py", "\nimport os\n\ndef bad( a ):\n    return eval(a)\n")
    found = gate(tree, installed("lint"))
    assert found.found is Found.FAILED
    assert "make format" in found.findings[0].do


@pytest.mark.slow
def test_a_wrong_type_is_refused(tree: Path):
    add(tree / "flightdeck/delivery/changes.py", '\n\ndef wrong() -> int:\n    """Not a number."""\n    return "1"\n')
    found = gate(tree, installed("types"))
    assert found.found is Found.FAILED
    assert "make types" in found.findings[0].do


def test_an_import_in_the_forbidden_direction_is_refused(tree: Path):
    add(tree / "pipelines/clock.py", "\nimport services.predictor.schema  # noqa: E402, F401\n")
    found = gate(tree, installed("import rules"))
    assert found.found is Found.FAILED
    assert "docs/architecture.md" in found.findings[0].do


def test_a_broken_rule_is_refused_by_its_unit_test(tree: Path):
    path = tree / "flightdeck/delivery/verdict.py"
    path.write_text(path.read_text().replace('result == "success" or', 'result in ("success", "cancelled") or'))
    part = PARTS["unit and contract tests"]
    words = (
        sys.executable,
        "-m",
        "pytest",
        "-n0",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/unit/delivery/test_changes.py",
    )
    found = gate(tree, dataclasses.replace(part, argv=words))
    assert found.found is Found.FAILED
    assert "read the first failure above" in found.findings[0].do
    assert "failed" in found.says[0]


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ("run: make ci-changes", "run: echo ${{ github.event.pull_request.title }}"),
        ("actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "actions/checkout@v7"),
        ("  pull_request:\n", "  pull_request_target:\n"),
        ("needs: [changes, check]", "needs: [changes, chekc]"),
    ],
    ids=["a title in a script", "a floating action", "pull_request_target", "a job that is not there"],
)
def test_a_workflow_that_can_be_led_astray_is_refused(tree: Path, was: str, is_now: str):
    path = tree / ".github/workflows/ci.yml"
    assert was in path.read_text()
    path.write_text(path.read_text().replace(was, is_now, 1))
    found = gate(tree, installed("workflows"))
    assert found.found is Found.FAILED
    assert "make workflows" in found.findings[0].do
