"""Run a workflow of this checkout here with `act`, every step for real, and say which share of its steps ran.

    python -m flightdeck.delivery.act ci.yml

Only the standard library: it runs before anything is installed, and from a hook. Jobs run one after another, each in a
checkout of its own, all with one environment of packages; actions that only GitHub can do are the stand-ins below
tests/workflows/actions. What the gates kept comes to `ci/` of the state folder (FLIGHTDECK_STATE, else .flightdeck).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

WORKFLOWS = Path(".github") / "workflows"
STAND_INS = Path("tests") / "workflows" / "actions"
STATE_ENV, ARTEFACTS_ENV, VENV_ENV = "FLIGHTDECK_STATE", "FLIGHTDECK_ACT_ARTEFACTS", "VENV"
RUNNER = "ubuntu-24.04"
SIGNS = ("⭐", "✅", "❌", "🏁")  # how act begins a line of its own
BUILT_IN = ("actions/checkout",)  # act does it itself
USES = re.compile(r"uses:\s*([\w.-]+/[\w.-]+)(?:/[\w./-]+)?@([0-9a-f]{40})")
STEP = re.compile(r"^\s*(?:- )?run: make ", re.M)
# What leads a job elsewhere: git's of a hook, make's of a caller, an outer workflow's, and our own places.
UNWANTED = re.compile(
    r"^(GIT_|GITHUB_|RUNNER_|ACTIONS_|MAKE|MFLAGS|FLIGHTDECK_(STATE|ACT_)|VIRTUAL_ENV$|PYTHON(PATH|HOME)$|VENV$)"
)


class CannotRun(RuntimeError):
    """The workflow cannot be run here; the words say what is missing."""


@dataclasses.dataclass
class Job:
    """One job as act tells it. took_s: real time, seconds."""

    name: str
    result: str = "not run"
    began_s: float = 0.0
    took_s: float = 0.0


@dataclasses.dataclass
class Ran:
    """What came of a run.

    Args:
        executed: (job, step) of each `run:` step that was executed, whatever came of it.
        steps: how many `run:` steps the workflow has.
    """

    steps: int
    executed: set[tuple[str, str]] = dataclasses.field(default_factory=set)
    jobs: dict[str, Job] = dataclasses.field(default_factory=dict)
    code: int = 0

    @property
    def share(self) -> float:
        """Of the steps that were executed, 0 to 1."""
        return len(self.executed) / self.steps if self.steps else 0.0

    def hear(self, event: Mapping[str, Any], now_s: float) -> str:
        """Take in one line of act's JSON; returns what people see of it, "" for nothing."""
        name = str(event.get("jobID") or "")
        words, step = str(event.get("msg", "")).rstrip("\n"), str(event.get("step") or "")
        if not name:
            return words if event.get("level") in ("warning", "error", "fatal") else ""
        job = self.jobs.setdefault(name, Job(name, began_s=now_s))
        if result := event.get("jobResult"):
            # Of a matrix the worst counts.
            job.result = "failure" if job.result == "failure" else str(result)
            job.took_s = now_s - job.began_s
        path = event.get("stepID") or []
        if event.get("stepResult") in ("success", "failure") and len(path) == 1 and step.startswith("make "):
            self.executed.add((name, str(path[0])))
        if event.get("raw_output"):
            return f"[{name}] | {words}"
        machinery = event.get("stage") in ("Pre", "Post") or words.rstrip().endswith(("Set up job", "Complete job"))
        own = words.strip().startswith(SIGNS) and not machinery and len(path) <= 1
        return f"[{name}] {words.strip()}" if own or event.get("level") in ("error", "fatal") else ""

    def table(self) -> list[str]:
        """Jobs with results and times, then the share of executed steps."""
        width = max([len(name) for name in self.jobs], default=3)
        lines = [f"  {it.name:<{width}}  {it.result:<8} {it.took_s:6.0f} s" for it in self.jobs.values()]
        return [*lines, f"act executed {len(self.executed)} of {self.steps} run: steps ({100 * self.share:.0f} %)"]


def stand_ins(texts: Iterable[str], folder: Path) -> list[str]:
    """Options that put our stand-in in the place of each pinned action.

    Raises:
        CannotRun: an action has no stand-in.
    """
    used = sorted({found for text in texts for found in USES.findall(text) if found[0] not in BUILT_IN})
    absent = sorted({name for name, _ in used if not (folder / name).is_dir()})
    if absent:
        raise CannotRun(f"no stand-in below {folder} for {', '.join(absent)}; write one, or do it in a make target")
    return [word for name, commit in used for word in ("--local-repository", f"{name}@{commit}={folder / name}")]


def environment(given: Mapping[str, str], home: Path) -> dict[str, str]:
    """What act and the steps find: nothing that leads them out of their checkout; one environment for all jobs."""
    kept = {name: value for name, value in given.items() if not UNWANTED.match(name)}
    return {**kept, ARTEFACTS_ENV: str(home / "artefacts"), VENV_ENV: str(home / "venv"), "PYTHONUNBUFFERED": "1"}


def event_of(given: Mapping[str, str], before: str) -> dict[str, Any]:
    """What GitHub would tell of a push: where the branch was, and the labels of FLIGHTDECK_LABELS."""
    labels = [{"name": name} for name in given.get("FLIGHTDECK_LABELS", "").split(",") if name]
    return {"before": before, "pull_request": {"labels": labels}} if labels else {"before": before}


def variables(given: Mapping[str, str]) -> list[str]:
    """Options for the repository's variables that this machine's environment names."""
    card = given.get("FLIGHTDECK_CHAMPION_CARD")
    return ["--var", f"CHAMPION_CARD={card}"] if card else []


def run(
    workflow: str, *, root: Path, home: Path, event: str = "push", payload: Mapping[str, Any] | None = None,
    options: Sequence[str] = (), log: TextIO = sys.stdout,
) -> Ran:  # fmt: skip
    """Run it and show it live.

    Args:
        workflow: its file's name.
        root: the checkout.
        home: folder for packages and artefacts, kept for the next run.
        payload: what GitHub would tell of the event.
        options: more words for act.

    Raises:
        CannotRun: act or a stand-in is absent, or there is no such workflow.
    """
    path = root / WORKFLOWS / workflow
    if shutil.which("act") is None:
        raise CannotRun("act is not on the PATH; `make ci` runs the same targets without it")
    if not path.is_file():
        raise CannotRun(
            f"no workflow {path}; there are: {', '.join(sorted(it.name for it in path.parent.glob('*.yml')))}"
        )
    text = path.read_text()
    actions = [it.read_text() for it in (root / ".github" / "actions").glob("*/action.yml")]
    shutil.rmtree(home / "artefacts", ignore_errors=True)
    (home / "artefacts").mkdir(parents=True)
    ran = Ran(len(STEP.findall(text)))
    with (
        tempfile.NamedTemporaryFile("w", suffix=".json") as told,
        # Not below the hidden state folder: BentoML builds nothing there, and GitHub's checkouts are not hidden either.
        tempfile.TemporaryDirectory(prefix="flightdeck-act-", ignore_cleanup_errors=True) as jobs,
    ):
        json.dump(dict(payload or {}), told)
        told.flush()
        argv = [
            "act", event, "-W", str(path), "-e", told.name, "--json", "--pull=false", "--no-cache-server",
            "--concurrent-jobs", "1", "-P", f"{RUNNER}=-self-hosted", "--action-cache-path", jobs,
            *stand_ins([text, *actions], root / STAND_INS), *options,
        ]  # fmt: skip
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(
            argv, cwd=root, env=environment(os.environ, home), text=True, errors="replace", **pipes
        ) as act:
            assert act.stdout is not None
            try:
                for line in act.stdout:
                    _show(line, ran, log)
            except KeyboardInterrupt:  # act has it from the terminal as well, and ends its steps first
                act.send_signal(signal.SIGINT)
                for line in act.stdout:
                    _show(line, ran, log)
                raise
    ran.code = act.returncode
    return ran


def _show(line: str, ran: Ran, log: TextIO) -> None:
    try:
        words = ran.hear(json.loads(line), time.monotonic())
    except ValueError:
        words = line.rstrip()
    if words:
        print(words, file=log, flush=True)


def gather(home: Path, state: Path) -> None:
    """What the gates of all jobs kept, and the report, to where people and hooks look for them."""
    for artefact in sorted((home / "artefacts").glob("*")):
        if artefact.name.startswith("outcome-") or artefact.name == "report":
            shutil.copytree(artefact, state / "ci", dirs_exist_ok=True)


def main(words: Sequence[str] | None = None) -> int:
    """The exit code is act's: 0 when every job that ran succeeded."""
    asked = argparse.ArgumentParser(prog="python -m flightdeck.delivery.act", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip  # noqa: E501
    asked.add_argument("workflow", help="a file of .github/workflows, such as ci.yml")
    asked.add_argument("--event", default="push")
    asked.add_argument("--before", default="", help="commit that the branch was at: only what changed since is tested")
    asked.add_argument("options", nargs="*", help="more words for act, behind --")
    given = asked.parse_args(words)
    root = Path.cwd()
    state = Path(os.environ.get(STATE_ENV) or root / ".flightdeck").absolute()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by a hook: like ctrl-C
    for old in (state / "ci").glob("*.json"):  # words of an earlier run
        old.unlink()
    try:
        ran = run(
            given.workflow, root=root, home=state / "act", event=given.event,
            payload=event_of(os.environ, given.before), options=[*variables(os.environ), *given.options],
        )  # fmt: skip
    except CannotRun as error:
        print(f"act: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("act: interrupted; its steps were ended", file=sys.stderr)
        return 130
    gather(state / "act", state)
    print("\n".join(ran.table()), flush=True)
    return ran.code


if __name__ == "__main__":
    sys.exit(main())
