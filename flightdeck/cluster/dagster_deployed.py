"""Dagster of a cluster, once its runs get the image that is deployed.

Its page keeps what the code location told when it was connected, the image of its runs among it. After a deploy that
may be the word of the pod before: a training that is started then runs the code of before.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.dagster_client import LOADS_S, POLL_S, DagsterClient, DagsterError
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import PLATFORM

CODE, IMAGE_ENV = "dagster-code", "DAGSTER_CURRENT_IMAGE"


@contextlib.contextmanager
def deployed(kubectl: Kubectl, *, within_s: float = LOADS_S, poll_s: float = POLL_S) -> Iterator[DagsterClient]:
    """Through a port-forward; the code location is read anew until it tells the image of the Deployment.

    Raises:
        DagsterError: it tells another one after `within_s`, or does not answer. CommandFailed: no way to it.
    """
    image = image_of(kubectl)
    with forward(kubectl, PLATFORM, "dagster-webserver", 3000) as url:
        client = DagsterClient(url)
        until_read(client, image, within_s=within_s, poll_s=poll_s)
        yield client


def until_read(client: DagsterClient, image: str, *, within_s: float, poll_s: float) -> None:
    """Have Dagster read its code locations anew until each tells the image; see `deployed`."""
    deadline = time.monotonic() + within_s
    while not (found := client.images()) or set(found.values()) != {image}:
        if time.monotonic() > deadline:
            said = ", ".join(f"{name}: {it or 'no image'}" for name, it in found.items()) or "no code location"
            raise DagsterError(
                f"Dagster would start runs with another image than {image}, which is deployed ({said}); nothing was "
                f"started: {client.trouble() or f'kubectl -n {PLATFORM} rollout restart deployment/dagster-webserver'}"
            )
        for location, told in found.items():
            if told != image:
                client.reload(location)
        time.sleep(poll_s)


def image_of(kubectl: Kubectl) -> str:
    """What the Deployment of the code location tells its runs to use."""
    containers = kubectl.get("deployment", CODE, "-n", PLATFORM)["spec"]["template"]["spec"]["containers"]
    return str(next(it["value"] for part in containers for it in part["env"] if it["name"] == IMAGE_ENV))
