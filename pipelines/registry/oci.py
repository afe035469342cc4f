"""A model artefact as an OCI image, so that nodes pull, cache and mount it by digest as they do code."""

from __future__ import annotations

import os
from pathlib import Path

from flightdeck.contracts.artefact import verify_artefact
from flightdeck.contracts.release import ModelRef
from pipelines.registry import distribution
from pipelines.registry.distribution import OciImage

PUSH_ENV = "FLIGHTDECK_MODEL_PUSH"  # address with scheme, as this process reaches the registry
PULL_ENV = "FLIGHTDECK_MODEL_PULL"  # as the nodes name it; default: the address without scheme


class PushFailed(RuntimeError):
    """The registry does not answer or refuses; the version stays registered and can be pushed again."""


def image_of(folder: Path, sha256: str) -> OciImage:
    """The image of a checked artefact; its files lie at the root, readable for every user.

    Raises:
        ArtefactError: the folder is not the artefact that `sha256` names.
    """
    manifest = verify_artefact(folder, sha256)
    return distribution.image_with(
        {path.name: path.read_bytes() for path in folder.iterdir()},
        {
            "org.opencontainers.image.title": manifest.model,
            "dev.flightdeck.sha256": sha256,
            "dev.flightdeck.feature-service": manifest.feature_service,
        },
    )


def push_model(folder: Path, sha256: str, *, name: str, push: str, pull: str | None = None) -> str:
    """Push an artefact under the tag of its sha256; returns `<pull>/<name>@sha256:...`.

    Safe to repeat: what the registry has is not sent again.

    Raises:
        PushFailed: the registry does not answer, refuses, or stored something else.
        ArtefactError: the folder is not the artefact.
    """
    image = image_of(folder, sha256)
    if "://" not in push:
        raise PushFailed(f"{PUSH_ENV}={push}: not an address like http://kind-registry:5000/flightdeck/models")
    try:
        base, path = distribution.address(push)
        distribution.push(image, base, f"{path}/{name}".strip("/"), sha256)
    except ValueError as error:
        raise PushFailed(f"{PUSH_ENV}={push}: {error}") from error
    except distribution.RegistryFailed as error:
        raise PushFailed(str(error)) from error
    shown = (pull or push.partition("://")[2]).rstrip("/")
    return f"{shown}/{name}@{image.digest}"


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
