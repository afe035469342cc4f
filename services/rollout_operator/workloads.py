"""What a release is on Kubernetes: Deployment, Service, route. Pure functions from the PodTemplate that Git owns.

Nothing here asks a cluster: the caller reads the template and applies what comes back.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, TypeAlias

from flightdeck.contracts.release import Release

Document: TypeAlias = dict[str, Any]

CONTAINER = "predictor"
PORT = 3000
MODELS = "/models"  # a folder per artefact, named by its sha256, as in the lab
GATEWAY = "flightdeck"
READY_S = 180  # progress deadline of a release's Deployment


class NotPlaceable(ValueError):
    """The release or the template lack something without which no pod could serve."""


def workload_name(release: Release) -> str:
    """`<model>-<release id>`: of the Deployment, the Service and everything else of one release."""
    return f"{release.model.name}-{release.id}"


def code_image(template: Mapping[str, Any]) -> str:
    """The image of the predictor's code that the PodTemplate names.

    Raises:
        NotPlaceable: it has no container called `predictor`, or names its image not by digest.
    """
    image = str(_container(template["template"]["spec"])["image"])
    if "@sha256:" not in image:
        raise NotPlaceable(f"PodTemplate {template['metadata']['name']}: image {image} is not named by digest")
    return image


def release_objects(
    template: Mapping[str, Any], release: Release, *, namespace: str, replicas: int, owner: Mapping[str, Any] | None
) -> list[Document]:
    """Deployment and Service of one release.

    Args:
        template: a core/v1 PodTemplate, as the API server has it.
        owner: what they go with when it is deleted (an ownerReference), if anything.
    Raises:
        NotPlaceable: the model was not pushed as an OCI image, or the template does not fit.
    """
    if not release.model.image:
        raise NotPlaceable(f"{release.short}: the model is in no OCI registry, so no pod can mount it; gate it again")
    name, labels = workload_name(release), labels_of(release)
    meta: Document = {"name": name, "namespace": namespace, "labels": labels}
    if owner:
        meta["ownerReferences"] = [dict(owner)]
    selector = {"flightdeck.dev/model": release.model.name, "flightdeck.dev/release": release.id}
    deployment: Document = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,  # a release never changes: another one is another Deployment
            "progressDeadlineSeconds": READY_S,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": selector},
            "template": _pod(template["template"], release, labels),
        },
    }
    service: Document = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": copy.deepcopy(meta),
        "spec": {"selector": selector, "ports": [{"name": "http", "port": PORT, "targetPort": PORT}]},
    }
    return [deployment, service]


def labels_of(release: Release) -> dict[str, str]:
    """Of everything that belongs to one release."""
    return {
        "app.kubernetes.io/name": "predictor",
        "app.kubernetes.io/part-of": "flightdeck",
        "app.kubernetes.io/instance": workload_name(release),
        "app.kubernetes.io/version": release.model.version,
        "flightdeck.dev/model": release.model.name,
        "flightdeck.dev/release": release.id,
    }


def _pod(template: Mapping[str, Any], release: Release, labels: Mapping[str, str]) -> Document:
    pod: Document = copy.deepcopy(dict(template))
    meta = pod.setdefault("metadata", {})
    pod["metadata"] = {
        "labels": {**meta.get("labels", {}), **labels},
        "annotations": {**meta.get("annotations", {}), "flightdeck.dev/model-sha256": release.model.sha256},
    }
    container = _container(pod["spec"])
    container["image"] = release.image
    stamped = {
        "PREDICTOR_MODEL_NAME": release.model.name,
        "PREDICTOR_MODEL_VERSION": release.model.version,
        "PREDICTOR_MODEL_SHA256": release.model.sha256,
        "PREDICTOR_ARTEFACTS": MODELS,
        "PREDICTOR_IMAGE": release.image,
        "PREDICTOR_RELEASE": release.id,
    }
    kept = [item for item in container.get("env", []) if item["name"] not in stamped]
    container["env"] = kept + [{"name": key, "value": value} for key, value in stamped.items()]
    mount = {"name": "model", "mountPath": f"{MODELS}/{release.model.sha256}", "readOnly": True}
    container["volumeMounts"] = [*container.get("volumeMounts", []), mount]
    # By digest, so the node's copy is as good as the registry's: a pod starts while the registry is away.
    volume = {"name": "model", "image": {"reference": release.model.image, "pullPolicy": "IfNotPresent"}}
    pod["spec"]["volumes"] = [*pod["spec"].get("volumes", []), volume]
    return pod


def _container(spec: Mapping[str, Any]) -> Document:
    for item in spec["containers"]:
        if item["name"] == CONTAINER:
            found: Document = item
            return found
    raise NotPlaceable(
        f"the template has no container {CONTAINER!r}; it has: {', '.join(it['name'] for it in spec['containers'])}"
    )


def owner_reference(rollout: Mapping[str, Any]) -> Document:
    """That makes a ModelRollout the owner of its releases' workloads."""
    meta = rollout["metadata"]
    return {
        "apiVersion": rollout["apiVersion"], "kind": rollout["kind"], "name": meta["name"], "uid": meta["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def git_route(model: str, *, namespace: str, alone: bool) -> Document:
    """What Git says of a model's HTTPRoute: where it hangs, never what it routes to.

    Args:
        alone: no other model is behind the Gateway: it answers under any host name, else under its own.
    """
    spec: Document = {"parentRefs": [{"name": GATEWAY}]}
    if not alone:
        spec["hostnames"] = [f"{model}.localhost"]
    return _route(model, namespace, spec)


def http_route(model: str, weights: Mapping[str, int], *, namespace: str, mirror: str = "") -> Document:
    """What a rollout says of it: `spec.rules` whole, since lists are atomic under server-side apply.

    Args:
        weights: name of a release's Service -> its share; together 100. Empty: no release serves, the rules are let go.
        mirror: name of the Service that gets a copy of each request; its answers reach nobody.
    Raises:
        ValueError: they are not, or the mirrored one would answer users as well.
    """
    if not weights and not mirror:
        return _route(model, namespace, {})
    if sum(weights.values()) != 100 or min(weights.values()) < 0:
        raise ValueError(f"weights must be 0 or more and together 100; got {dict(weights)}")
    if weights.get(mirror):
        raise ValueError(f"{mirror} would get copies and {weights[mirror]} % of the users; a shadow answers nobody")
    backends = [{"name": name, "port": PORT, "weight": weight} for name, weight in sorted(weights.items())]
    rule: Document = {"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends}
    if mirror:
        copied = {"backendRef": {"name": mirror, "port": PORT}}
        rule["filters"] = [{"type": "RequestMirror", "requestMirror": copied}]
    return _route(model, namespace, {"rules": [rule]})


def _route(model: str, namespace: str, spec: Document) -> Document:
    labels = {"app.kubernetes.io/part-of": "flightdeck", "flightdeck.dev/model": model}
    meta = {"name": model, "namespace": namespace, "labels": labels}
    return {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta, "spec": spec}


def first_champion_status(release: Release, *, replicas: int, at: str) -> Document:
    """The ModelRollout's status when its first champion serves; `at` is RFC 3339."""
    words = f"{release.short} serves all users; nothing served before it, so nothing was compared"
    done = {"status": "True", "reason": "FirstChampion", "message": words, "lastTransitionTime": at}
    return {
        "phase": "done",
        "champion": release.model_dump(mode="json", by_alias=True, exclude_none=True),
        "championVersion": f"v{release.model.version}",
        "championRelease": release.id,
        "weight": 0,
        "reason": words,
        "replicas": replicas,
        "selector": f"flightdeck.dev/model={release.model.name},flightdeck.dev/release={release.id}",
        "conditions": [{"type": "Complete", **done}],
    }
