"""Entry point: ends the lab's processes when the lab itself was killed. Works where PR_SET_PDEATHSIG does not exist.

Its stdin is a pipe that only the lab holds open: end of file without the farewell `q` means that the lab is dead.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

from flightdeck.lab.processes import end_group, read_records


def main(records: Path) -> int:
    """Wait for the lab's end, then end every process group that it recorded."""
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)  # it leaves with the lab, not before
    if os.read(0, 1) == b"q":
        return 0
    ours = [record for record in read_records(records) if record.is_alive()]
    for record in ours:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(record.pid, signal.SIGTERM)
    for record in ours:
        end_group(record.pid, grace_s=5.0)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
