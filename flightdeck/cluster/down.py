"""Takes away what `up` made, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from flightdeck.cluster import gateway, kind, record, registry
from flightdeck.cluster.commands import CommandFailed, Kubectl, current_context, run
from flightdeck.cluster.names import ENVIRONMENTS, PLATFORM, SERVING
from flightdeck.cluster.record import Record
from flightdeck.cluster.target import Refused, looks_like_production
from flightdeck.contracts import environments

OURS = "app.kubernetes.io/part-of=flightdeck"


def take_down(state: Path, *, context: str | None, sure: bool, tell: Callable[[str], None]) -> list[str]:
    """Returns what was taken away, in sentences.

    Args:
        context: which of the clusters that `up` worked on; None when only one can be meant.
        sure: also where the context looks like production, and where nothing is known of what `up` made.
    Raises:
        Refused: it cannot be told which cluster is meant or what was made there; nothing was touched.
        CommandFailed: a program fails; what is left is still known, and a repeat goes on.
    """
    known = record.known(state)
    chosen = choose(known, context, current_context(), sure=sure)
    if chosen is None:
        return []
    said, kubectl = [], Kubectl(chosen.context)
    if chosen.made_cluster:
        tell(f"delete the cluster {chosen.context}")
        if chosen.context == "minikube":
            run(("minikube", "delete"), timeout_s=300)
        else:
            kind.delete_kind(chosen.context.removeprefix("kind-"))
        said.append(f"deleted the cluster {chosen.context}")
    elif chosen.made_namespaces or chosen.made_gateway:
        if not kubectl.answers():
            raise CommandFailed(f"{chosen.context} does not answer, so nothing was taken away; run this again")
        said += _from_foreign(kubectl, chosen, tell)
    others = [item for item in known.values() if item.context != chosen.context]
    if chosen.made_registry and others:  # they may use it, too; whichever goes last takes it along
        others[-1].made_registry = True
        record.write(state, others[-1])
    elif chosen.made_registry:
        registry.remove(tell)
        said.append("removed the local registry")
    record.forget(state, chosen.context)
    return said


def choose(known: Mapping[str, Record], context: str | None, current: str | None, *, sure: bool) -> Record | None:
    """The record to act on; None when nothing was made and nothing is named.

    Raises:
        Refused: several clusters could be meant, nothing is known of the named one, or it looks like production.
    """
    if context is None:
        if not known:
            return None
        if len(known) > 1 and current not in known:
            raise Refused(f"`make up` worked on {', '.join(known)}; name one with --context; nothing was touched")
        context = next(iter(known)) if len(known) == 1 else str(current)
    if context not in known and not sure:
        raise Refused(
            f"nothing is known here of what `make up` made on {context!r}; add --yes to delete the namespaces "
            f"{SERVING} and {PLATFORM} there, with all their data; nothing was touched"
        )
    if looks_like_production(context) and not sure:
        raise Refused(f"{context!r} looks like production; add --yes; nothing was touched")
    return known.get(context) or Record(context, made_namespaces=True)


def _from_foreign(kubectl: Kubectl, known: Record, tell: Callable[[str], None]) -> list[str]:
    """From a cluster that was there before: our namespaces, kinds and classes."""
    said = _without_rollouts(kubectl, tell) if known.made_namespaces else []
    for namespace in (SERVING, PLATFORM) if known.made_namespaces else ():
        if kubectl.find("namespace", namespace):
            tell(f"delete the namespace {namespace}")
            kubectl("delete", "namespace", namespace, "--timeout=240s", timeout_s=260)
            said.append(f"deleted the namespace {namespace}")
    kinds = ("customresourcedefinition", "gatewayclass", "priorityclass", "clusterrole", "clusterrolebinding")
    if left := _other_environments(kubectl):
        return [*said, f"left what environments share, and Envoy Gateway: {', '.join(left)} is still there"]
    for of in kinds if known.made_namespaces else ():
        try:
            told = kubectl("delete", of, "-l", OURS, "--ignore-not-found", timeout_s=180)
        except CommandFailed as error:
            if "the server doesn't have a resource type" in str(error):
                continue
            raise
        said += [line for line in told.splitlines() if "deleted" in line]
    if known.made_gateway:
        tell("uninstall Envoy Gateway")
        gateway.remove_gateway(kubectl)
        said.append("uninstalled Envoy Gateway; its custom resource definitions stay")
    return said


def _other_environments(kubectl: Kubectl) -> list[str]:
    """Environments besides this process's that live on the same cluster."""
    there = environments.read(ENVIRONMENTS).values()
    return [it.name for it in there if it.platform != PLATFORM and kubectl.find("namespace", it.platform)]


def _without_rollouts(kubectl: Kubectl, tell: Callable[[str], None]) -> list[str]:
    """Rollouts first, while their operator can still finish them: a finalizer without one would hold the namespace."""
    kind = "modelrollouts.flightdeck.dev"
    try:
        found = kubectl.get(kind, "-n", SERVING)["items"]
    except CommandFailed:  # no such kind, no such namespace
        return []
    if not found:
        return []
    tell("delete the rollouts")
    try:
        kubectl("delete", kind, "--all", "-n", SERVING, "--timeout=90s", timeout_s=110)
    except CommandFailed:  # nobody finishes them
        for name in (it["metadata"]["name"] for it in kubectl.get(kind, "-n", SERVING)["items"]):
            kubectl("patch", kind, name, "-n", SERVING, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    return [f"deleted {len(found)} rollouts"]
