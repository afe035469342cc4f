"""Where a run comes from: code, environment."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
from pathlib import Path

from flightdeck.contracts.card import Digests
from flightdeck.contracts.model_spec import ModelSpec

CHECKOUT = Path(__file__).resolve().parents[2]
LOCK = CHECKOUT / "requirements" / "pipeline.txt"
COMMIT_ENV = "FLIGHTDECK_COMMIT"  # set in images, which hold no .git


def git_commit() -> str:
    """The commit of the code, with `-dirty` when tracked files were changed; `unknown` outside a checkout."""
    if given := os.environ.get(COMMIT_ENV):
        return given
    try:
        commit, changed = (
            subprocess.run(["git", *args], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=20).stdout
            for args in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return commit.strip() + ("-dirty" if changed.strip() else "")


def lock_sha256() -> str:
    """Digest of the lock file the environment is installed from; of what is installed where there is none."""
    if LOCK.is_file():
        return hashlib.sha256(LOCK.read_bytes()).hexdigest()
    installed = sorted(f"{item.metadata['Name']}=={item.version}" for item in importlib.metadata.distributions())
    return hashlib.sha256("\n".join(installed).encode()).hexdigest()


def spec_sha256(spec: ModelSpec) -> str:
    """Digest of the validated spec: comments and layout do not count, nor does when it is trained again."""
    return hashlib.sha256(spec.model_dump_json(exclude={"retrain"}).encode()).hexdigest()


def digests(spec: ModelSpec, holdout_sha256: str, table_versions: dict[str, int], feature_export: str) -> Digests:
    """All of it, for the model card."""
    return Digests(
        git_commit=git_commit(),
        lock_sha256=lock_sha256(),
        spec_sha256=spec_sha256(spec),
        holdout_sha256=holdout_sha256,
        table_versions=table_versions,
        feature_export=feature_export,
    )
