import hashlib
from pathlib import Path

import pytest

from flightdeck.contracts.artefact import (
    MANIFEST,
    ONNX_FILE,
    ArtefactError,
    ModelManifest,
    file_digest,
    manifest_bytes,
    verify_artefact,
)


def write(folder: Path, *, files: tuple[str, ...] = (ONNX_FILE,)) -> str:
    for name in files:
        (folder / name).write_bytes(b"bytes of " + name.encode())
    manifest = ModelManifest(
        model="late",
        task="classification",
        horizon_min=120,
        unit="probability",
        feature_project="flightdeck",
        feature_service="late_v1",
        features=[],
        views={},
        decision_threshold=0.5,
        fallback_score=0.2,
        files=[file_digest(folder / name) for name in files],
    )
    content = manifest_bytes(manifest)
    (folder / MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def test_an_untouched_artefact_is_read(tmp_path):
    assert verify_artefact(tmp_path, write(tmp_path)).model == "late"


def test_another_digest_than_asked_for_is_refused(tmp_path):
    write(tmp_path)
    with pytest.raises(ArtefactError, match="asked for 0000"):
        verify_artefact(tmp_path, "0" * 64)


def test_one_changed_byte_in_the_model_is_refused(tmp_path):
    sha256 = write(tmp_path)
    model = tmp_path / ONNX_FILE
    model.write_bytes(model.read_bytes()[:-1] + b"!")
    with pytest.raises(ArtefactError, match=r"model\.onnx: sha256 .* refusing"):
        verify_artefact(tmp_path, sha256)


def test_a_missing_file_is_named(tmp_path):
    sha256 = write(tmp_path)
    (tmp_path / ONNX_FILE).unlink()
    with pytest.raises(ArtefactError, match=r"model\.onnx is in the manifest but not in the folder"):
        verify_artefact(tmp_path, sha256)


def test_an_artefact_without_a_model_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match=r"lists no model\.onnx"):
        verify_artefact(tmp_path, write(tmp_path, files=("notes.txt",)))


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ArtefactError, match=r"no manifest\.json"):
        verify_artefact(tmp_path, "0" * 64)


def test_a_manifest_cannot_point_outside_its_folder(tmp_path):
    sha256 = write(tmp_path)
    content = (tmp_path / MANIFEST).read_bytes().replace(b'"model.onnx"', b'"../model.onnx"')
    (tmp_path / MANIFEST).write_bytes(content)
    assert hashlib.sha256(content).hexdigest() != sha256
    with pytest.raises(ArtefactError, match="not a manifest"):
        verify_artefact(tmp_path, hashlib.sha256(content).hexdigest())
