"""Adapter: runs the users of a load test in a process of their own, since locust patches the standard library."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec

from flightdeck.lab.users import Outcome, read_outcomes
from flightdeck.load.plan import GRACE_S, PLAN_ENV, LoadPlan, Refused, checked

LOCUSTFILE = Path(__file__).resolve().parents[2] / "tests" / "load" / "locustfile.py"


def run_users(plan: LoadPlan, folder: Path) -> list[Outcome]:
    """Send all requests; what became of each.

    Raises:
        Refused: the plan may not be run, locust is not installed, or it ended without outcomes.
    """
    checked(plan)
    beside = Path(sys.executable).with_name("locust")
    program = str(beside) if beside.is_file() else shutil.which("locust")
    if program is None:
        raise Refused("locust is not installed; it is in the dependency groups `load` and `lab`")
    Path(plan.outcomes).unlink(missing_ok=True)
    written = folder / "plan.json"
    written.write_bytes(msgspec.json.encode(plan))
    root = str(LOCUSTFILE.parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, PLAN_ENV: str(written), "PYTHONPATH": os.pathsep.join(paths)}
    argv = (
        program, "-f", str(LOCUSTFILE), "--headless", "--users", str(plan.users), "--spawn-rate", str(plan.users),
        "--skip-log-setup", "--only-summary",
    )  # fmt: skip
    try:
        done = subprocess.run(
            argv, env=environment, cwd=folder, capture_output=True, text=True, check=False,
            timeout=plan.seconds + GRACE_S + 60,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Refused(f"the users did not end within {error.timeout:.0f} s") from error
    try:
        return read_outcomes(Path(plan.outcomes))
    except (OSError, msgspec.DecodeError) as error:
        told = "\n".join((done.stderr or done.stdout).strip().splitlines()[-8:])
        raise Refused(f"locust ended with {done.returncode} and told no outcomes:\n{told}") from error
