"""Takes away what `up` made, and nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from flightdeck.cluster import gateway, kind, record, registry
from flightdeck.cluster.commands import CommandFailed, Kubectl, current_context, run
from flightdeck.cluster.names import PLATFORM, SERVING
from flightdeck.cluster.target import Refused, looks_like_production


def take_down(state: Path, *, sure: bool, tell: Callable[[str], None]) -> list[str]:
    """Returns what was taken away, in sentences.

    Raises:
        Refused: the context looks like production.
        CommandFailed: a program fails.
    """
    known = record.last(state)
    context = known.context if known else current_context()
    if not context:
        return []
    if looks_like_production(context) and not sure:
        raise Refused(f"{context!r} looks like production; add --yes; nothing was touched")
    known, said = known or record.Record(context), []
    kubectl = Kubectl(context)
    if known.made_cluster:
        tell(f"delete the cluster {context}")
        if context == "minikube":
            run(("minikube", "delete"), timeout_s=300)
        else:
            kind.delete_kind(context.removeprefix("kind-"))
        said.append(f"deleted the cluster {context}")
    elif kubectl.answers():
        said += _from_foreign(kubectl, known, tell)
    if known.made_registry:
        registry.remove(tell)
        said.append("removed the local registry")
    record.forget(state)
    return said


def _from_foreign(kubectl: Kubectl, known: record.Record, tell: Callable[[str], None]) -> list[str]:
    """From a cluster that was there before: our namespaces, kinds and classes."""
    said = []
    for namespace in (SERVING, PLATFORM):
        if kubectl.find("namespace", namespace):
            tell(f"delete the namespace {namespace}")
            kubectl("delete", "namespace", namespace, "--timeout=240s", timeout_s=260)
            said.append(f"deleted the namespace {namespace}")
    selector = "app.kubernetes.io/part-of=flightdeck"
    for of in ("customresourcedefinition", "gatewayclass", "priorityclass", "clusterrole", "clusterrolebinding"):
        with contextlib.suppress(CommandFailed):  # a kind that the cluster does not know
            told = kubectl("delete", of, "-l", selector, "--ignore-not-found", timeout_s=180)
            said += [line for line in told.splitlines() if "deleted" in line]
    if known.made_gateway:
        tell("uninstall Envoy Gateway")
        gateway.remove_gateway(kubectl)
        said.append("uninstalled Envoy Gateway; its custom resource definitions stay")
    return said
