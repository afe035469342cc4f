"""Adapter: a cluster of one's own on this machine, by kind or minikube."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from flightdeck.cluster.commands import CommandFailed, Kubectl, run
from flightdeck.cluster.names import K8S

NODE_IMAGE_ENV = "KIND_NODE_IMAGE"  # empty: the image that k8s/kind.yaml pins


def clusters() -> list[str]:
    """Names of the kind clusters on this machine."""
    return run(("kind", "get", "clusters"), timeout_s=30).split()


def ensure_kind(name: str, tell: Callable[[str], None], *, config: str = "kind.yaml") -> None:
    """A kind cluster, unless it is there already and answers.

    Raises:
        CommandFailed: kind or Docker fail, or a cluster of this name is there and does not answer.
    """
    if name in clusters():
        if Kubectl(f"kind-{name}").answers():
            return
        raise CommandFailed(
            f"the kind cluster {name} is there and does not answer: after a restart of Docker start its containers, or "
            f"`kind delete cluster --name {name}` and run this again"
        )
    tell(f"create the kind cluster {name}")
    image = os.environ.get(NODE_IMAGE_ENV)
    chosen = ("--image", image) if image else ()
    run(
        ("kind", "create", "cluster", "--name", name, "--config", str(K8S / config), "--wait", "180s", *chosen),
        timeout_s=600,
    )


def delete_kind(name: str) -> None:
    """Delete it with all that runs in it."""
    run(("kind", "delete", "cluster", "--name", name), timeout_s=180)


def minikube_is_there() -> bool:
    """Whether minikube has a cluster, running or stopped.

    Raises:
        CommandFailed: minikube fails.
    """
    profiles = json.loads(run(("minikube", "profile", "list", "--output", "json"), timeout_s=60))
    return any(it["Name"] == "minikube" for of in ("valid", "invalid") for it in profiles.get(of) or ())


def start_minikube(tell: Callable[[str], None]) -> None:
    """minikube with its registry add-on, on containerd, since models are mounted as image volumes.

    Raises:
        CommandFailed: minikube fails.
    """
    tell("start minikube")
    run(
        (
            "minikube", "start", "--container-runtime=containerd", "--kubernetes-version=v1.36.1",
            "--cpus=2", "--memory=6g", "--insecure-registry=10.96.0.0/12",
        ),
        timeout_s=900,
    )  # fmt: skip
    run(("minikube", "addons", "enable", "registry"), timeout_s=300)
