"""`flightdeck ci check|integration|e2e`: the gates that are commands anyone can run, each kept as an outcome."""

from __future__ import annotations

import os
import shutil
import sys

from flightdeck.delivery.outcome import Finding, Outcome
from flightdeck.delivery.parts import Part, run_parts, shown

REQUIRED_ENV = "FLIGHTDECK_E2E_REQUIRED"  # set: what cannot be run has failed
LEFT_OUT_ENV = "FLIGHTDECK_E2E_LEFT_OUT"  # why it must not run here, as the local remote says beside a cluster in use
CLUSTER_TOOLS = ("docker", "kind", "kubectl", "helm")
READ = "read the first failure above; the name of a test is the rule it holds. Run that test alone: "
ALONE = f"{READ}.venv/bin/python -m pytest -n0 FILE::TEST"
BANNER = "#" * 80


def _make(*words: str) -> tuple[str, ...]:
    return ("make", "--no-print-directory", *words)


def _pytest(*words: str) -> tuple[str, ...]:
    argv = (sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-m", "not exhaustive", "--durations=5")
    return (*argv, *os.environ.get("PYTEST_ARGS", "").split(), *words)


CHECK = (
    Part("lint", _make("lint"), "`make format` writes the style; mend by hand what `make lint` still names"),
    Part("types", _make("types"), "mend what `make types` names; it is an error that a user would meet"),
    Part("import rules", _make("imports"), "move the import; docs/architecture.md says which part may know which"),
    Part("workflows", _make("workflows"), "mend what `make workflows` names; docs/ci-cd.md has the rules"),
    Part("unit and contract tests", _pytest("tests/unit", "tests/contract"), ALONE, costly=True),
)  # fmt: skip
INTEGRATION = (
    Part("tests with local processes, models and planted failures",
         _pytest("tests/integration", "tests/planted", "tests/workflows"),  # tests/behaviour: the gate `models`
         ALONE),
    Part("the main job", _make("lab"), "read the step that failed above and docs/lab.md; run `make lab` again"),
)  # fmt: skip
E2E = (
    Part("make up", _make("up", "CLUSTER=kind"), "the message names what fell short; `make status` says more",
         hold=True),
    Part("make e2e", _make("e2e"), f"{READ}make up CLUSTER=kind && make e2e PYTEST_ARGS='-k TEST'"),
)  # fmt: skip
DOWN = Part("make down", _make("down"), "run `make down` again; it says what it could not take away")


def check() -> None:
    """Lint, types, import rules, workflows, pages, unit and contract tests. Example: flightdeck ci check"""
    from flightdeck.cli.ci import finish

    finish(lambda: run_parts("check", CHECK, run=shown))


def integration() -> None:
    """Tests with local processes and models, and the main job on raw data. Example: flightdeck ci integration"""
    from flightdeck.cli.ci import finish

    finish(lambda: run_parts("integration", INTEGRATION, run=shown))


def e2e() -> None:
    """A kind cluster of its own: `make up`, `make e2e`, `make down`. Example: flightdeck ci e2e"""
    from flightdeck.cli.ci import finish

    finish(_in_kind)


def _in_kind() -> Outcome:
    if why := os.environ.get(LEFT_OUT_ENV):
        return not_run(why)
    if absent := [tool for tool in CLUSTER_TOOLS if shutil.which(tool) is None]:
        return without(absent, required=bool(os.environ.get(REQUIRED_ENV)))
    os.environ[REQUIRED_ENV] = "1"  # from here on a cluster's test that is skipped has failed
    return run_parts("e2e", E2E, run=shown, last=DOWN)


def without(absent: list[str], *, required: bool) -> Outcome:
    """The outcome where the cluster's tools are absent: refused where they are required, else loudly not run."""
    names = ", ".join(absent)
    if required:
        what = f"the cluster's tests cannot run: {names} not on the PATH"
        return Outcome(gate="e2e", findings=(Finding(what=what, do=f"install {names}"),))
    return not_run(f"{names} is not on the PATH")


def not_run(why: str) -> Outcome:
    """Loudly: the outcome of a gate that was left out."""
    words = f"the cluster's tests, since {why}"
    print(f"{BANNER}\n# NOT RUN: {words}\n{BANNER}", flush=True)
    return Outcome(gate="e2e", not_run=(words,))
