"""Adapter: the log files of the lab's processes."""

from __future__ import annotations

import os
from pathlib import Path

LIMIT_BYTES = 20_000_000


def tail(path: Path, lines: int) -> str:
    """The newest lines of a log, indented."""
    if not path.is_file():
        return "(no log)"
    return "\n".join("    " + line for line in path.read_text(errors="replace").splitlines()[-lines:])


def shorten(folder: Path) -> None:
    """Keep each log below `LIMIT_BYTES`: its last tenth stays as `.1`. Processes append, so truncation is safe.

    Raises:
        OSError: say, the disk is full.
    """
    for path in folder.glob("*.log"):
        if path.stat().st_size > LIMIT_BYTES:
            with path.open("rb") as content:
                content.seek(-LIMIT_BYTES // 10, os.SEEK_END)
                path.with_suffix(".log.1").write_bytes(content.read())
            os.truncate(path, 0)
