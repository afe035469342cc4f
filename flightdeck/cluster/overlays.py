"""An overlay with what the repository says beside it: one ModelRollout and one HTTPRoute per file in specs/."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from flightdeck.cluster import deploy, images, manifests
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.manifests import Document
from flightdeck.cluster.names import CHECKOUT, K8S, SERVING
from flightdeck.cluster.secrets import ensure_secrets
from services.rollout_operator import workloads

OWN_SECRETS = ("kind", "minikube")  # elsewhere the platform's people make them


def models(specs: Path = CHECKOUT / "specs") -> list[str]:
    """Names of the models that have a rollout, sorted."""
    return sorted(it["metadata"]["name"] for it in _rollouts(specs))


def _rollouts(specs: Path) -> list[dict[str, Any]]:
    return [yaml.safe_load(path.read_text()) for path in sorted(specs.glob("*.rollout.yaml"))]


def documents(
    overlay: str, state: Path, specs: Path = CHECKOUT / "specs", *, digests: Mapping[str, str] | None = None
) -> list[Document]:
    """All that a deploy of `overlay` applies.

    Args:
        digests: name in the manifests -> image by digest; default: what was pushed from this checkout.
    Raises:
        ManifestError: no such overlay, or an image was not pushed.
    """
    found = manifests.with_environment(manifests.render(K8S / "overlays" / overlay, digests or images.pushed(state)))
    rollouts, scaled = _rollouts(specs), autoscaled(found)
    for rollout in rollouts:
        rollout["metadata"]["namespace"] = SERVING
        name = rollout["metadata"]["name"]
        if name in scaled:
            rollout["spec"].pop("replicas", None)  # else each deploy would set them back
        found += [rollout, workloads.git_route(name, namespace=SERVING, alone=len(rollouts) == 1)]
    return found


def autoscaled(found: Sequence[Document]) -> set[str]:
    """Names of the ModelRollouts whose replicas belong to a HorizontalPodAutoscaler."""
    targets = [it["spec"]["scaleTargetRef"] for it in found if it["kind"] == "HorizontalPodAutoscaler"]
    return {it["name"] for it in targets if it["kind"] == "ModelRollout"}


def bring(
    kubectl: Kubectl, overlay: str, state: Path, *, tell: Callable[[str], None], dry_run: bool = False
) -> list[str]:
    """Deploy it; returns the names of what is other than before.

    Raises:
        ManifestError, DeployRefused, CommandFailed: see deploy.py.
    """
    return apply(kubectl, overlay, documents(overlay, state), tell=tell, dry_run=dry_run)


def apply(
    kubectl: Kubectl, overlay: str, found: Sequence[Document], *, tell: Callable[[str], None], dry_run: bool = False
) -> list[str]:
    """Deploy these documents of an overlay, with its Secrets where they are ours to make.

    Raises:
        DeployRefused, CommandFailed: see deploy.py.
    """

    def prepare() -> None:
        if overlay in OWN_SECRETS:
            made = ensure_secrets(kubectl)
            if made:
                tell(f"generated the Secrets {', '.join(made)}")

    return deploy.deploy(kubectl, found, tell=tell, prepare=prepare, dry_run=dry_run)
