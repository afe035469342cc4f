"""A checkout with stand-in targets, the remote of `make git-remote`, and a pusher whose home knows nothing of ours."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flightdeck.delivery.remote.install import make
from flightdeck.delivery.remote.place import Place

MAKEFILE = """\
ci:
	@sh ci.sh
deliver:
	@sh deliver.sh $(ENVIRONMENT)
"""
NOTE = 'echo "$1 $(git rev-parse HEAD) $(git rev-parse --abbrev-ref HEAD)" >> "{marks}/{what}"\n'


class World:
    """One user's machine: home, checkout, remote; what CI and CD did is in `marks`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkout, self.marks = folder, folder / "my work" / "project", folder / "marks"
        for new in (self.checkout, self.marks, folder / "home"):
            new.mkdir(parents=True)
        # What a user may have configured for all repositories must not reach our hooks.
        (folder / "home" / ".gitconfig").write_text(
            "[user]\n name = Ada\n email = ada@example.org\n[core]\n hooksPath = /nowhere\n autocrlf = true\n"
        )
        self.env = {
            "PATH": f"{Path(sys.executable).resolve().parent}:/usr/bin:/bin",
            "HOME": str(folder / "home"),
            "LANG": "C.UTF-8",
            "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",  # a git variable of the user's own
            "MAKEFLAGS": "--no-print-directory",
        }
        self.git("init", "-q", "-b", "main")
        self.write({"Makefile": MAKEFILE, "ci.sh": self.note("ci"), "deliver.sh": self.note("deliver")})
        self.commit("first")
        self.made = make(self.checkout, path=None, state=self.checkout / ".flightdeck")
        self.bare = self.made.bare
        self.place = Place(self.bare)

    def note(self, what: str, then: str = "") -> str:
        return NOTE.format(marks=self.marks, what=what) + then

    def git(self, *args: str, at: Path | None = None) -> str:
        done = subprocess.run(
            ["git", *args],
            cwd=at or self.checkout,
            env=self.env,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.strip()

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
            (self.checkout / name).write_text(text)

    def commit(self, words: str, files: dict[str, str] | None = None) -> str:
        self.write(files or {})
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", words)
        return self.head

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def push(self, *args: str, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
        """The push of a user: everything that they see is in stderr."""
        return subprocess.run(
            ["git", "push", "flightdeck", *args], cwd=self.checkout, env=self.env, capture_output=True, text=True,
            check=False, timeout=timeout_s,
        )  # fmt: skip

    def start(self, *args: str) -> subprocess.Popen[str]:
        """A push in a process group of its own, as a shell's foreground job; `file` has what it says."""
        file = (self.folder / f"said-{time.time_ns()}").open("w")
        pushing = subprocess.Popen(
            ["git", "push", "flightdeck", *args], cwd=self.checkout, env=self.env, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
        file.close()
        pushing.file = file
        return pushing

    def did(self, what: str) -> list[str]:
        """Commits that CI (`ci`) or CD (`deliver`) ran on, in order."""
        file = self.marks / what
        return [line.split()[-2] for line in file.read_text().splitlines()] if file.is_file() else []

    def ref(self, name: str) -> str | None:
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "-q", name], cwd=self.bare, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() or None

    def settings(self, **changed: object) -> None:
        file = self.place.settings_file
        file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def ours(folder: Path) -> list[int]:
    """Processes that work in or for this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes() + bytes((entry / "cwd").readlink())
            if str(folder).encode() in words and int(entry.name) != os.getpid():
                found.append(int(entry.name))
    return found


@pytest.fixture
def world(tmp_path):
    if not shutil.which("git") or not shutil.which("make"):
        pytest.skip("needs git and make")
    made = World(tmp_path)
    yield made
    for pid in ours(tmp_path):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
