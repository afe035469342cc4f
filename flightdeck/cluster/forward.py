"""Reach a Service of the cluster from this machine: `kubectl port-forward` for as long as a block runs."""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator

from flightdeck.cluster.commands import CommandFailed, Kubectl

READY_S = 30.0
_SAYS = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+)")


@contextlib.contextmanager
def forward(kubectl: Kubectl, namespace: str, service: str, port: int) -> Iterator[str]:
    """`http://127.0.0.1:<free port>` that leads to a Service; it ends with the block.

    It stays with the pod it found: when that pod goes, so does the connection. Ask again for another.

    Raises:
        CommandFailed: kubectl cannot forward (no such Service, no pod of it runs), with its words.
    """
    argv = [
        "kubectl", "--context", kubectl.context, "-n", namespace, "port-forward", "--address", "127.0.0.1",
        f"service/{service}", f":{port}",
    ]  # fmt: skip
    with tempfile.TemporaryFile("w+") as said:  # a file: nobody has to empty a pipe
        try:
            process = subprocess.Popen(argv, stdout=said, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
        except FileNotFoundError as error:
            raise CommandFailed("kubectl is not on the PATH: install kubectl 1.35 or newer") from error
        try:
            deadline = time.monotonic() + READY_S
            while True:
                said.seek(0)
                text = said.read()
                if found := _SAYS.search(text):
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    words = text.strip() or f"it said nothing for {READY_S:.0f} s"
                    raise CommandFailed(f"no way to {namespace}/{service}:{port}: {words}", text)
                time.sleep(0.05)
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)
