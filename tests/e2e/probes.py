"""TCP connections tried from inside the cluster: by exec in pods that have Python, or in pods made for it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import PLATFORM

OPEN = "open"
MARK = "flightdeck.dev/probe"
LONGEST_S = 600  # a probe ends by itself, should its owner forget
# All places at once, so that a pod's tries take 3 s in all. Names are asked by UDP, so port 53 is tried both ways.
_TRY = """
import concurrent.futures, json, socket, sys
def attempt(place):
    host, port = place.rsplit(":", 1)
    try:
        if port == "53":
            socket.getaddrinfo("kubernetes.default.svc", 443)
        socket.create_connection((host, int(port)), 3).close()
        return "open"
    except OSError as error:
        return f"{type(error).__name__}: {error}"
with concurrent.futures.ThreadPoolExecutor(len(sys.argv)) as pool:
    print(json.dumps(dict(zip(sys.argv[1:], pool.map(attempt, sys.argv[1:])))))
"""


@dataclasses.dataclass(frozen=True)
class Probe:
    """A pod that exists for its labels alone."""

    name: str
    namespace: str
    labels: Mapping[str, str]

    def alike(self, other: Probe) -> bool:
        """Whether policies see no difference."""
        return (self.namespace, self.labels) == (other.namespace, other.labels)


def attempts(kubectl: Kubectl, pod: Mapping[str, Any], places: Sequence[str]) -> dict[str, str]:
    """Of each `host:port`: `open`, or why there was no connection within 3 s."""
    meta, container = pod["metadata"], pod["spec"]["containers"][0]["name"]
    said = kubectl(
        "exec", meta["name"], "-n", meta["namespace"], "-c", container, "--", "python", "-c", _TRY, *places,
        timeout_s=60,
    )  # fmt: skip
    found: dict[str, str] = json.loads(said)
    return found


def python_image(kubectl: Kubectl) -> str:
    """An image with Python that the cluster runs already, by digest."""
    pod = kubectl.get("deployment", "mlflow", "-n", PLATFORM)["spec"]["template"]["spec"]
    return str(pod["containers"][0]["image"])


@contextlib.contextmanager
def running(kubectl: Kubectl, probes: Mapping[str, Probe]) -> Iterator[dict[str, dict[str, Any]]]:
    """The probes' pods, ready, under the same keys; gone with the block. One probe may stand for several keys."""
    image, namespaces = python_image(kubectl), sorted({it.namespace for it in probes.values()})
    items = [_pod(it, image) for it in {(it.namespace, it.name): it for it in probes.values()}.values()]
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    try:
        for namespace in namespaces:
            kubectl("wait", "pod", "-n", namespace, "-l", MARK, "--for=condition=Ready", "--timeout=90s", timeout_s=100)
        yield {key: kubectl.get("pod", it.name, "-n", it.namespace) for key, it in probes.items()}
    finally:
        for namespace in namespaces:
            kubectl("delete", "pod", "-n", namespace, "-l", MARK, "--wait=false")


def _pod(probe: Probe, image: str) -> dict[str, Any]:
    """It has no `app.kubernetes.io/name`: no Service, ReplicaSet or budget takes it for one of its own."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": probe.name, "namespace": probe.namespace, "labels": {MARK: "true", **probe.labels}},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "priorityClassName": "flightdeck-batch",
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LONGEST_S,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": "probe",
                "image": image,
                "command": ["python", "-c", f"import time; time.sleep({LONGEST_S})"],
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    }  # fmt: skip
