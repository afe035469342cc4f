"""Adapter: one model artefact from the local folder, else from MLflow's REST proxy; never without its digest.

MLflow's own client costs seconds of import; the four calls that are needed are plain HTTP.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import urllib.parse
from pathlib import Path
from typing import Any

import httpx
import pydantic

from flightdeck.contracts.artefact import MANIFEST, ArtefactError, ModelManifest, verify_artefact

_API = "/api/2.0/mlflow"
_LARGEST_MANIFEST_BYTES = 5_000_000
_LARGEST_FILE_BYTES = 2_000_000_000


def obtain_artefact(
    *, artefacts: Path, name: str, version: str, sha256: str, tracking_uri: str | None, timeout_s: float = 30.0
) -> tuple[Path, ModelManifest]:
    """The folder and manifest of one model version, every byte checked against `sha256`.

    Raises:
        ArtefactError: it is nowhere to be had, or it is not what was asked for.
    """
    folder = artefacts / sha256
    if not folder.is_dir():
        if not tracking_uri:
            raise ArtefactError(
                f"model {name} version {version}: no folder {folder}, and PREDICTOR_TRACKING_URI is not set; "
                f"run `flightdeck models fetch {name} {version}` or name an MLflow server"
            )
        _fetch(artefacts, name=name, version=version, sha256=sha256, tracking_uri=tracking_uri, timeout_s=timeout_s)
    manifest = verify_artefact(folder, sha256)
    if manifest.model != name:
        raise ArtefactError(f"{folder}: this is a model {manifest.model!r}, asked for {name!r}; refusing to load it")
    return folder, manifest


def _fetch(artefacts: Path, *, name: str, version: str, sha256: str, tracking_uri: str, timeout_s: float) -> None:
    """Download into a hidden folder, check, then rename: a reader sees all of it or nothing."""
    at = urllib.parse.urlsplit(tracking_uri)
    login = at.username and (urllib.parse.unquote(at.username), urllib.parse.unquote(at.password or ""))
    tracking_uri = at._replace(netloc=at.netloc.rpartition("@")[2]).geturl().rstrip("/")  # no password in any message
    artefacts.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{sha256[:12]}-", dir=artefacts))
    try:
        with httpx.Client(base_url=tracking_uri, auth=login or None, timeout=timeout_s, trust_env=False) as client:
            source = _source(client, name, version, sha256)
            _download(client, f"{source}/{MANIFEST}", partial / MANIFEST, _LARGEST_MANIFEST_BYTES)
            content = (partial / MANIFEST).read_bytes()
            found = hashlib.sha256(content).hexdigest()
            if found != sha256:
                raise ArtefactError(
                    f"model {name} version {version} at {tracking_uri}: manifest has sha256 {found}, "
                    f"asked for {sha256}; refusing to load it"
                )
            manifest = ModelManifest.model_validate_json(content)
            for item in manifest.files:
                _download(
                    client, f"{source}/{item.path}", partial / item.path, min(item.size_bytes, _LARGEST_FILE_BYTES)
                )
        verify_artefact(partial, sha256)
        partial.chmod(0o755)
        try:
            partial.rename(artefacts / sha256)
        except OSError:
            if not (artefacts / sha256).is_dir():  # another process may have been quicker: its copy is checked as well
                raise
    except (httpx.HTTPError, pydantic.ValidationError, OSError, KeyError, ValueError) as error:
        if isinstance(error, ArtefactError):
            raise
        raise ArtefactError(f"model {name} version {version}: cannot fetch it from {tracking_uri}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _source(client: httpx.Client, name: str, version: str, sha256: str) -> str:
    """The path of the artefact behind MLflow's artefact proxy."""
    about = _json(client, f"{_API}/model-versions/get", {"name": name, "version": version})["model_version"]
    tags = {tag["key"]: tag["value"] for tag in about.get("tags", [])}
    if tags.get("sha256", sha256) != sha256:
        raise ArtefactError(
            f"model {name} version {version} is registered with sha256 {tags['sha256']}, asked for {sha256}; "
            "refusing to load it"
        )
    uri = _json(client, f"{_API}/model-versions/get-download-uri", {"name": name, "version": version})["artifact_uri"]
    if uri.startswith("runs:/"):
        run_id, _, path = uri.removeprefix("runs:/").partition("/")
        run = _json(client, f"{_API}/runs/get", {"run_id": run_id})["run"]
        uri = f"{run['info']['artifact_uri'].rstrip('/')}/{path}"
    parsed = urllib.parse.urlsplit(uri)
    if parsed.scheme != "mlflow-artifacts":
        raise ArtefactError(
            f"model {name} version {version}: its artefact is at {uri}; only proxied artefacts (mlflow-artifacts:) are "
            "fetched, start MLflow with --serve-artifacts"
        )
    return "/api/2.0/mlflow-artifacts/artifacts/" + urllib.parse.quote(parsed.path.strip("/"))


def _json(client: httpx.Client, path: str, params: dict[str, str]) -> Any:
    response = client.get(path, params=params)
    if response.is_error:
        raise ArtefactError(f"MLflow answered {response.status_code} to {path} {params}: {response.text[:300]}")
    return response.json()


def _download(client: httpx.Client, path: str, target: Path, largest_bytes: int) -> None:
    with client.stream("GET", path) as response:
        response.raise_for_status()
        size = 0
        with target.open("wb") as file:
            for chunk in response.iter_bytes(1 << 16):
                size += len(chunk)
                if size > largest_bytes:
                    raise ArtefactError(f"{path}: larger than the {largest_bytes} bytes expected; refusing to load it")
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
