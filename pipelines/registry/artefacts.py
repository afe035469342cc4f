"""The artefact store: folders named by the sha256 of their manifest; written once, checked at every read."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from flightdeck.contracts.artefact import (
    MANIFEST,
    ONNX_FILE,
    ArtefactError,
    FileDigest,
    ModelManifest,
    manifest_bytes,
    verify_artefact,
)


def bytes_digest(name: str, content: bytes) -> FileDigest:
    """Size and sha256 of a file that is not written yet."""
    return FileDigest(path=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def store(root: Path, manifest: ModelManifest, onnx: bytes) -> tuple[str, Path]:
    """Write an artefact; returns its sha256 and folder.

    It appears whole or not at all (a rename), and an artefact that is there already is checked and kept.

    Raises:
        ArtefactError: a folder of this digest is there with other content.
    """
    content = manifest_bytes(manifest)
    sha256 = hashlib.sha256(content).hexdigest()
    folder = root / sha256
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=root))
        (draft / MANIFEST).write_bytes(content)
        (draft / ONNX_FILE).write_bytes(onnx)
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError:  # another process was first: same digest, same content, checked below
            shutil.rmtree(draft)
    verify_artefact(folder, sha256)
    return sha256, folder


def adopt(root: Path, downloaded: Path, sha256: str) -> Path:
    """Move a downloaded artefact into the store after it was checked; returns its folder.

    Raises:
        ArtefactError: it is not what was asked for; nothing is kept.
    """
    verify_artefact(downloaded, sha256)
    root.mkdir(parents=True, exist_ok=True)
    folder = root / sha256
    if not folder.exists():
        draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=root))
        for file in downloaded.iterdir():
            shutil.copy2(file, draft / file.name)
        draft.chmod(0o755)
        try:
            draft.rename(folder)
        except OSError:
            shutil.rmtree(draft)
    verify_artefact(folder, sha256)
    return folder


def opened(root: Path, sha256: str) -> tuple[ModelManifest, Path]:
    """The manifest and the ONNX file of a stored artefact, checked to the last byte.

    Raises:
        ArtefactError: absent or altered.
    """
    folder = root / sha256
    if not folder.is_dir():
        raise ArtefactError(f"no artefact {sha256} under {root}; fetch it with `flightdeck models fetch NAME VERSION`")
    return verify_artefact(folder, sha256), folder / ONNX_FILE
