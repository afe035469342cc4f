"""Adapter: programs of the user's machine (kubectl, kind, docker, helm), with words when one is absent or fails."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from flightdeck.cluster.names import CONTEXT

HINTS = {
    "kubectl": "install kubectl 1.35 or newer",
    "kind": "install kind 0.33 or newer, or name a cluster of yours as the current kubectl context",
    "docker": "install Docker and start it",
    "helm": "install Helm 3.18 or newer",
    "minikube": "install minikube, or leave CLUSTER=minikube away",
    "promtool": "it comes with Prometheus",
}
LAST_LINES = 12


class CommandFailed(RuntimeError):
    """A program of the machine is absent, did not answer in time, or ended with an error."""

    def __init__(self, words: str, stderr: str = "") -> None:
        super().__init__(words)
        self.stderr = stderr


def run(argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 120, cwd: str | None = None) -> str:
    """What the program prints.

    Raises:
        CommandFailed: with its last lines.
    """
    return _ended(argv, timeout_s, input=stdin, capture_output=True, text=True, cwd=cwd).stdout


def stream(
    argv: Sequence[str], *, stdin: IO[bytes] | int = subprocess.DEVNULL, stdout: IO[bytes], timeout_s: float
) -> str:
    """Bytes from one file through the program into another, as they come; returns what it says beside them.

    Raises:
        CommandFailed: with its last lines; what was written until then is no whole answer.
    """
    return str(_ended(argv, timeout_s, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, text=True).stderr)


def _ended(argv: Sequence[str], timeout_s: float, **how: Any) -> subprocess.CompletedProcess[str]:
    if shutil.which(argv[0]) is None:
        raise CommandFailed(f"{argv[0]} is not on the PATH: {HINTS.get(argv[0], 'install it')}")
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(list(argv), timeout=timeout_s, check=False, **how)
    except subprocess.TimeoutExpired as error:
        raise CommandFailed(f"{' '.join(argv[:6])} did not end within {timeout_s:.0f} s") from error
    if done.returncode:
        told = (done.stderr.strip() or (done.stdout or "").strip()).splitlines()[-LAST_LINES:]
        raise CommandFailed(f"{' '.join(argv[:6])} ended with {done.returncode}:\n  " + "\n  ".join(told), done.stderr)
    return done


@dataclasses.dataclass(frozen=True)
class Kubectl:
    """kubectl with one context, whatever the current one becomes meanwhile."""

    context: str

    def __call__(self, *args: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """Run it; returns what it prints.

        Raises:
            CommandFailed: it failed.
        """
        return run(("kubectl", "--context", self.context, *args), stdin=stdin, timeout_s=timeout_s)

    def save(self, *args: str, to: Path, timeout_s: float) -> str:
        """Run it with its standard output into a file; returns what it says beside it.

        Raises:
            CommandFailed: it failed; the file is a part at most.
        """
        with to.open("wb") as file:
            return stream(("kubectl", "--context", self.context, *args), stdout=file, timeout_s=timeout_s)

    def feed(self, *args: str, source: Path, timeout_s: float) -> str:
        """Run it with a file as its standard input; returns what it prints.

        Raises:
            CommandFailed: it failed.
        """
        with source.open("rb") as file, tempfile.TemporaryFile() as said:
            stream(("kubectl", "--context", self.context, *args), stdin=file, stdout=said, timeout_s=timeout_s)
            said.seek(0)
            return said.read().decode()

    def get(self, *args: str) -> dict[str, Any]:
        """`kubectl get ... -o json`, decoded; a list has `items`."""
        found: dict[str, Any] = json.loads(self("get", *args, "-o", "json"))
        return found

    def find(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """One object, None when it (or its kind) is not there."""
        where = ("-n", namespace) if namespace else ()
        try:
            return self.get(kind, name, *where)
        except CommandFailed as error:
            if "NotFound" in error.stderr or "doesn't have a resource type" in error.stderr:
                return None
            raise

    def answers(self) -> bool:
        """Whether the API server of the context answers soon."""
        try:
            run(("kubectl", "--context", self.context, "get", "--raw", "/readyz", "--request-timeout=5s"), timeout_s=15)
        except CommandFailed:
            return False
        return True


def current_context() -> str | None:
    """The environment's context, else the kubeconfig's current one, None when there is none."""
    if CONTEXT:
        return CONTEXT
    try:
        return run(("kubectl", "config", "current-context"), timeout_s=15).strip() or None
    except CommandFailed as error:
        if "is not on the PATH" in str(error):
            raise
        return None
