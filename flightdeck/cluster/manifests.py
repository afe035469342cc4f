"""What an overlay renders to, and in which order it goes to the API server. Pure, but for `render`."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from flightdeck.cluster.commands import run
from flightdeck.cluster.environments import placed
from flightdeck.cluster.names import ENVIRONMENT as HERE

Document: TypeAlias = dict[str, Any]

FOUNDATIONS = ("Namespace", "CustomResourceDefinition", "PriorityClass")  # the rest cannot even be checked without them
HASH = "flightdeck.dev/content"  # label of a Job: eight digits of what it does
ENVIRONMENT = "flightdeck.dev/environment"  # annotation of a pod: eight digits of the ConfigMaps that it reads
WORKLOADS = ("Deployment", "StatefulSet", "Job", "CronJob")
OURS = "flightdeck/"  # how the manifests name the images that are built here


class ManifestError(ValueError):
    """An overlay that is not there or cannot be deployed as it is."""


def render(overlay: Path, images: Mapping[str, str]) -> list[Document]:
    """The documents of an overlay, with our images by digest.

    Args:
        overlay: folder with a kustomization.
        images: name in the manifests -> `registry/name@sha256:...`.
    Raises:
        ManifestError: there is no such overlay, or an image of ours has no digest.
        CommandFailed: kustomize refuses it.
    """
    if not (overlay / "kustomization.yaml").is_file():
        there = ", ".join(sorted(path.parent.name for path in overlay.parent.glob("*/kustomization.yaml")))
        raise ManifestError(f"no overlay {overlay}; there are: {there or 'none'}")
    with tempfile.TemporaryDirectory() as folder:
        # A kustomization of the moment on top: Git's overlays stay without digests, and a clean checkout stays clean.
        top = Path(folder).resolve()
        content = {
            "resources": [os.path.relpath(overlay.resolve(), top)],
            "images": [_replacement(name, reference) for name, reference in sorted(images.items())],
            # Dagster's runs take the image of their code location: told once the digest is known.
            "replacements": yaml.safe_load((overlay.parents[1] / "run-image.yaml").read_text()),
        }
        (top / "kustomization.yaml").write_text(yaml.safe_dump(content))
        documents = kustomize(top)
    # A name of ours that nothing replaced: a node would look for it in a public registry, where it may be anybody's.
    unpinned = sorted({image for image in images_of(documents) if image.startswith(OURS)})
    if unpinned:
        raise ManifestError(f"{overlay.name}: no digest for {', '.join(unpinned)}; run `flightdeck images push` first")
    return documents


def kustomize(folder: Path) -> list[Document]:
    """The documents of a kustomization, under the names of this process's environment.

    Raises:
        CommandFailed: kustomize refuses it.
    """
    return placed([it for it in yaml.safe_load_all(run(("kubectl", "kustomize", str(folder)))) if it], HERE)


def _replacement(name: str, reference: str) -> dict[str, str]:
    repository, at, digest = reference.partition("@")
    if not at:
        raise ManifestError(f"image {name}: {reference} is not named by digest; deploys take only digests")
    return {"name": name, "newName": repository, "digest": digest}


def images_of(documents: Sequence[Document]) -> list[str]:
    """Every container image that the documents name."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key in ("containers", "initContainers"):
                found.extend(str(item["image"]) for item in value.get(key) or () if isinstance(item, dict))
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(list(documents))
    return found


def name_of(document: Document) -> str:
    """`kind/namespace/name`, for people."""
    meta = document["metadata"]
    return "/".join(part for part in (document["kind"].lower(), meta.get("namespace"), meta["name"]) if part)


def split(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """(what the rest needs to be checked against, the rest)."""
    first = [document for document in documents if document["kind"] in FOUNDATIONS]
    return first, [document for document in documents if document["kind"] not in FOUNDATIONS]


def with_environment(documents: Sequence[Document]) -> list[Document]:
    """The documents; every pod that takes its environment from a ConfigMap carries a digest of its content.

    A pod reads its environment once: without that a changed address would reach some pods now and others weeks later,
    at their next restart. The predictor's PodTemplate is left alone: a release never changes by itself.
    """
    found = copy.deepcopy(list(documents))
    digests = {
        (it["metadata"].get("namespace"), it["metadata"]["name"]): _digest(it.get("data"))
        for it in found if it["kind"] == "ConfigMap"
    }  # fmt: skip
    for it in found:
        if it["kind"] not in WORKLOADS:
            continue
        spec = it["spec"]["jobTemplate"]["spec"] if it["kind"] == "CronJob" else it["spec"]
        pod = spec["template"]
        containers = [*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]]
        names = {
            item["configMapRef"]["name"] for c in containers for item in c.get("envFrom", ()) if "configMapRef" in item
        }
        seen = {name: digests[place] for name in names if (place := (it["metadata"].get("namespace"), name)) in digests}
        if seen:
            pod.setdefault("metadata", {}).setdefault("annotations", {})[ENVIRONMENT] = _digest(seen)
    return found


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def jobs_by_content(documents: Sequence[Document]) -> list[Document]:
    """The documents, each Job named by what it does.

    A Job cannot be changed: one that does the same again keeps its name and is left alone, one that does something
    else is another Job.
    """
    return [_by_content(it) if it["kind"] == "Job" else it for it in documents]


def _by_content(job: Document) -> Document:
    named = copy.deepcopy(job)
    digest = _digest(named["spec"])
    meta = named["metadata"]
    meta["labels"] = {**meta.get("labels", {}), "flightdeck.dev/job": meta["name"], HASH: digest}
    meta["name"] = f"{meta['name']}-{digest}"
    return named


def as_yaml(documents: Sequence[Document]) -> str:
    """One stream, each document as JSON, which is YAML: a digest like 96e54321 stays text.

    Left without quotes, as PyYAML writes it, Go's reader of YAML takes it for a number.
    """
    return "".join(f"---\n{json.dumps(document)}\n" for document in documents)
