"""A model that is not what its release says is never served: the pod says so and ends, and users notice nothing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.open_load import Load
from flightdeck.cluster.champion import TEMPLATE, apply, serving
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import SERVING
from flightdeck.contracts.release import Release
from services.rollout_operator import workloads
from tests.e2e.conftest import first_failure

pytestmark = pytest.mark.usefixtures("settled")
WITHIN_S = 120.0
CANNOT_START = 3  # exit code of a predictor whose settings or artefact are wrong


@contextlib.contextmanager
def stamped_out(kubectl: Kubectl, release: Release) -> Iterator[None]:
    """The release's workload, made as the champion's was; gone with the block."""
    template = kubectl.find("podtemplate", TEMPLATE, SERVING)
    assert template is not None, f"no PodTemplate {TEMPLATE} in {SERVING}"
    name = workloads.workload_name(release)
    try:
        apply(kubectl, workloads.release_objects(template, release, namespace=SERVING, replicas=1, owner=None))
        yield
    finally:
        kubectl("delete", "deployment,service", name, "-n", SERVING, "--ignore-not-found", "--wait=false")
        kubectl("wait", "pod", "-n", SERVING, "-l", pods_of(release), "--for=delete", "--timeout=60s")


def test_a_model_with_another_sha256_is_refused_in_one_sentence_and_gets_no_request(
    kubectl: Kubectl, model: str, load: Callable[..., Load], note: Callable[..., None]
):
    champion = serving(kubectl, model)
    assert champion is not None, f"{model} has no champion"
    other = champion.model.sha256[::-1]  # of the same model, mounted as it is
    altered = champion.model_copy(update={"model": champion.model.model_copy(update={"sha256": other})})
    users = load()
    users.more(80)
    began = time.monotonic()
    with stamped_out(kubectl, altered):
        pod = until_it_ended_twice(kubectl, altered)
        took = time.monotonic() - began
        said = kubectl("logs", pod["metadata"]["name"], "-n", SERVING, "--previous").strip().splitlines()
        users.more(80)

    ended = pod["status"]["containerStatuses"][0]["lastState"]["terminated"]
    assert ended["exitCode"] == CANNOT_START, f"the predictor ended with {ended['exitCode']}, not {CANNOT_START}"
    for words in ("predictor: ", f"sha256 {champion.model.sha256}, asked for {other}", "refusing"):
        assert len(said) == 1 and words in said[0], f"expected one line with {words!r}, and it said: {said}"
    backends = backends_of(kubectl, model)
    assert set(backends) == {workloads.workload_name(champion)}, f"the route sends users to {backends}"
    for name in backends:
        chosen = kubectl.get("service", name, "-n", SERVING)["spec"]["selector"]
        assert not chosen.items() <= pod["metadata"]["labels"].items(), f"Service {name} selects the refused pod"
    note("a model with another sha256 than its release says", users.answers, took, "refused twice, never ready")
    assert not users.failed, first_failure(users.answers)


def pods_of(release: Release) -> str:
    return f"flightdeck.dev/model={release.model.name},flightdeck.dev/release={release.id}"


def backends_of(kubectl: Kubectl, model: str) -> list[str]:
    """Names of the Services that the model's users are routed to."""
    rules = kubectl.get("httproute", model, "-n", SERVING)["spec"]["rules"]
    return [it["name"] for rule in rules for it in rule["backendRefs"]]


def until_it_ended_twice(kubectl: Kubectl, release: Release) -> dict[str, Any]:
    """The release's pod once it ended a second time; it must not be ready at any look."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        pods: list[dict[str, Any]] = kubectl.get("pods", "-n", SERVING, "-l", pods_of(release))["items"]
        for pod in pods:
            conditions = {it["type"]: it["status"] for it in pod["status"].get("conditions", ())}
            assert conditions.get("Ready") != "True", f"{pod['metadata']['name']} with a wrong model is ready"
            for it in pod["status"].get("containerStatuses", ()):
                if it["restartCount"] and "terminated" in it["lastState"] and "waiting" in it["state"]:
                    return pod
        shown = [it["status"].get("containerStatuses") or it["status"]["phase"] for it in pods]
        assert time.monotonic() < deadline, f"no pod of {release.short} ended twice in {WITHIN_S:.0f} s: {shown}"
        time.sleep(0.5)
