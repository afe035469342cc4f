"""The emergency stop of all rollouts of a cluster: one ConfigMap, made and taken away."""

from __future__ import annotations

import json

from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.names import SERVING
from services.rollout_operator.kube.stops import NAME, stop_of


def stop(kubectl: Kubectl, who: str, reason: str) -> str:
    """Make it; returns what that means, in words.

    Raises:
        ValueError: no reason. CommandFailed: it cannot be made, e.g. for want of the right to create ConfigMaps.
    """
    if not reason.strip():
        raise ValueError("say why: the history of each rollout keeps it")
    body = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME, "namespace": SERVING},
        "data": {"by": who, "reason": reason.strip()},
    }  # fmt: skip
    try:
        kubectl("create", "-f", "-", stdin=json.dumps(body))
    except CommandFailed as error:
        if "AlreadyExists" not in error.stderr:
            raise
        there = stop_of(kubectl.find("configmap", NAME, SERVING))
        return f"already, {there.words}" if there else "it was lifted in this moment; ask again"
    return (
        "all rollouts are stopped: within a few seconds those that run are aborted, and none begins; "
        "`kubectl flightdeck go-on` lifts it"
    )


def go_on(kubectl: Kubectl) -> str:
    """Take it away; returns what was there, in words.

    Raises:
        CommandFailed: it cannot be taken away.
    """
    there = stop_of(kubectl.find("configmap", NAME, SERVING))
    if there is None:
        return "no stop is there: rollouts go on"
    kubectl("delete", "configmap", NAME, "-n", SERVING, "--ignore-not-found")
    return f"rollouts go on; {there.words.replace('are stopped', 'were stopped')}"
