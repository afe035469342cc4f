"""Entry point: the lab that `lab up` leaves running. A background process of its own that holds the supervisor.

`python -m flightdeck.lab.daemon`, state folder and all from the environment; ends on SIGTERM.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import load_rollout
from flightdeck.lab.lock import LabIsRunning
from flightdeck.lab.rollout.store import Store
from flightdeck.lab.serving import serves
from flightdeck.lab.session import NoRoom, read_mark, session
from flightdeck.lab.stack import STORES, Stack
from flightdeck.lab.supervisor import StartFailed
from flightdeck.lab.training import ROLLOUT
from flightdeck.lab.users import write_atomically

DOING = "flightdeck lab up"
STATUS = "status.json"
READY_S = 120.0


class Shown(msgspec.Struct):
    """What `lab status` reads.

    Args:
        phase: `starting`, `running`, `failed` or `stopped`.
        problem: why, when failed.
    """

    phase: str
    pid: int
    since: str
    at: str
    problem: str = ""
    release: str = ""
    urls: dict[str, str] = msgspec.field(default_factory=dict)
    processes: list[dict[str, Any]] = msgspec.field(default_factory=list)


def read_status(layout: StateLayout) -> Shown | None:
    """The newest status of the lab in the background, None when there never was one."""
    try:
        return msgspec.json.decode((layout.run / STATUS).read_bytes(), type=Shown)
    except (OSError, msgspec.DecodeError):
        return None


def main() -> int:
    """Start everything, tell how it is once a second, stop everything on SIGTERM."""
    layout = StateLayout.from_env()
    end = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        end.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    layout.run.mkdir(parents=True, exist_ok=True)
    shown = Shown("starting", os.getpid(), now, now)
    path = layout.run / STATUS
    write_atomically(path, shown)
    try:
        with session(layout, DOING, fresh=False, say=_say) as stack:
            _start(layout, stack, shown, path, end)
            while not end.wait(1.0):
                _tell(stack, shown, path)
            shown.phase = "stopping"
            _tell(stack, shown, path)
        shown.phase, shown.processes = "stopped", []
    except (LabIsRunning, NoRoom, StartFailed, OSError, ValueError) as error:
        shown.phase, shown.problem = "failed", str(error)
    write_atomically(path, shown)
    return 0 if shown.phase == "stopped" else 1


def _start(layout: StateLayout, stack: Stack, shown: Shown, path: Path, end: threading.Event) -> None:
    champion = read_mark(layout).get("champion")
    if not champion:
        raise ValueError(f"{layout.root}: no champion to serve; `flightdeck lab up` makes one first")
    release = Release.model_validate(champion)
    store = Store(layout.rollouts)
    if not store.names():  # a state folder from before there were rollouts
        store.apply(load_rollout(ROLLOUT, release=release), DOING)
    shown.release, shown.urls = release.short, stack.urls() | {"report": str(layout.reports / "lab.html")}
    stack.start_stores()
    stack.supervisor.wait(STORES, 30)
    stack.start_tracking()
    stack.start_serving()
    waiting, deadline = ["gateway", "rollouts", "mlflow"], time.monotonic() + READY_S
    while (waiting or not _serves(store, release)) and not end.is_set():
        _tell(stack, shown, path)
        try:
            stack.supervisor.wait(waiting[:1], 1.0)
            waiting = waiting[1:]
        except StartFailed:
            if time.monotonic() > deadline:
                raise
        if not waiting:
            if time.monotonic() > deadline:
                raise StartFailed(f"the champion does not serve after {READY_S:.0f} s; see {layout.logs}")
            end.wait(0.2)
    shown.phase = "running"


def _serves(store: Store, release: Release) -> bool:
    """Whether the champion answers: the one of the mark, or of a rollout since then."""
    status = store.read_status(release.model.name)
    state = status.state if status else None
    champion = state.champion if state and state.champion else release
    return serves(status, champion) or bool(state and state.candidate and status and status.champion_ready)


def _tell(stack: Stack, shown: Shown, path: Path) -> None:
    shown.at = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    shown.release = _serving(stack.layout) or shown.release
    shown.processes = [dataclasses.asdict(status) for status in stack.supervisor.status()]
    write_atomically(path, shown)


def _serving(layout: StateLayout) -> str:
    """The champion in words, with the candidate when there is one; empty before the first."""
    store = Store(layout.rollouts)
    name = store.served()
    status = store.read_status(name) if name else None
    state = status.state if status else None
    if state is None or state.champion is None:
        return ""
    return state.champion.short + (f"; {state.phase}: {state.candidate.short}" if state.candidate else "")


def _say(sentence: str) -> None:
    print(sentence, flush=True)


if __name__ == "__main__":
    sys.exit(main())
