"""Entry point: runs one command and sees that nothing of it outlives its time or whoever asked for it.

Its stdin is a pipe that only the asker holds open: end of file means that the asker is dead. It ignores the signals of
a terminal, runs the command in a process group of its own, and ends that group when the command has ended, when the
time is up, or when the asker is gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

TOO_LONG = 124
ASKER_GONE = 125
NOT_STARTED = 127
MARK = "FLIGHTDECK_KEEPER"  # in the environment of all that comes from one command, also of what left its group
_LOOK_S = 0.1


def end_group(leader: subprocess.Popen[bytes], grace_s: float) -> None:
    """INT and TERM to the group with half of the grace each, then KILL; on as soon as nobody of it is left."""
    for sent in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + grace_s / 2
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(leader.pid, sent)
        while _is_there(leader) and (sent is not signal.SIGKILL and time.monotonic() < deadline):
            time.sleep(_LOOK_S)
    with contextlib.suppress(subprocess.TimeoutExpired):
        leader.wait(5)


def sweep(mark: str, root: Path = Path("/proc")) -> None:
    """KILL whatever carries the mark: steps of act and daemons have groups of their own.

    Where there is no /proc, it finds nothing.
    """
    wanted = f"{MARK}={mark}".encode()
    for folder in root.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(folder.name) != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                os.kill(int(folder.name), signal.SIGKILL)


def _is_there(leader: subprocess.Popen[bytes]) -> bool:
    leader.poll()  # takes the leader's exit code, else it stays in the group as a zombie
    try:
        os.killpg(leader.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def main(limit_s: float, grace_s: float, argv: list[str]) -> int:
    """The command's exit code, or one of ours; minus a signal becomes 128 plus it, as in a shell."""
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    deadline = time.monotonic() + limit_s
    mark = f"{os.getpid()}-{time.time_ns()}"
    try:
        command = subprocess.Popen(
            argv,
            env={**os.environ, MARK: mark},
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=_default_signals,  # noqa: PLW1509 - there is one thread, and the command must hear TERM
        )
    except OSError as error:
        print(f"flightdeck: {argv[0]} could not be started: {error}", flush=True)
        return NOT_STARTED
    code = None
    while code is None:
        if command.poll() is not None:
            code = command.returncode if command.returncode >= 0 else 128 - command.returncode
        elif select.select([0], [], [], _LOOK_S)[0] and not os.read(0, 1):
            code = ASKER_GONE
        elif time.monotonic() > deadline:
            code = TOO_LONG
    end_group(command, grace_s)
    sweep(mark)
    return code


def _default_signals() -> None:
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
