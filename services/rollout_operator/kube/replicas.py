"""What pods and EndpointSlices say of a release's replicas. Pure: documents in, figures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.rollout_operator.ports import Seen
from services.rollout_operator.workloads import PORT

RELEASE = "flightdeck.dev/release"
MODEL = "flightdeck.dev/model"
# Waiting reasons that are no mere beginning, and say why a replica does not come up.
STUCK = {
    "CrashLoopBackOff", "ImagePullBackOff", "ErrImagePull", "ErrImageNeverPull", "InvalidImageName",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
}  # fmt: skip
LONGEST = 300  # characters of a last message


def seen(release: str, pods: Sequence[Mapping[str, Any]], slices: Sequence[Mapping[str, Any]]) -> Seen:
    """Replicas of the release with this id.

    Ready is who the Gateway sends requests to: ready endpoints that are not ending. A restart of a container is a
    death; a pod that waits for its image is none, but it says why.
    """
    mine = [pod for pod in pods if _label(pod, RELEASE) == release]
    statuses = [(pod["metadata"]["name"], it) for pod in mine for it in _containers(pod)]
    deaths = sum(int(it.get("restartCount", 0)) for _, it in statuses)
    deaths += sum(pod.get("status", {}).get("phase") == "Failed" for pod in mine)  # evicted, or lost with its node
    told = [words for name, it in statuses if (words := death(name, it))] or [
        words for it in mine if (words := wait(it))
    ]
    return Seen(len(addresses(release, slices)), len(mine), deaths, told[-1] if told else "")


def death(pod: str, status: Mapping[str, Any]) -> str:
    """How a container died last or why it does not start; empty when neither."""
    waiting = status.get("state", {}).get("waiting") or {}
    ended = status.get("lastState", {}).get("terminated") or status.get("state", {}).get("terminated") or {}
    parts = []
    if waiting.get("reason") in STUCK:
        parts.append(f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": "))
    if ended and (ended.get("exitCode") or ended.get("signal") or parts):
        how = f"signal {ended['signal']}" if ended.get("signal") else f"exit code {ended.get('exitCode')}"
        message = str(ended.get("message") or "").strip().rpartition("\n")[2].strip()  # the last of its log lines
        parts.append(f"{ended.get('reason', 'ended')}, {how}" + (f": {message}" if message else ""))
    return f"{pod}: {'; '.join(parts)}"[:LONGEST] if parts else ""


def wait(pod: Mapping[str, Any]) -> str:
    """What a pod that neither died nor is stuck waits for; empty when it is ready."""
    name = pod["metadata"]["name"]
    for condition in pod.get("status", {}).get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{name}: {condition.get('reason', 'not scheduled')}: {condition.get('message', '')}"[:LONGEST]
    if any("running" in it.get("state", {}) and not it.get("ready") for it in _containers(pod)):
        return f"{name}: it runs, but its readiness probe does not pass"
    return ""


def addresses(release: str, slices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Addresses of its ready endpoints, sorted."""
    return sorted(
        {
            address
            for it in slices if _label(it, RELEASE) == release
            for endpoint in it.get("endpoints") or () if _ready(endpoint)
            for address in endpoint.get("addresses", ())
        }
    )  # fmt: skip


def page(address: str, path: str) -> str:
    """Where a replica answers."""
    return f"http://{f'[{address}]' if ':' in address else address}:{PORT}{path}"


def owners(slices: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Address -> id of the release whose replica has it; not only ready ones: who fell ill was asked a moment ago."""
    return {
        address: _label(it, RELEASE)
        for it in slices if _label(it, RELEASE)
        for endpoint in it.get("endpoints") or ()
        for address in endpoint.get("addresses", ())
    }  # fmt: skip


def has_service(name: str, slices: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the Service stands: one without endpoints has an empty slice."""
    return any(_label(it, "kubernetes.io/service-name") == name for it in slices)


def _ready(endpoint: Mapping[str, Any]) -> bool:
    conditions = endpoint.get("conditions") or {}
    return conditions.get("ready") is not False and not conditions.get("terminating")


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    status = pod.get("status", {})
    return [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]


def _label(document: Mapping[str, Any], name: str) -> str:
    return str((document["metadata"].get("labels") or {}).get(name, ""))
