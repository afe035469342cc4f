"""What each overlay renders to, once per session. Without kubectl nothing here can be said: loudly skipped."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
K8S = CHECKOUT / "k8s"
OVERLAYS = ("kind", "minikube", "staging", "production")
Document = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Workload:
    """A thing that makes pods, and the pod it makes."""

    kind: str
    name: str
    namespace: str
    labels: dict[str, str]
    pod: Document

    @property
    def containers(self) -> list[Document]:
        return [*self.pod.get("initContainers", []), *self.pod["containers"]]

    @property
    def stays(self) -> bool:
        """It is meant to run forever."""
        return self.kind in ("Deployment", "StatefulSet", "DaemonSet", "PodTemplate")

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


@functools.cache
def _render(folder: Path) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("NOT TESTED: no kubectl on the PATH, so no manifest was rendered or checked")
    command = ("kubectl", "kustomize", str(folder))
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{folder} does not render:\n{done.stderr}"
    return done.stdout


def render(folder: Path) -> list[Document]:
    return [document for document in yaml.safe_load_all(_render(folder)) if document]


def workloads(documents: list[Document]) -> Iterator[Workload]:
    for it in documents:
        template: Document
        if it["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            template = it["spec"]["template"]
        elif it["kind"] == "CronJob":
            template = it["spec"]["jobTemplate"]["spec"]["template"]
        elif it["kind"] == "PodTemplate":
            template = it["template"]
        else:
            continue
        meta = it["metadata"]
        labels = template.get("metadata", {}).get("labels", {})
        yield Workload(it["kind"], meta["name"], meta["namespace"], labels, template["spec"])


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> tuple[str, list[Document]]:
    """Name and documents of each overlay in turn."""
    return request.param, render(K8S / "overlays" / request.param)


@pytest.fixture
def kind_overlay() -> list[Document]:
    return render(K8S / "overlays" / "kind")


@pytest.fixture
def page() -> str:
    return (CHECKOUT / "docs" / "kubernetes.md").read_text()


def table(page: str, heading: str) -> list[list[str]]:
    """Rows of the first table under a heading, without its head; cells stripped."""
    part = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip().strip("|").split("|") for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]
