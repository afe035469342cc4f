"""Deploys refuse before they touch anything, wait for each other, and change nothing when nothing is to change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flightdeck.cluster import deploy, overlays
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.deploy import DeployRefused
from flightdeck.cluster.names import CHECKOUT, K8S, PLATFORM
from flightdeck.cluster.target import How, Target
from flightdeck.contracts.layout import StateLayout
from tests.e2e.conftest import until_ready

STATE = StateLayout.from_env().root
OVERLAYS = sorted(path.parent.name for path in (K8S / "overlays").glob("*/kustomization.yaml"))


@pytest.fixture(scope="module")
def overlay(kubectl: Kubectl) -> str:
    """The one that `make up` deployed."""
    return Target(kubectl.context, How.EXISTING).overlay


def run(*argv: str, cwd: Path = CHECKOUT) -> subprocess.CompletedProcess[str]:
    program = (sys.executable, "-m", "flightdeck.cli", "deploy", "--state", str(STATE), *argv)
    return subprocess.run(program, capture_output=True, text=True, timeout=600, check=False, cwd=cwd)


def test_a_deploy_of_what_is_there_changes_nothing(overlay: str):
    done = run("--overlay", overlay)
    assert done.returncode == 0, done.stderr
    assert "nothing changed" in done.stdout


def test_a_manifest_with_a_wrong_key_is_refused_before_anything_is_touched(kubectl: Kubectl, overlay: str):
    documents = overlays.documents(overlay, STATE)
    wrong = next(it for it in documents if it["kind"] == "Deployment")
    wrong["spec"]["replcas"] = 7
    other = next(it for it in documents if it["kind"] == "ConfigMap")
    other["data"]["planted"] = "yes"
    with pytest.raises(DeployRefused, match=r"nothing was changed[\s\S]*replcas"):
        deploy.deploy(kubectl, documents)
    found = kubectl.get("configmap", other["metadata"]["name"], "-n", other["metadata"]["namespace"])
    assert "planted" not in found["data"]


@pytest.mark.exhaustive
def test_two_deploys_at_once_both_end_well_one_after_the_other(kubectl: Kubectl, overlay: str):
    argv = (sys.executable, "-m", "flightdeck.cli", "deploy", "--state", str(STATE), "--overlay", overlay)
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)]
    said = [it.communicate(timeout=600)[0] for it in both]
    assert [it.returncode for it in both] == [0, 0], said
    assert kubectl.find("lease", deploy.LEASE, PLATFORM) is None
    until_ready(kubectl)


@pytest.mark.exhaustive
def test_an_overlay_that_names_an_image_without_digest_is_refused(overlay: str, tmp_path: Path):
    (tmp_path / "images.json").write_text("{}")
    done = subprocess.run(
        (sys.executable, "-m", "flightdeck.cli", "deploy", "--state", str(tmp_path), "--overlay", overlay),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "flightdeck images push" in done.stderr


@pytest.mark.parametrize(
    "overlay", sorted(path.parent.name for path in (K8S / "overlays").glob("*/kustomization.yaml"))
)
def test_every_overlay_is_accepted_by_the_api_server(kubectl: Kubectl, overlay: str):
    done = run("--overlay", overlay, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
