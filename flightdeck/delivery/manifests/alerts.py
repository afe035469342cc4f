"""Adapter: promtool, from the PATH, else from Prometheus' image."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from flightdeck.cluster.commands import CommandFailed, run
from flightdeck.cluster.manifests import images_of, kustomize

MONITORING = "k8s/components/monitoring"
PULL_ENV = "FLIGHTDECK_PULL"  # 1: Prometheus' image may be fetched, by the digest of the production overlay


class NoPromtool(RuntimeError):
    """It is neither on the PATH nor in an image that is here."""


def promtool(root: Path) -> tuple[str, ...]:
    """What to run in the checkout; it sees nothing but the checkout.

    Raises:
        NoPromtool: nowhere; the message says how to get it.
        CommandFailed: it may be fetched and could not be.
    """
    if shutil.which("promtool"):
        return ("promtool",)
    if shutil.which("docker") is None:
        raise NoPromtool("promtool is not on the PATH, nor is docker")
    if os.environ.get(PULL_ENV):
        image = _image(root / "k8s" / "overlays" / "production")
        run(("docker", "pull", "--quiet", image), timeout_s=300)
    else:
        image = _image(root / MONITORING)
        try:
            run(("docker", "image", "inspect", image), timeout_s=30)
        except CommandFailed as error:
            raise NoPromtool(
                f"promtool is not on the PATH and {image} not in Docker; `docker pull` it, or set {PULL_ENV}=1"
            ) from error
    shut = ("docker", "run", "--rm", "--network", "none", "--volume", f"{root}:/w:ro", "--workdir", "/w")
    return (*shut, "--entrypoint", "promtool", image)


def _image(folder: Path) -> str:
    return next(it for it in images_of(kustomize(folder)) if it.startswith("prom/prometheus"))


def check(root: Path) -> str:
    """What promtool says against the rules; empty when it says nothing.

    Raises:
        NoPromtool, CommandFailed: see promtool.
    """
    files = sorted(str(path.relative_to(root)) for path in (root / MONITORING / "rules").glob("*.yaml"))
    return _said(promtool(root), ("check", "rules", *files), root)


def _said(program: Sequence[str], words: Sequence[str], root: Path) -> str:
    done = subprocess.run((*program, *words), cwd=root, capture_output=True, text=True, timeout=120, check=False)
    return "" if done.returncode == 0 else (done.stderr + done.stdout).strip()
