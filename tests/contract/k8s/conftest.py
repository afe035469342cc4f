"""What each overlay renders to, once per session. Without kubectl nothing here can be said: loudly skipped."""

from __future__ import annotations

import functools
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from flightdeck.cluster.manifests import Document
from flightdeck.delivery.manifests.rules import Workload, workloads

__all__ = ["CHECKOUT", "K8S", "OVERLAYS", "Document", "Workload", "render", "table", "workloads"]

CHECKOUT = Path(__file__).resolve().parents[3]
K8S = CHECKOUT / "k8s"
OVERLAYS = ("kind", "minikube", "staging", "production")


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
