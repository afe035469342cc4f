"""Adapter: a model artefact as an OCI image, so that nodes pull, cache and mount it by digest as they do code.

One layer with the artefact's files, made so that equal content has equal bytes (OCI image-spec 1.1; distribution-spec
1.1, monolithic upload). The package `oras` would push it, too, but packs tars with the time of packing, so the same
model would get another digest each time; the four requests that are needed stand below.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import tarfile
import urllib.parse
from pathlib import Path

import httpx

from flightdeck.contracts.artefact import verify_artefact
from flightdeck.contracts.release import ModelRef

PUSH_ENV = "FLIGHTDECK_MODEL_PUSH"  # address with scheme, as this process reaches the registry
PULL_ENV = "FLIGHTDECK_MODEL_PULL"  # as the nodes name it; default: the address without scheme
USER_ENV, PASSWORD_ENV = "FLIGHTDECK_MODEL_USER", "FLIGHTDECK_MODEL_PASSWORD"  # basic authentication, if any
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"


class PushFailed(RuntimeError):
    """The registry does not answer or refuses; the version stays registered and can be pushed again."""


@dataclasses.dataclass(frozen=True)
class OciImage:
    """The bytes of an image: what is pushed."""

    layer: bytes
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """`sha256:...` of the manifest: what names the image."""
        return digest_of(self.manifest)


def digest_of(content: bytes) -> str:
    """As OCI writes it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def image_of(folder: Path, sha256: str) -> OciImage:
    """The image of a checked artefact; its files lie at the root, readable for every user.

    Raises:
        ArtefactError: the folder is not the artefact that `sha256` names.
    """
    manifest = verify_artefact(folder, sha256)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.name)
            entry.size, entry.mode = len(content), 0o644  # times, owner and group stay 0: equal content, equal bytes
            tar.addfile(entry, io.BytesIO(content))
    layer = buffer.getvalue()
    config = _json(
        {
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
    )  # fmt: skip
    document = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": LAYER_TYPE, "digest": digest_of(layer), "size": len(layer)}],
            "annotations": {
                "org.opencontainers.image.title": manifest.model,
                "dev.flightdeck.sha256": sha256,
                "dev.flightdeck.feature-service": manifest.feature_service,
            },
        }
    )
    return OciImage(layer, config, document)


def _json(content: dict[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def push_model(folder: Path, sha256: str, *, name: str, push: str, pull: str | None = None) -> str:
    """Push an artefact under the tag of its sha256; returns `<pull>/<name>@sha256:...`.

    Safe to repeat: what the registry has is not sent again.

    Raises:
        PushFailed: the registry does not answer, refuses, or stored something else.
        ArtefactError: the folder is not the artefact.
    """
    image = image_of(folder, sha256)
    at = urllib.parse.urlsplit(push.rstrip("/"))
    if at.scheme not in ("http", "https") or not at.netloc:
        raise PushFailed(f"{PUSH_ENV}={push}: not an address like http://kind-registry:5000/flightdeck/models")
    repository = f"{at.path.strip('/')}/{name}".strip("/")
    user = os.environ.get(USER_ENV)
    login = (user, os.environ.get(PASSWORD_ENV, "")) if user else None
    base = f"{at.scheme}://{at.netloc}"
    try:
        with httpx.Client(base_url=base, auth=login, timeout=60, follow_redirects=True) as client:
            for blob in (image.layer, image.config):
                _push_blob(client, repository, blob)
            url = f"/v2/{repository}/manifests/{sha256}"
            put = client.put(url, content=image.manifest, headers={"content-type": MANIFEST_TYPE})
            _expect(put, 201, f"put the manifest of {name}")
            found = client.head(f"/v2/{repository}/manifests/{image.digest}", headers={"accept": MANIFEST_TYPE})
            _expect(found, 200, f"find {name}@{image.digest} again")
    except httpx.HTTPError as error:
        raise PushFailed(f"the registry at {base} does not answer: {error or type(error).__name__}") from error
    shown = (pull or f"{at.netloc}{at.path}").rstrip("/")
    return f"{shown}/{name}@{image.digest}"


def _push_blob(client: httpx.Client, repository: str, content: bytes) -> None:
    digest = digest_of(content)
    if client.head(f"/v2/{repository}/blobs/{digest}").status_code == 200:
        return
    started = client.post(f"/v2/{repository}/blobs/uploads/")
    _expect(started, 202, "start an upload")
    where = httpx.URL(started.headers["location"])
    place = where.copy_merge_params({"digest": digest})
    done = client.put(place, content=content, headers={"content-type": "application/octet-stream"})
    _expect(done, 201, f"upload {len(content):,} bytes")


def _expect(answer: httpx.Response, status: int, what: str) -> None:
    if answer.status_code != status:
        raise PushFailed(
            f"the registry at {answer.request.url.host} did not {what}: {answer.status_code} {answer.text[:300]}"
        )


def publish(ref: ModelRef, folder: Path, *, tracking_uri: str) -> ModelRef:
    """Push a registered version where `FLIGHTDECK_MODEL_PUSH` says, and note the image at the version; returns both.

    Without that variable (the lab) nothing is pushed.

    Raises:
        PushFailed, ArtefactError: see `push_model`.
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or refuses.
    """
    from pipelines.registry.mlflow_adapter import MlflowRegistry

    push = os.environ.get(PUSH_ENV)
    if not push:
        return ref
    image = push_model(folder, ref.sha256, name=ref.name, push=push, pull=os.environ.get(PULL_ENV))
    MlflowRegistry(tracking_uri).tag_version(ref.name, ref.version, {"image": image})
    return ref.model_copy(update={"image": image})
