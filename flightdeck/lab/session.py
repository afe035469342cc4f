"""A lab session: one lab per state folder, a fresh start, room on the disk, free ports, what an earlier one left."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flightdeck.contracts.layout import STATE_ENV, StateLayout
from flightdeck.lab import ports as lab_ports
from flightdeck.lab.environment import QUIET, addresses
from flightdeck.lab.lock import only_lab
from flightdeck.lab.stack import Stack
from flightdeck.lab.supervisor import Supervisor, clean_up

MARK = "lab.json"  # says that the lab made what is in the state folder; holds ports and the champion
NEEDED_BYTES = 2_000_000_000  # a full run leaves about half of it
# The last line is what `make up` knows of clusters that stand: `make down` must find it after any lab.
KEPT = {
    "lab.lock", MARK, "reports", "previous", ".writing",
    "cluster.json", "images.json", "backups", "e2e.md",
}  # fmt: skip


class NoRoom(RuntimeError):
    """The disk is too full."""


def room(state: Path) -> str:
    """Check the space below `state`; returns how much there is.

    Raises:
        NoRoom: less than `NEEDED_BYTES`.
    """
    state.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(state).free
    if free < NEEDED_BYTES:
        raise NoRoom(
            f"{state}: {free / 1e9:.1f} GB free, a run needs {NEEDED_BYTES / 1e9:.0f} GB; make room (an earlier run "
            f"may lie in {state / 'previous'}) or use another state folder: FLIGHTDECK_STATE=<folder>"
        )
    return f"{free / 1e9:.0f} GB free"


def is_full_disk(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the disk is full; some libraries only say it in words."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        words = str(error).lower()
        if "no space left on device" in words or "database or disk is full" in words:
            return True
        error = error.__cause__ or error.__context__
    return False


def set_aside(layout: StateLayout) -> str | None:
    """Move what is in the state folder out of the way, so that a run starts from nothing and can be repeated.

    What a lab made replaces the one earlier run that is kept; what somebody else made is kept under a name of its own.
    """
    found = [item for item in layout.root.iterdir() if item.name not in KEPT and not item.name.startswith("kept-")]
    if not found:
        return None
    if (layout.root / MARK).is_file():
        target = layout.root / "previous"
        shutil.rmtree(target, ignore_errors=True)
    else:
        target = layout.root / f"kept-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}"
    target.mkdir()
    for item in found:
        item.rename(target / item.name)
    return f"what was in {layout.root} is now in {target}"


def read_mark(layout: StateLayout) -> dict[str, Any]:
    """What the last lab left written: ports, champion, clock; empty when none came so far."""
    try:
        found = json.loads((layout.root / MARK).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_mark(layout: StateLayout, **facts: Any) -> None:
    """Add facts to the mark."""
    temporary = layout.root / f".{MARK}.{os.getpid()}"
    temporary.write_text(json.dumps({**read_mark(layout), **facts}, indent=1, default=str))
    temporary.replace(layout.root / MARK)


@contextlib.contextmanager
def session(layout: StateLayout, doing: str, *, fresh: bool, say: Callable[[str], None]) -> Iterator[Stack]:
    """Hold the state folder and run processes in it; leaving ends them all.

    The environment of this process is set to the lab's addresses: Feast and MLflow read theirs when imported.

    Raises:
        LabIsRunning: another lab holds the folder. NoRoom: the disk is too full.
    """
    with only_lab(layout.root, doing):
        for sentence in clean_up(layout.run):
            say(sentence)
        if fresh:
            if moved := set_aside(layout):
                say(moved)
            (layout.root / MARK).unlink(missing_ok=True)
        room(layout.root)
        chosen, said = lab_ports.choose()
        for sentence in said:
            say(sentence)
        os.environ.update(QUIET | addresses(chosen) | {STATE_ENV: str(layout.root)})
        (layout.run / "events.jsonl").unlink(missing_ok=True)
        write_mark(layout, ports=chosen, pid=os.getpid())
        with Supervisor(layout.run, layout.logs) as supervisor:
            yield Stack(layout, chosen, supervisor)
