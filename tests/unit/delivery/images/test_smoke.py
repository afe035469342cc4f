"""A container of a smoke run never stays behind, and an image that has no smoke run is told."""

from __future__ import annotations

import types

import pytest

from flightdeck.cluster.commands import CommandFailed
from flightdeck.delivery.images import gate, scanners, smoke

FAILS = {
    "run": 'echo "no such image" >&2; exit 125',
    "wait": "echo 3",
    "rm": "exit 1",
}


@pytest.fixture
def docker(tmp_path, monkeypatch):
    """A program in Docker's place that fails at these words; returns what it was asked, in order."""
    log = tmp_path / "asked"

    def fail_at(*words):
        cases = "\n".join(f"{word}) {FAILS[word]} ;;" for word in words)
        text = f'#!/bin/sh\necho "$1" >> {log}\ncase "$1" in\n{cases}\nwait) echo 0 ;;\nesac\n'
        (tmp_path / "docker").write_text(text)
        (tmp_path / "docker").chmod(0o755)
        return lambda: log.read_text().split()

    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return fail_at


@pytest.mark.parametrize(
    ("fails", "words", "asked"),
    [
        (("run",), "no such image", ["run", "logs", "rm"]),
        (("run", "rm"), "no such image", ["run", "logs", "rm"]),
        (("wait",), "ended with 3", ["run", "wait", "logs", "rm"]),
    ],
)
def test_a_container_is_removed_however_it_ended(docker, tmp_path, fails, words, asked):
    seen = docker(*fails)
    with pytest.raises(CommandFailed, match=words):
        smoke.smoke("operator", "flightdeck/operator:x", tmp_path)
    assert seen() == asked


def test_one_that_works_is_removed_too(docker, tmp_path):
    seen = docker()
    assert smoke.smoke("operator", "flightdeck/operator:x", tmp_path) >= 0
    assert seen() == ["run", "wait", "rm"]


def test_an_image_without_a_smoke_run_is_refused_with_where_to_add_one(tmp_path, monkeypatch):
    built = types.SimpleNamespace(tag="flightdeck/fresh:x")
    size = types.SimpleNamespace(ok=True, above_mb=1.0, budget_mb=2.0)
    monkeypatch.setattr(gate.images, "build", lambda name, **_: built)
    monkeypatch.setattr(gate.images, "sizes", lambda *_, **__: (size,))
    monkeypatch.setattr(gate, "_read", lambda *_, **__: (3, None))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "vulnerabilities.yaml").write_text(
        "blocks_from: high\nblocks_unfixed_base: false\nrequired: false\nlongest_days: 90\nexceptions: []\n"
    )
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "a.txt").write_text("a==1\n")
    found = gate.judge(
        ["fresh"], root=tmp_path, state=tmp_path, environment={scanners.SCANNER_ENV: ""},
        today=gate.dt.date(2026, 1, 1), all_names=["fresh"],
    )  # fmt: skip
    (finding,) = found.findings
    assert finding.what == "no smoke run for fresh: nothing shows that it works"
    assert finding.do == "add one to SMOKES in flightdeck/delivery/images/smoke.py"
