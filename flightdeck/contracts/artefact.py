"""The model artefact: a folder named by the sha256 of its manifest, which lists every file with size and sha256.

Like an OCI image (image-spec, descriptors): one digest covers all of it, and the same folder becomes an OCI artefact.
What is served is ONNX, never pickle.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import pydantic

from flightdeck.contracts.model_spec import OnMissing, Task

MANIFEST = "manifest.json"
ONNX_FILE = "model.onnx"


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class FileDigest(_Strict):
    """One file of the artefact."""

    path: str = pydantic.Field(pattern=r"^[A-Za-z0-9._-]+$")
    size_bytes: int = pydantic.Field(ge=0)
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")


class ServedFeature(_Strict):
    """One input of the model, in the order of the ONNX input's columns."""

    name: str
    source: Literal["stored", "on_demand"]
    view: str = pydantic.Field(description="The feature view, or the on-demand view that computes it.")
    join_keys: list[str] = pydantic.Field(description="Entity keys of a stored view, sorted; empty when on demand.")
    feast_type: str = pydantic.Field(description="Feast's value type name, e.g. `FLOAT`.")
    default: float = pydantic.Field(description="Median of the training rows: stands in under `on_missing: default`.")


class ViewPolicy(_Strict):
    """Serving policy of one stored view."""

    max_age_s: float = pydantic.Field(gt=0)
    on_missing: OnMissing


class ModelManifest(_Strict):
    """What a server must know to run the model; everything else is in the model card."""

    schema_version: Literal[1] = 1
    model: str
    task: Task
    horizon_min: int
    unit: str
    feature_project: str = pydantic.Field(description="Feast project whose online keys hold the features.")
    feature_service: str
    features: list[ServedFeature]
    views: dict[str, ViewPolicy]
    decision_threshold: float | None
    fallback_score: float = pydantic.Field(description="Base rate or mean of the training target.")
    files: list[FileDigest]


class ArtefactError(ValueError):
    """The artefact is incomplete, altered or not what was asked for."""


def manifest_bytes(manifest: ModelManifest) -> bytes:
    """Canonical JSON: sorted keys, no spaces, so that equal content has an equal digest."""
    return json.dumps(manifest.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode()


def file_digest(path: Path) -> FileDigest:
    """Size and sha256 of one file."""
    content = path.read_bytes()
    return FileDigest(path=path.name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def verify_artefact(folder: Path, sha256: str) -> ModelManifest:
    """The manifest of `folder`, after every byte of it was checked against `sha256`.

    Raises:
        ArtefactError: a file is missing or altered, or the digest is not the one asked for.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtefactError(f"{folder}: no {MANIFEST}; is this a model artefact, and is it mounted or fetched?")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ArtefactError(f"{folder}: manifest has sha256 {found}, asked for {sha256}; refusing to load it")
    try:
        manifest = ModelManifest.model_validate_json(content)
    except pydantic.ValidationError as error:
        raise ArtefactError(f"{path}: not a manifest this version reads: {error}") from error
    for expected in manifest.files:
        file = folder / expected.path
        if not file.is_file():
            raise ArtefactError(f"{folder}: {expected.path} is in the manifest but not in the folder")
        actual = file_digest(file)
        if actual != expected:
            raise ArtefactError(
                f"{file}: sha256 {actual.sha256} ({actual.size_bytes} bytes), the manifest says {expected.sha256} "
                f"({expected.size_bytes} bytes); refusing to load it"
            )
    if ONNX_FILE not in {item.path for item in manifest.files}:
        raise ArtefactError(f"{folder}: the manifest lists no {ONNX_FILE}")
    return manifest


def as_json(value: Any) -> str:
    """Stable JSON for tags and files that people read."""
    return json.dumps(value, sort_keys=True, indent=2, default=str)
