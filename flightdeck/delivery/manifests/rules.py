"""What holds of every object that an overlay renders: pods shut, images exact, traffic closed. Pure.

The rules of tests/contract/k8s and of `flightdeck ci manifests` are these very functions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence

from flightdeck.cluster.manifests import OURS, Document
from flightdeck.cluster.names import PLATFORM, SERVING

SHUT = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
_EXACT = re.compile(r"[^@]+:[a-zA-Z_.-]*\d+\.\d+[\w.-]*|.+@sha256:[0-9a-f]{64}")  # 3 alone floats, and so does 17-x1.2
_PODS = {  # kind -> where its pod is
    "Pod": (), "PodTemplate": ("template",), "CronJob": ("spec", "jobTemplate", "spec", "template"),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"), ("spec", "template")
    ),
}  # fmt: skip
_HOST_LEVEL = ("hostNetwork", "hostPID", "hostIPC")
_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "image",
}  # fmt: skip


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
        """All of them, those that run first included."""
        return [*(self.pod.get("initContainers") or ()), *self.pod["containers"]]

    @property
    def stays(self) -> bool:
        """It is meant to run forever."""
        return self.kind not in ("Pod", "Job", "CronJob")

    def __str__(self) -> str:
        """As kubectl names it."""
        return f"{self.kind}/{self.name}"


@dataclasses.dataclass(frozen=True)
class Broken:
    """A rule that an object breaks: `what` with its figures, `do` as an order."""

    where: str
    what: str
    do: str


def workloads(documents: Sequence[Document]) -> Iterator[Workload]:
    """Everything that makes pods, or is one; what lacks its pod is told by `podless`."""
    for it in documents:
        pod = _at(it, *_PODS[it["kind"]], "spec") if it["kind"] in _PODS else {}
        if pod.get("containers"):
            meta, labels = it["metadata"], _at(it, *_PODS[it["kind"]], "metadata", "labels")
            yield Workload(it["kind"], meta["name"], meta.get("namespace", ""), labels, pod)


def _at(document: Document, *path: str) -> Document:
    """What is there; empty where nothing is."""
    for key in path:
        document = document.get(key) or {}
    return document


def podless(documents: Sequence[Document]) -> list[Broken]:
    """What should make pods and names no container: no rule could look at it."""
    return [
        Broken(f"{it['kind']}/{it['metadata']['name']}", "has no pod with containers",
               f"write {'.'.join((*_PODS[it['kind']], 'spec', 'containers'))}")
        for it in documents
        if it["kind"] in _PODS and not _at(it, *_PODS[it["kind"]], "spec").get("containers")
    ]  # fmt: skip


def images(documents: Sequence[Document]) -> dict[str, str]:
    """Image -> who names it; the Gateway's proxy, which Envoy Gateway starts, included."""
    found = {
        container["image"]: str(it)
        for it in workloads(documents) for container in it.containers if container.get("image")
    }  # fmt: skip
    for it in documents:
        if it["kind"] == "EnvoyProxy":
            container = _at(it, "spec", "provider", "kubernetes", "envoyDeployment", "container")
            if container.get("image"):
                found[container["image"]] = f"EnvoyProxy/{it['metadata']['name']}"
    return found


def broken(documents: Sequence[Document], *, by_digest: bool = False, whole: bool = True) -> list[Broken]:
    """Every rule that rendered manifests break.

    Args:
        by_digest: third-party images must be named by digest (production).
        whole: an overlay; false: a part that comes into the namespaces of one.
    """
    found = [it for workload in workloads(documents) for rule in EVERY_POD for it in rule(workload)]
    found += podless(documents) + floating(documents) + secrets_in_git(documents) + wide_roles(documents)
    found += namespaces(documents) if whole else []
    return found + (without_digest(documents) if by_digest else [])


def root(it: Workload) -> Iterator[Broken]:
    """A numeric user that is not root: the kubelet cannot check a name."""
    context = it.pod.get("securityContext", {})
    number = context.get("runAsUser")
    if context.get("runAsNonRoot") is not True or not isinstance(number, int) or number == 0:
        yield Broken(
            str(it), f"may be root (runAsNonRoot {context.get('runAsNonRoot')}, runAsUser {number})",
            "set securityContext {runAsNonRoot: true, runAsUser: <a number above 0>} of its pod",
        )  # fmt: skip


def open_to_the_node(it: Workload) -> Iterator[Broken]:
    """What Pod Security "restricted" refuses, and a root file system that can be written."""
    context = it.pod.get("securityContext", {})
    if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield Broken(str(it), "no seccomp profile", "set seccompProfile {type: RuntimeDefault} of its pod")
    for key in _HOST_LEVEL:
        if it.pod.get(key):
            yield Broken(str(it), f"{key} is on", f"take {key} away: Pod Security refuses it")
    for volume in it.pod.get("volumes", ()):
        if kinds := set(volume) - {"name"} - _VOLUMES:
            yield Broken(str(it), f"volume {volume['name']} is a {', '.join(kinds)}", "use a volume of the cluster")
    for container in it.containers:
        if container.get("securityContext") != SHUT:
            yield Broken(
                str(it), f"container {container['name']} has securityContext {container.get('securityContext')}",
                "make it {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}} "
                "and mount an emptyDir where it writes",
            )  # fmt: skip


def without_bounds(it: Workload) -> Iterator[Broken]:
    """Requests and limits of CPU and memory, of each container."""
    for container in it.containers:
        resources = container.get("resources", {})
        for side in ("requests", "limits"):
            if missing := sorted({"cpu", "memory"} - set(resources.get(side, {}))):
                yield Broken(
                    str(it), f"container {container['name']} has no {side} of {', '.join(missing)}",
                    f"write resources.{side} of {' and '.join(missing)} (docs/kubernetes.md#resources has figures)",
                )  # fmt: skip


def without_image(it: Workload) -> Iterator[Broken]:
    """Kubernetes' schema lets it out, and no node can start it."""
    for container in it.containers:
        if not container.get("image"):
            yield Broken(str(it), f"container {container['name']} has no image", "name it by an exact tag")


EVERY_POD: tuple[Callable[[Workload], Iterator[Broken]], ...] = (root, open_to_the_node, without_bounds, without_image)


def floating(documents: Sequence[Document]) -> list[Broken]:
    """Images that may be others tomorrow; ours wait for the digest that a deploy gives them."""
    return [
        Broken(by, f"image {image} floats", "name it by an exact tag, in production with its digest as well")
        for image, by in sorted(images(documents).items())
        if not image.startswith(OURS) and not _EXACT.fullmatch(image)
    ]


def without_digest(documents: Sequence[Document]) -> list[Broken]:
    """Third-party images that production names by tag alone."""
    return [
        Broken(by, f"image {image} has no digest", "add @sha256:... in the production overlay: a tag can be moved")
        for image, by in sorted(images(documents).items())
        if not image.startswith(OURS) and "@sha256:" not in image
    ]


def namespaces(documents: Sequence[Document]) -> list[Broken]:
    """Both are there, enforce "restricted", and deny all traffic that no policy opens."""
    found = []
    labels = {it["metadata"]["name"]: _at(it, "metadata", "labels") for it in documents if it["kind"] == "Namespace"}
    denied = {
        it["metadata"].get("namespace") for it in documents
        if it["kind"] == "NetworkPolicy" and it.get("spec") == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    }  # fmt: skip
    for name in (PLATFORM, SERVING):
        if labels.get(name, {}).get("pod-security.kubernetes.io/enforce") != "restricted":
            found.append(Broken(f"Namespace/{name}", "does not enforce Pod Security restricted",
                                "label it pod-security.kubernetes.io/enforce: restricted"))  # fmt: skip
        if name not in denied:
            found.append(Broken(f"Namespace/{name}", "has no NetworkPolicy that denies everything",
                                "keep `default-deny`: podSelector {}, policyTypes [Ingress, Egress]"))  # fmt: skip
    return found


def secrets_in_git(documents: Sequence[Document]) -> list[Broken]:
    """A Secret in a repository is none."""
    return [
        Broken(
            f"Secret/{it['metadata']['name']}", "is in Git", "remove it and replace what is in it (docs/kubernetes.md)"
        )
        for it in documents
        if it["kind"] == "Secret"
    ]


def wide_roles(documents: Sequence[Document]) -> list[Broken]:
    """Roles that say `*`."""
    return [
        Broken(f"{it['kind']}/{it['metadata']['name']}", "allows `*`", "name each resource and verb that is needed")
        for it in documents
        if it["kind"] in ("Role", "ClusterRole") and any("*" in str(rule) for rule in it.get("rules") or ())
    ]
