"""Is each part ready, and when not: which pod, why, and its last words. The reading is pure; `wait_ready` asks."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flightdeck.cluster.commands import CommandFailed, Kubectl

KINDS = "deployments,statefulsets,daemonsets,jobs"
HOPELESS = frozenset({"CreateContainerConfigError", "InvalidImageName", "ErrImageNeverPull", "CreateContainerError"})
FORGIVEN_S = 30.0
PATIENCE_S = 90.0  # an image that cannot be pulled, or a crash, may heal by itself for so long
LOG_LINES = 15
NO_LOG = "unable to retrieve container logs"  # kubectl's words, said as if they were the log


class NotReady(RuntimeError):
    """A part did not become ready; the words name pod, reason and last log lines."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One workload: how many of its pods are ready of those wanted, or in what it has failed."""

    name: str
    ready: int
    wanted: int
    failed: str = ""

    @property
    def done(self) -> bool:
        """All that is wanted is there."""
        return not self.failed and self.ready >= self.wanted


@dataclasses.dataclass(frozen=True)
class Trouble:
    """A pod that does not come up: `reason` as Kubernetes names it, `words` for people."""

    pod: str
    container: str
    reason: str
    words: str
    restarts: int = 0


def part_of(item: Mapping[str, Any]) -> Part:
    """A Deployment, StatefulSet, DaemonSet or Job as the API server has it."""
    kind, name = item["kind"], item["metadata"]["name"]
    spec, status = item.get("spec", {}), item.get("status", {})
    label = f"{kind.lower()}/{name}"
    if kind == "Job":
        failed = next(
            (c for c in status.get("conditions", ()) if c["type"] == "Failed" and c["status"] == "True"), None
        )
        words = f"{failed.get('reason')}: {failed.get('message', '')}" if failed else ""
        return Part(label, int(status.get("succeeded") or 0), int(spec.get("completions") or 1), words)
    if kind == "DaemonSet":
        return Part(label, int(status.get("numberReady") or 0), int(status.get("desiredNumberScheduled") or 1))
    wanted = int(spec.get("replicas", 1))
    if int(status.get("observedGeneration") or 0) < int(item["metadata"].get("generation") or 0):
        return Part(label, 0, max(wanted, 1))  # what it says is about an earlier spec
    updated = int(status.get("updatedReplicas") or 0)
    ready = int(status.get("readyReplicas") or 0)
    surplus = int(status.get("replicas") or 0) - updated  # old pods of a rolling update
    return Part(label, min(ready, updated) if surplus <= 0 else 0, wanted)


def troubles_of(pods: Sequence[Mapping[str, Any]]) -> list[Trouble]:
    """What keeps pods from being ready, worst first; pods that end well or still start are no trouble."""
    found = []
    for pod in pods:
        meta, status = pod["metadata"], pod.get("status", {})
        if meta.get("deletionTimestamp") or status.get("phase") == "Succeeded":
            continue
        name = f"{meta['namespace']}/{meta['name']}"
        for condition in status.get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                found.append(Trouble(name, "", condition.get("reason", ""), condition.get("message", "")))
        for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            restarts = int(container.get("restartCount") or 0)
            waiting = container.get("state", {}).get("waiting")
            ended = container.get("state", {}).get("terminated")
            last = container.get("lastState", {}).get("terminated")
            if waiting and waiting.get("reason") not in ("ContainerCreating", "PodInitializing"):
                code = f"; it ended with exit code {last['exitCode']} ({last.get('reason')})" if last else ""
                words = (waiting.get("message") or "").splitlines()
                told = (words[0] if words else waiting.get("reason", "")) + code
                found.append(Trouble(name, container["name"], waiting.get("reason", ""), told, restarts))
            elif ended and ended.get("exitCode"):
                told = f"ended with exit code {ended['exitCode']} ({ended.get('reason')})"
                found.append(Trouble(name, container["name"], ended.get("reason", ""), told, restarts))
            elif restarts and not container.get("ready") and last:
                told = f"restarted {restarts} times; last exit code {last['exitCode']} ({last.get('reason')})"
                found.append(Trouble(name, container["name"], last.get("reason", ""), told, restarts))
    return sorted(found, key=lambda it: (it.reason not in HOPELESS, -it.restarts))


def wait_ready(
    kubectl: Kubectl,
    namespaces: Sequence[str],
    *,
    timeout_s: float,
    tell: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Part]:
    """Until every workload of the namespaces is ready and every Job has succeeded; returns them.

    Args:
        tell: called with (what is still waited for, parts ready, parts in all), about once a second.
    Raises:
        NotReady: a part failed for good, is in trouble for a minute, or is not ready in time.
    """
    deadline, since, seen = time.monotonic() + timeout_s, dict[str, float](), dict[str, float]()
    while True:
        parts, troubles = look(kubectl, namespaces)
        open_parts = [part for part in parts if not part.done]
        if parts and not open_parts:
            return parts
        tell(
            ", ".join(f"{it.name} {it.ready}/{it.wanted}" for it in open_parts[:6]),
            len(parts) - len(open_parts),
            len(parts),
        )
        now = time.monotonic()
        # A pod in a crash loop is up for moments: its trouble has ended only when it was not seen for a while.
        seen |= {it.pod: now for it in troubles}
        since = {it: since.get(it, now) for it in seen if now - seen[it] < FORGIVEN_S}
        lasting = [it for it in troubles if it.reason in HOPELESS or now - since[it.pod] > PATIENCE_S]
        failed = [part for part in open_parts if part.failed]
        if failed or lasting or now > deadline:
            why = "failed" if failed else "is in trouble" if lasting else f"is not ready after {timeout_s:.0f} s"
            names = ", ".join(part.name for part in failed or open_parts)
            raise NotReady(f"{names} {why}\n{explain(kubectl, lasting or troubles, failed)}".rstrip())
        time.sleep(1)


def look(kubectl: Kubectl, namespaces: Sequence[str]) -> tuple[list[Part], list[Trouble]]:
    """Every workload as it is now, and what keeps pods from being ready."""
    parts = [part for namespace in namespaces for part in _parts(kubectl, namespace)]
    return parts, [it for namespace in namespaces for it in troubles_of(_pods(kubectl, namespace))]


def explain(kubectl: Kubectl, troubles: Sequence[Trouble], failed: Sequence[Part] = ()) -> str:
    """Pods, reasons and their last log lines."""
    lines = [f"  {part.name}: {part.failed}" for part in failed]
    for it in troubles[:4]:
        where = f"{it.pod} ({it.container})" if it.container else it.pod
        lines.append(f"  {where}: {it.reason}: {it.words}")
        if it.container:
            lines += [f"    | {line}" for line in _last_words(kubectl, it)]
    return "\n".join(lines)


def _last_words(kubectl: Kubectl, it: Trouble) -> list[str]:
    namespace, pod = it.pod.split("/")
    for previous in (["--previous"], []):
        try:
            said = kubectl("logs", pod, "-n", namespace, "-c", it.container, f"--tail={LOG_LINES}", *previous).strip()
        except CommandFailed:
            continue
        if said and not said.startswith(NO_LOG):
            return said.splitlines()
    return left_behind(kubectl.find("pod", pod, namespace), it.container)


def left_behind(pod: Mapping[str, Any] | None, container: str) -> list[str]:
    """What a container that ended left in the pod's status (`terminationMessagePolicy`): its log may be gone."""
    status = (pod or {}).get("status", {})
    for it in [*status.get("containerStatuses", ()), *status.get("initContainerStatuses", ())]:
        if it.get("name") == container:
            for ended in (it.get("state", {}), it.get("lastState", {})):
                if words := ended.get("terminated", {}).get("message", "").strip():
                    return list(words.splitlines()[-LOG_LINES:])
    return []


def _parts(kubectl: Kubectl, namespace: str) -> list[Part]:
    return [part_of(item) for item in kubectl.get(KINDS, "-n", namespace)["items"] if _counts(item)]


def _counts(item: Mapping[str, Any]) -> bool:
    """Jobs of CronJobs and of pipeline runs tell their own ends."""
    return item["kind"] != "Job" or "flightdeck.dev/job" in item["metadata"].get("labels", {})


def _pods(kubectl: Kubectl, namespace: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = kubectl.get("pods", "-n", namespace)["items"]
    return newest([item for item in items if "dagster/run-id" not in item["metadata"].get("labels", {})])


def newest(pods: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Without the pods of a Deployment's earlier specs: a broken one stays until the new one is ready."""
    generation: dict[str, tuple[str, str]] = {}

    def of(pod: Mapping[str, Any]) -> tuple[str, str]:
        owner = next(
            (it["name"] for it in pod["metadata"].get("ownerReferences", ()) if it["kind"] == "ReplicaSet"), ""
        )
        digest = pod["metadata"].get("labels", {}).get("pod-template-hash", "")
        return owner.removesuffix(f"-{digest}"), digest

    for pod in pods:
        deployment, digest = of(pod)
        made = pod["metadata"].get("creationTimestamp", "")
        if digest and made > generation.get(deployment, ("", ""))[0]:
            generation[deployment] = (made, digest)
    return [pod for pod in pods if not of(pod)[1] or generation.get(of(pod)[0], ("", ""))[1] == of(pod)[1]]
