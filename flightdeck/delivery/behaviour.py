"""Adapter: the models' behaviour tests (tests/behaviour) in a process of their own, as part of the gate `models`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

from flightdeck.contracts.model_spec import CHECKOUT
from flightdeck.delivery.model_gate import GATE
from flightdeck.delivery.outcome import Finding, Outcome

FOLDER = Path("tests") / "behaviour"
TIMEOUT_S = 900


def check(checkout: Path = CHECKOUT) -> Outcome:
    """Every test there, each failed one a finding; none at all is a finding too."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = (sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", f"--junitxml={report}")
        try:
            done = subprocess.run(
                (*words, str(FOLDER)), cwd=checkout, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
            )
            text = report.read_text() if report.is_file() else ""
        except subprocess.TimeoutExpired:
            return outcome_of("", 1, f"not done after {TIMEOUT_S} s")
    return outcome_of(text, done.returncode, "\n".join((done.stdout + done.stderr).strip().splitlines()[-5:]))


def outcome_of(report: str, code: int, tail: str) -> Outcome:
    """What a JUnit report says; a run without one has failed.

    Args:
        code: pytest's exit code. tail: its last lines.
    """
    cases = ElementTree.fromstring(report).iter("testcase") if report else iter(())  # noqa: S314  our own pytest's
    ran, findings, not_run = 0, [], []
    for case in cases:
        name = str(case.get("name"))
        broken = [it for kind in ("failure", "error") if (it := case.find(kind)) is not None]
        skipped = case.find("skipped")
        if skipped is not None:
            not_run.append(f"behaviour test {name}: {skipped.get('message')}")
            continue
        ran += 1
        if broken:
            words = " ".join(str(broken[0].get("message")).split())[:300]
            findings.append(
                Finding(
                    what=f"behaviour test {name} fails: {words}",
                    do=f"the test's name is the rule: python -m pytest -n0 {FOLDER} -k {name.partition('[')[0]}",
                )
            )
    if not findings and (code or not ran):
        findings.append(
            Finding(what=f"the behaviour tests did not run: {tail}", do=f"run python -m pytest -n0 {FOLDER}")
        )
    says = (f"{ran - len(findings)} of {ran} behaviour tests pass",) if ran else ()
    return Outcome(gate=GATE, findings=tuple(findings), says=says, not_run=tuple(not_run))
