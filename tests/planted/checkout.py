"""A checkout of its own, in which a test does what a developer would commit, and the gates run as CI runs them."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

from flightdeck.contracts.card import ModelCard
from flightdeck.delivery.champion_card import REFERENCE_ENV
from flightdeck.delivery.outcome import Outcome, read
from pipelines.registry.signing import PUBLIC_KEY_ENV, public_hex, sign
from tests.unit.delivery.champion_cards import KEY

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
    """A copy of what the gates read, with a state folder of its own."""

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

    @property
    def state(self) -> Path:
        """Where its gates keep their outcomes."""
        return self.root / ".flightdeck"

    def ci(self, *words: str, **environment: str) -> tuple[int, str]:
        """Run `flightdeck ci ...` as make does; exit code and what it printed."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("FLIGHTDECK_", "GITHUB_"))}
        packages = [str(self.root), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "flightdeck.cli", "ci", *words],
            cwd=self.root, capture_output=True, text=True, timeout=850, check=False,
            env={
                **inherited, "PYTHONPATH": os.pathsep.join(packages), "FLIGHTDECK_STATE": str(self.state), **environment
            },
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def gate(self, name: str, *words: str, **environment: str) -> Ran:
        """Run a gate, which keeps its outcome whatever it found."""
        code, text = self.ci(name, *words, **environment)
        kept = [it for it in read(self.state) if it.gate == name]
        assert len(kept) == 1, text
        return Ran(code, text, kept[0])

    def champion_card(self, *cards: ModelCard) -> dict[str, str]:
        """Publish what serves from these cards and this checkout's definitions; the environment that names it."""
        key, reference = self.root / "signing.pub", self.root / "champion-card.json"
        key.write_text(public_hex(KEY))
        words = []
        for card in cards:
            path = self.root / f"{card.model}.card.json"
            path.write_text(sign(card, KEY).model_dump_json())
            words += ["--card", str(path)]
        environment = {PUBLIC_KEY_ENV: str(key), REFERENCE_ENV: str(reference)}
        code, text = self.ci("champion-card", "publish", "--definitions", *words, **environment)
        assert code == 0, text
        return environment
