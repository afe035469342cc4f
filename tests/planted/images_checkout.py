"""A checkout of its own, in which a test does what a developer would commit, and runs the gates as CI does."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

from flightdeck.delivery.outcome import Outcome, read

ROOT = Path(__file__).parents[2]
PARTS = (
    "benchmarks/linear_artefact.py", "bentofile.yaml", "docs/rollout.md", "feature_repo", "flightdeck", "images", "k8s",
    "pipelines", "requirements", "services", "specs", ".dockerignore", "pyproject.toml",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Ran:
    """How a gate ended."""

    code: int
    text: str
    outcome: Outcome


@dataclasses.dataclass(frozen=True)
class Checkout:
    """A copy of what the gates of images and manifests read, with a state folder of its own."""

    root: Path

    @classmethod
    def at(cls, root: Path) -> Checkout:
        files = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *PARTS],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        for name in filter(None, files):
            if (ROOT / name).is_file():
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, root / name)
        return cls(root)

    def edit(self, name: str, old: str, new: str) -> None:
        """What a developer commits."""
        path = self.root / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has {text.count(old)} times {old!r}"
        path.write_text(text.replace(old, new))

    def gate(self, name: str, *words: str, **environment: str) -> Ran:
        """Run `flightdeck ci NAME` as make does."""
        state = self.root / ".flightdeck"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("FLIGHTDECK_", "GITHUB_"))}
        packages = [str(self.root), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "flightdeck.cli", "ci", name, *words],
            cwd=self.root, check=False, capture_output=True, text=True, timeout=290,
            env={**inherited, "PYTHONPATH": os.pathsep.join(packages), "FLIGHTDECK_STATE": str(state), **environment},
        )  # fmt: skip
        (kept,) = [it for it in read(state) if it.gate == name]
        return Ran(done.returncode, done.stdout + done.stderr, kept)
