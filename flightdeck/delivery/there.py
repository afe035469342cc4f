"""Adapter: is an image still in its registry? By its digest, with this machine's own login."""

from __future__ import annotations

from collections.abc import Iterable

from flightdeck.cluster.commands import CommandFailed, run

LOCAL = ("localhost", "127.0.0.1")
ACCEPT = ", ".join(
    f"application/vnd.{kind}" for kind in (
        "oci.image.manifest.v1+json", "oci.image.index.v1+json", "docker.distribution.manifest.v2+json",
        "docker.distribution.manifest.list.v2+json",
    )
)  # fmt: skip


def missing(references: Iterable[str]) -> dict[str, str]:
    """References by digest that their registries do not have (any more), each with the reason.

    A registry that does not answer counts as having none: what cannot be seen is not deployed.
    """
    found = {it: _why_not(it) for it in sorted(set(references))}
    return {reference: why for reference, why in found.items() if why}


def _why_not(reference: str) -> str:
    host, _, rest = reference.partition("/")
    if host.split(":")[0] not in LOCAL:
        return _by_docker(reference)
    import httpx

    name, _, digest = rest.partition("@")
    try:
        answer = httpx.head(f"http://{host}/v2/{name}/manifests/{digest}", headers={"accept": ACCEPT}, timeout=10)
    except httpx.HTTPError as error:
        return f"the registry {host} does not answer: {error}"
    return "" if answer.status_code == 200 else f"the registry {host} answers {answer.status_code}"


def _by_docker(reference: str) -> str:
    try:
        run(("docker", "manifest", "inspect", reference), timeout_s=60)
    except CommandFailed as error:
        return (error.stderr.strip().splitlines() or [str(error)])[-1]
    return ""
