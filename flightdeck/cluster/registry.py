"""Adapter: a registry that this machine, nodes and pods reach. kind's recipe, minikube's add-on, or the company's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable

from flightdeck.cluster.commands import CommandFailed, run
from flightdeck.cluster.target import Target

REGISTRY_ENV = "REGISTRY"
CONTAINER, IMAGE, PORT = "kind-registry", "registry:3.1.2", 5001
REPOSITORY = "flightdeck"

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Registry:
    """Where images are.

    Args:
        pull: as this machine and the nodes name it.
        made: it was started just now.
    """

    pull: str
    made: bool = False


def ensure(target: Target, *, tell: Tell = lambda _: None) -> Registry:
    """The registry for this cluster; on kind a container beside it, started when absent.

    Raises:
        CommandFailed: Docker fails, or the cluster is of another kind and REGISTRY names none.
    """
    given = os.environ.get(REGISTRY_ENV)
    if given:
        return Registry(given.rstrip("/"))
    if target.context == "minikube":
        return Registry(f"localhost:5000/{REPOSITORY}")
    if target.kind_name is None:
        raise CommandFailed(
            f"{target.context} is neither kind nor minikube: set {REGISTRY_ENV} to a registry that this machine, "
            "its nodes and its pods reach, e.g. REGISTRY=ghcr.io/acme/flightdeck"
        )
    return Registry(f"localhost:{PORT}/{REPOSITORY}", beside_kind(target.kind_name, tell=tell))


def beside_kind(cluster: str, *, tell: Tell = lambda _: None) -> bool:
    """The container beside a kind cluster, which its gate pushes models to; returns whether it was started now.

    Raises:
        CommandFailed: Docker fails.
    """
    made = _start(tell)
    _join(cluster)
    return made


def _start(tell: Tell) -> bool:
    state = run(("docker", "ps", "--all", "--filter", f"name=^{CONTAINER}$", "--format", "{{.State}}")).strip()
    if state == "running":
        return False
    if state:
        tell(f"start the container {CONTAINER}")
        run(("docker", "start", CONTAINER))
        return False
    tell(f"start a local registry on 127.0.0.1:{PORT}")
    run(
        (
            "docker", "run", "--detach", "--restart=always", "--publish", f"127.0.0.1:{PORT}:5000",
            "--network", "bridge", "--name", CONTAINER, IMAGE,
        ),
        timeout_s=300,
    )  # fmt: skip
    return True


def _join(cluster: str) -> None:
    """Every node finds it under localhost:5001, pods under its container's name."""
    networks = run(("docker", "inspect", CONTAINER, "--format", "{{json .NetworkSettings.Networks}}"))
    if '"kind"' not in networks:
        run(("docker", "network", "connect", "kind", CONTAINER))
    folder = f"/etc/containerd/certs.d/localhost:{PORT}"
    content = f'[host."http://{CONTAINER}:5000"]\n'
    for node in run(("kind", "get", "nodes", "--name", cluster)).split():
        run(("docker", "exec", node, "mkdir", "-p", folder))
        run(("docker", "exec", "-i", node, "cp", "/dev/stdin", f"{folder}/hosts.toml"), stdin=content)


def remove(tell: Tell) -> None:
    """The local registry with all images in it."""
    tell(f"remove the container {CONTAINER}")
    run(("docker", "rm", "--force", "--volumes", CONTAINER), timeout_s=60)
