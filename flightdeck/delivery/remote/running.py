"""Adapter: a command whose output is passed on while it comes and kept in a log, under a keeper; and locks."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

KEEPER = Path(__file__).with_name("keeper.py")
LOG_LIMIT_BYTES = 64 * 1024 * 1024
_LAST_BYTES = 16 * 1024
_LOOK_S = 0.5
_AFTER_S = 2.0  # so long a command's last words may take after its end


class PusherGone(RuntimeError):
    """Nobody reads what we say, so nobody could take what CI decides."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: its exit code.
        took_s: real time, seconds.
        last: the end of its output.
    """

    code: int
    took_s: float
    last: str


def say(text: str) -> None:
    """One line of ours to the pusher, at once.

    Raises:
        PusherGone: nobody reads it.
    """
    pass_on(f"flightdeck: {text}\n".encode(errors="replace"))


def tell(text: str) -> None:
    """The same as the last word, which may be read by nobody."""
    with contextlib.suppress(PusherGone):
        say(text)


def pass_on(chunk: bytes) -> None:
    """Bytes to the pusher, at once.

    Raises:
        PusherGone: nobody reads them.
    """
    try:
        while chunk:
            chunk = chunk[os.write(1, chunk) :]
    except OSError as error:
        raise PusherGone(str(error)) from error


def run(
    argv: list[str],
    *,
    cwd: Path,
    env: dict[str, str],
    limit_s: float,
    grace_s: float,
    log: Path | None,
    holds: IO[str],
    enough: Callable[[], bool] = lambda: False,
) -> Ended:
    """Run it to its end, its output to our stdout and the log as it comes.

    Args:
        enough: asked every now and then; True ends the command, which then has the code ASKER_GONE.
        holds: a lock that is let go only when everything of the command is gone, also when we are killed.
        log: None when our stdout is the log.
    Raises:
        PusherGone: our stdout was closed, or our parent is dead; the command was ended.
    """
    started, parent = time.monotonic(), os.getppid()
    keep = [sys.executable, "-E", "-s", "-B", str(KEEPER), str(limit_s), str(grace_s), *argv]
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(log.open("ab")) if log else None
        keeper = subprocess.Popen(
            keep, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
            start_new_session=True, pass_fds=(holds.fileno(),),
        )  # fmt: skip
        stack.callback(_let_go, keeper, grace_s)
        assert keeper.stdout is not None
        last, written, ended, looked = b"", 0, 0.0, 0.0
        while not ended or time.monotonic() < ended + _AFTER_S:
            if log and os.getppid() != parent:
                raise PusherGone("the push has ended")
            if not ended and time.monotonic() > looked + 1:
                looked = time.monotonic()
                if enough():
                    assert keeper.stdin is not None
                    keeper.stdin.close()
            if not ended and keeper.poll() is not None:
                ended = time.monotonic()  # what left the group may still hold the pipe
            if not select.select([keeper.stdout], [], [], _LOOK_S)[0]:
                continue
            chunk = os.read(keeper.stdout.fileno(), 65536)
            if not chunk:
                break
            last = (last + chunk)[-_LAST_BYTES:]
            if file and written < LOG_LIMIT_BYTES:
                written += file.write(chunk)
                file.flush()
            pass_on(chunk)
        code = keeper.wait()
    return Ended(code, time.monotonic() - started, last.decode(errors="replace"))


def _let_go(keeper: subprocess.Popen[bytes], grace_s: float) -> None:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    keeper.stdin.close()
    keeper.stdout.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        keeper.wait(grace_s + 10)


@contextlib.contextmanager
def held(path: Path, *, waits: Callable[[float], bool]) -> Iterator[IO[str] | None]:
    """Hold a lock file; the system lets go of it when we and our keeper are dead.

    Args:
        waits: called with the seconds waited so far, twice a second while another holds it; False gives up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with path.open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if not waits(time.monotonic() - started):
                    yield None
                    return
                time.sleep(_LOOK_S)
        yield file
