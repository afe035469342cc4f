"""Starts, ends and asks the lab in the background."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from flightdeck.contracts.layout import STATE_ENV, StateLayout
from flightdeck.lab import lock
from flightdeck.lab.daemon import Shown, read_status
from flightdeck.lab.session import read_mark
from flightdeck.lab.stack import CHECKOUT
from flightdeck.lab.supervisor import clean_up

READY_S = 150.0
STOP_S = 40.0


class NotUp(RuntimeError):
    """The lab in the background did not come up."""


def can_serve(layout: StateLayout) -> bool:
    """Whether an earlier story left a champion with its artefact."""
    champion = read_mark(layout).get("champion")
    return champion is not None and (layout.artefacts / champion["model"]["sha256"]).is_dir()


def start(layout: StateLayout, told: Callable[[Shown], None]) -> Shown:
    """Start it and wait until it serves.

    Raises:
        NotUp: it ended, failed or did not become ready in time; its log tells more.
    """
    layout.logs.mkdir(parents=True, exist_ok=True)
    log = layout.logs / "lab.log"
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "flightdeck.lab.daemon"], stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True, cwd=CHECKOUT,
            env={**os.environ, STATE_ENV: str(layout.root)},
        )  # fmt: skip
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        shown = read_status(layout)
        if shown and shown.pid == process.pid:
            if shown.phase == "running":
                return shown
            told(shown)
            if shown.phase == "failed":
                raise NotUp(f"{shown.problem}; see {log}")
        if process.poll() is not None:
            raise NotUp(f"it ended with {process.returncode}; see {log}")
        time.sleep(0.2)
    stop(layout)
    raise NotUp(f"it was not ready after {READY_S:.0f} s; see {layout.logs}")


def stop(layout: StateLayout) -> list[str]:
    """End whatever lab holds the folder, and what an earlier one left; returns what was done, a sentence each."""
    holder = lock.holder(layout.root)
    said = []
    if holder and isinstance(holder.get("pid"), int):
        pid = holder["pid"]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)  # the lock proves that this pid is the lab: it is held by a living process
        deadline = time.monotonic() + STOP_S
        while lock.holder(layout.root) and time.monotonic() < deadline:
            time.sleep(0.1)
        if lock.holder(layout.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.5)
            said.append(f"the lab (pid {pid}) did not stop within {STOP_S:.0f} s and was killed")
        else:
            said.append(f"stopped `{holder.get('doing', 'the lab')}` (pid {pid})")
    if not lock.holder(layout.root):
        said += clean_up(layout.run)
    return said


def example_request(layout: StateLayout, url: str) -> str:
    """A curl command for a flight that leaves two hours after the time at which the lab's clock stands."""
    stands = dt.datetime.fromisoformat(read_mark(layout)["clock_stands"])
    row = {
        "carrier": "UA",
        "flight": 1545,
        "origin": "EWR",
        "dest": "IAH",
        "tailnum": "N14228",
        "sched_dep_utc": (stands + dt.timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return f"curl -s {url} -H 'content-type: application/json' -d '{json.dumps({'rows': [row]})}'"
