"""Deliveries on the real cluster: recorded, gone on with after a kill, rolled back by themselves, undone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.open_load import Load
from flightdeck.cluster import images
from flightdeck.cluster.champion import serving
from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.names import CHECKOUT, ENVIRONMENT, IMAGES, PLATFORM
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.ledger import DeliveryRecord, Verdict
from flightdeck.delivery import ledger
from flightdeck.delivery.deliver import LEASE
from tests.e2e.conftest import until_ready

STATE = StateLayout.from_env().root
DELIVERY_S = 1500
FLIGHTDECK = (sys.executable, "-m", "flightdeck.cli")
DELIVER = (*FLIGHTDECK, "deliver", "--environment", ENVIRONMENT.name, "--state", str(STATE), "--allow-older")


def run(*argv: str, timeout_s: float = DELIVERY_S) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=CHECKOUT)
    print(done.stdout, done.stderr)
    return done


def records(kubectl: Kubectl) -> list[DeliveryRecord]:
    found = ledger.read(kubectl, PLATFORM)
    assert ledger.gaps(found) == []
    return found


@pytest.fixture(scope="module")
def delivered(kubectl: Kubectl) -> DeliveryRecord:
    """A delivery that all serves, of this checkout: what `make up` made has no record yet."""
    done = run(*DELIVER)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "The longest, and what would shorten them:" in done.stdout
    return records(kubectl)[-1]


@pytest.mark.exhaustive
@pytest.mark.timeout(DELIVERY_S + 60)
def test_a_delivery_is_recorded_with_everything_by_digest(kubectl: Kubectl, delivered: DeliveryRecord, model: str):
    assert (delivered.verdict, delivered.environment) == (Verdict.DELIVERED, ENVIRONMENT.name)
    assert set(delivered.images) == {f"flightdeck/{it}" for it in IMAGES}
    assert all("@sha256:" in it for it in delivered.images.values())
    served, release = delivered.models[model], serving(kubectl, model)
    assert served.release is not None and release is not None and served.release.id == release.id
    assert served.release.image == delivered.images["flightdeck/predictor"]
    assert served.made_from is not None and served.made_from.table_versions and served.trained_from is not None
    assert {it.name for it in delivered.stages} >= {"deploy", "ready", "smoke", "load", "training", "rollout"}


@pytest.mark.exhaustive
@pytest.mark.timeout(DELIVERY_S)
def test_the_api_server_refuses_to_change_a_record(kubectl: Kubectl, delivered: DeliveryRecord):
    patch = json.dumps({"data": {ledger.RECORD: "{}"}})
    with pytest.raises(CommandFailed, match="immutable"):
        kubectl("patch", "configmap", ledger.name_of(delivered.number), "-n", PLATFORM, "--type=merge", "-p", patch)


@pytest.mark.exhaustive
@pytest.mark.timeout(DELIVERY_S)
def test_the_same_delivery_again_changes_and_trains_nothing(
    kubectl: Kubectl, delivered: DeliveryRecord, users: Load, model: str
):
    before = serving(kubectl, model)
    done = run(*DELIVER, timeout_s=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "nothing that it is made from changed" in done.stdout and "serves already" in done.stdout
    assert serving(kubectl, model) == before
    assert records(kubectl)[-1].number == delivered.number + 1
    assert not users.failed


@pytest.mark.exhaustive
@pytest.mark.timeout(DELIVERY_S)
def test_a_deployment_that_does_not_come_up_is_rolled_back_and_users_do_not_notice(
    kubectl: Kubectl, delivered: DeliveryRecord, users: Load, tmp_path: Path
):
    digests = dict(images.pushed(STATE))
    digests["flightdeck/pipelines"] = digests["flightdeck/mlflow"]  # holds none of the pipelines' code
    file = tmp_path / "images.json"
    file.write_text(json.dumps({"digests": digests}))
    done = run(*DELIVER, "--digests", str(file), timeout_s=900)
    assert done.returncode == 1
    assert "rolled back: delivery" in done.stderr and "dagster-code" in done.stderr
    newest = records(kubectl)[-1]
    assert newest.verdict is Verdict.ROLLED_BACK
    until_ready(kubectl)
    code = kubectl.get("deployment", "dagster-code", "-n", PLATFORM)["spec"]["template"]["spec"]["containers"][0]
    assert code["image"] == delivered.images["flightdeck/pipelines"]
    assert not users.failed


@pytest.mark.exhaustive
@pytest.mark.timeout(DELIVERY_S)
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_delivery_that_is_stopped_in_the_middle_is_gone_on_with(
    kubectl: Kubectl, delivered: DeliveryRecord, users: Load, how: signal.Signals
):
    before = len(records(kubectl))
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    stopped = subprocess.Popen(
        DELIVER, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=CHECKOUT, env=environment
    )
    assert stopped.stdout is not None
    for line in stopped.stdout:
        if "] smoke ..." in line:
            break
    stopped.send_signal(how)
    stopped.communicate(timeout=60)
    assert stopped.returncode != 0
    assert len(records(kubectl)) == before
    assert ledger.noted(kubectl, PLATFORM)["stage"] == "smoke"
    began = time.monotonic()
    done = run(*DELIVER, timeout_s=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "which did not end; it was at: smoke" in done.stdout
    assert how is not signal.SIGKILL or time.monotonic() - began > 1  # a dead holder is waited out
    assert len(records(kubectl)) == before + 1 and not ledger.noted(kubectl, PLATFORM)
    assert kubectl.find("lease", LEASE, PLATFORM) is None
    assert not users.failed


@pytest.mark.exhaustive
@pytest.mark.timeout(DELIVERY_S)
def test_a_recorded_delivery_is_deployed_again(kubectl: Kubectl, delivered: DeliveryRecord, users: Load):
    done = run(*FLIGHTDECK, "release", "undo", str(delivered.number), "--state", str(STATE), timeout_s=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    newest = records(kubectl)[-1]
    assert (newest.undoes, newest.images, newest.manifests) == (
        delivered.number, delivered.images, delivered.manifests,
    )  # fmt: skip
    assert not users.failed


@pytest.mark.parametrize("environment", ["staging", "production"])
def test_the_api_server_accepts_every_environment_beside_this_one(kubectl: Kubectl, environment: str):
    done = subprocess.run(
        (*FLIGHTDECK, "deploy", "--overlay", "kind", "--dry-run", "--state", str(STATE)), cwd=CHECKOUT,
        env={**os.environ, "FLIGHTDECK_ENVIRONMENT": environment}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
