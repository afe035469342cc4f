"""Adapter: where a delivery comes from: Git's commit, whoever delivers, digests of what a training is made from."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

from flightdeck.cluster.images import digest_of
from flightdeck.cluster.names import CHECKOUT
from flightdeck.contracts.ledger import TrainingInputs
from flightdeck.contracts.model_spec import load_model_spec
from flightdeck.delivery.decisions import Relation

WHO_ENV = "FLIGHTDECK_WHO"  # a hook that delivers for somebody says for whom
LOCK = "requirements/orchestration.txt"  # what the pipelines' image installs
# A change of any of these makes another model; a change of the rest of the repository does not.
CODE = (
    "pipelines/data", "pipelines/features", "pipelines/flights", "pipelines/gates", "pipelines/registry",
    "pipelines/training", "pipelines/use_case.py", "flightdeck/contracts/artefact.py", "flightdeck/contracts/card.py",
    "flightdeck/contracts/model_spec.py",
)  # fmt: skip
FEATURES = ("feature_repo",)
DIRTY = "-dirty"


def who() -> str:
    """For the ledger: the person GitHub or a hook names, else `user@host`."""
    from flightdeck.cli.rollout import who as here

    given = os.environ.get(WHO_ENV) or (os.environ.get("GITHUB_ACTIONS") and os.environ.get("GITHUB_ACTOR"))
    return given or here()


def lock_sha256(root: Path = CHECKOUT) -> str:
    """Of the lock that the pipelines' image is made from."""
    return hashlib.sha256((root / LOCK).read_bytes()).hexdigest()


def training_inputs(model: str, root: Path = CHECKOUT) -> TrainingInputs:
    """What a training of `model` would be made from now.

    Raises:
        OSError, ValueError: its spec is not there, or not what it must be.
    """
    from pipelines.training.lineage import spec_sha256

    return TrainingInputs(
        code=digest_of(CODE, root),
        features=digest_of(FEATURES, root),
        spec=spec_sha256(load_model_spec(root / "specs" / f"{model}.yaml")),
        lock=lock_sha256(root),
    )


def relation(commit: str, recorded: str, root: Path = CHECKOUT) -> Relation:
    """How `commit` stands to the one that was delivered last; empty `recorded`: none was."""
    if not recorded:
        return Relation.FIRST
    here, there = commit.removesuffix(DIRTY), recorded.removesuffix(DIRTY)
    if here == there:
        return Relation.SAME
    if _git("merge-base", "--is-ancestor", there, here, root=root)[0] == 0:
        return Relation.NEWER
    if _git("merge-base", "--is-ancestor", here, there, root=root)[0] == 0:
        return Relation.OLDER
    shallow = _git("rev-parse", "--is-shallow-repository", root=root)[1] == "true"
    return Relation.UNKNOWN if shallow else Relation.BESIDE


def _git(*args: str, root: Path) -> tuple[int, str]:
    try:
        done = subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return 128, ""
    return done.returncode, done.stdout.strip()
