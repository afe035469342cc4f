"""Adapter: one lab per state folder."""

from __future__ import annotations

import contextlib
import datetime as dt
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOCK = "lab.lock"


class LabIsRunning(RuntimeError):
    """Another lab holds the state folder."""


@contextlib.contextmanager
def only_lab(state: Path, doing: str) -> Iterator[None]:
    """Hold the state folder; the system lets go of the lock when this process dies, however it dies.

    Raises:
        LabIsRunning: another process holds it; the message says which and what to do.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            found = _read(state)
            raise LabIsRunning(
                f"a lab already uses {state}: `{found.get('doing', '?')}`, pid {found.get('pid', '?')}, "
                f"since {found.get('since', '?')}; end it with `flightdeck lab down` (or ctrl-C where it runs), "
                "or use another state folder: FLIGHTDECK_STATE=<folder>"
            ) from error
        file.seek(0)
        file.truncate()
        now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"doing": doing, "pid": os.getpid(), "since": now}))
        file.flush()
        yield


def holder(state: Path) -> dict[str, Any] | None:
    """Who holds the state folder now, or None."""
    try:
        with (state / LOCK).open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return _read(state)
            return None
    except OSError:
        return None


def _read(state: Path) -> dict[str, Any]:
    try:
        found = json.loads((state / LOCK).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
