"""The documents of k8s/ under the names of one environment. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from flightdeck.cluster.names import BASE_PLATFORM, BASE_SERVING
from flightdeck.contracts.environments import Environment

Document = dict[str, Any]

# One for all environments of a cluster: what Kubernetes has once per cluster and all of them need alike.
SHARED = frozenset({"CustomResourceDefinition", "PriorityClass", "GatewayClass"})
CLUSTER_WIDE = frozenset({"ClusterRole", "ClusterRoleBinding"})
_PRIORITY = ("priorityClassName", "priority_class_name")  # its values look like namespaces, and are none
# Whole names only, wherever they stand: a namespace, a Service's DNS name, an argument, the text of a ConfigMap.
_NAMES = re.compile(
    rf"(?<!priorityClassName: )(?<!priority_class_name: )(?<![\w-])({BASE_PLATFORM}|{BASE_SERVING})(?![\w-])"
)


def placed(documents: Sequence[Document], environment: Environment) -> list[Document]:
    """The documents of an overlay as `environment` has them: its namespaces in all that names one, its NodePorts.

    What lies outside of its namespaces (roles in the Gateway's, cluster roles) gets the environment's name, so that two
    environments of one cluster share no object but those of `SHARED`.
    """
    if (environment.platform, environment.serving) == (BASE_PLATFORM, BASE_SERVING):
        return list(documents)
    to = {BASE_PLATFORM: environment.platform, BASE_SERVING: environment.serving}
    ours, suffix = set(to.values()), f"-{environment.name}"

    def moved(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {moved(name): moved(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [moved(item, key) for item in value]
        if isinstance(value, str) and key not in _PRIORITY:
            return _NAMES.sub(lambda found: to[found[1]], value)
        if key == "nodePort" and isinstance(value, int):
            return value + environment.node_port_shift
        return value

    found = [it if it["kind"] == "PriorityClass" else moved(it) for it in documents]
    outside = [it for it in found if _lies_outside(it, ours)]
    named = {(it["kind"], it["metadata"].get("namespace"), it["metadata"]["name"]) for it in outside}
    for it in outside:
        it["metadata"]["name"] += suffix
    for it in found:
        role = it.get("roleRef")
        if role and (role["kind"], _home_of(role["kind"], it), role["name"]) in named:
            role["name"] += suffix
    return found


def _lies_outside(document: Document, ours: set[str]) -> bool:
    if document["kind"] in SHARED or document["kind"] == "Namespace":
        return False
    return document["kind"] in CLUSTER_WIDE or document["metadata"].get("namespace") not in ours


def _home_of(kind: str, binding: Document) -> str | None:
    return None if kind in CLUSTER_WIDE else binding["metadata"].get("namespace")
