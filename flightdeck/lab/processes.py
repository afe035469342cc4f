"""Adapter: which processes are ours. A pid alone proves nothing: start time and command line must match as well."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import time
from pathlib import Path

import psutil


@dataclasses.dataclass(frozen=True)
class Record:
    """A process that a lab started; `started` is its start time as the system tells it, Unix seconds."""

    name: str
    pid: int
    started: float | None
    argv: tuple[str, ...]

    def is_alive(self) -> bool:
        """Whether the very process (or, when it is dead, a member of its group) still runs.

        A dead leader's workers are only counted when they sit in the group and were started no earlier than it.
        """
        if self.started is None:
            return False
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
            return same and self._looks_like(process)
        except psutil.NoSuchProcess:
            return any(member.create_time() >= self.started - 1.0 for member in _group(self.pid))
        except psutil.Error:
            return False

    def _looks_like(self, process: psutil.Process) -> bool:
        # Redis and others rewrite their title, so the program's name within the command line is enough.
        line = " ".join(process.cmdline())
        return Path(self.argv[0]).name in line or Path(self.argv[0]).name.startswith(process.name())


def _group(group: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.getpgid(process.pid) == group:
                members.append(process)
    return members


def start_time(pid: int) -> float | None:
    """When process `pid` started, Unix seconds; None when there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return None


def children_of(pid: int, name: str) -> tuple[Record, ...]:
    """Records of the children of `pid`, each named `name`; none when it is gone."""
    try:
        children = psutil.Process(pid).children()
        return tuple(Record(name, child.pid, child.create_time(), tuple(child.cmdline())) for child in children)
    except psutil.Error:
        return ()


def end_group(group: int, grace_s: float = 0.0) -> None:
    """End every process of a group: TERM when there is grace, then KILL. A group that is gone is fine."""
    if grace_s:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while time.monotonic() < deadline and any(p.status() != psutil.STATUS_ZOMBIE for p in _group(group)):
            time.sleep(0.1)
    # macOS answers EPERM for a group of zombies only
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def write_records(path: Path, records: list[Record]) -> None:
    """Replace the file at once, so that a reader never sees half of it."""
    text = json.dumps([dataclasses.asdict(record) for record in records], indent=1)
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(text)
    temporary.replace(path)


def read_records(path: Path) -> list[Record]:
    """The records of a run; empty when there is no file or it cannot be read."""
    try:
        return [
            Record(item["name"], int(item["pid"]), item["started"], tuple(item["argv"]))
            for item in json.loads(path.read_text())
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
