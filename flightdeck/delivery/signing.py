"""Pushed images: what there is to sign and attest, and cosign's signature without a key (GitHub's identity)."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from flightdeck.cluster.commands import run

BILLS = "ci/sbom"  # below the state folder; `make ci-images` writes them
TIMEOUT_S = 180
REFERENCE = re.compile(r"[a-z0-9.:_/-]+@sha256:[0-9a-f]{64}")


@dataclasses.dataclass(frozen=True)
class Subject:
    """One image. name: registry and path; digest: sha256:...; bill: bill of materials, "" when there is none."""

    name: str
    digest: str
    bill: str


def subjects(pushed: Mapping[str, str], state: Path, *, root: Path) -> list[Subject]:
    """Each pushed image by name and digest, with its bill of materials relative to the checkout.

    Raises:
        ValueError: nothing was pushed, or something not by digest.
    """
    if not pushed:
        raise ValueError("no image was pushed from this checkout; run `make images REGISTRY=...` first")
    found = []
    for short, reference in sorted(pushed.items()):
        name, _, digest = reference.partition("@")
        if not REFERENCE.fullmatch(reference):
            raise ValueError(f"{short}: {reference!r} is not a lower-case name with a digest; push it again")
        bill = state / BILLS / f"{short.rpartition('/')[2]}.cdx.json"
        found.append(Subject(name, digest, str(bill.relative_to(root)) if bill.is_file() else ""))
    return found


def matrix(found: list[Subject]) -> str:
    """For a workflow's matrix: one line of JSON."""
    return json.dumps([dataclasses.asdict(it) for it in found])


def cannot_sign(environment: Mapping[str, str]) -> str:
    """Why nothing can be signed here; "" when it can."""
    if "ACTIONS_ID_TOKEN_REQUEST_URL" not in environment:
        return "there is no identity of GitHub here (a job with `id-token: write` has one)"
    return "" if shutil.which("cosign") else "cosign is not on the PATH"


def required(environment: Mapping[str, str]) -> bool:
    """On GitHub an image that is not signed is a failure; under act and elsewhere it is said loudly."""
    return environment.get("GITHUB_ACTIONS") == "true" and not environment.get("ACT")


def sign(subject: Subject) -> None:
    """Adapter: sign with cosign.

    Raises:
        CommandFailed: with its last lines.
    """
    run(("cosign", "sign", "--yes", f"{subject.name}@{subject.digest}"), timeout_s=TIMEOUT_S)


def tell_workflow(line: str) -> None:
    """One output of the step, where there is a workflow."""
    if where := os.environ.get("GITHUB_OUTPUT"):
        with Path(where).open("a") as out:
            out.write(line + "\n")
