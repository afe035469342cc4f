"""The first champion of a model: its release stamped out, made ready, then routed to.

The rollout operator takes over from there: whatever comes after the first goes through a rollout.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx

from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import RELEASER, SERVING
from flightdeck.cluster.readiness import explain, part_of, troubles_of
from flightdeck.contracts import approval
from flightdeck.contracts.release import Approval, ModelRef, Release
from services.rollout_operator import gate, workloads

TEMPLATE = "predictor"
READY_S = 240.0
PUBLIC = "signing-public"  # ConfigMap of the keys whose approvals count
NOT_PUSHED = "its artefact was not pushed as an OCI image"


class NoChampion(RuntimeError):
    """There is no version that may serve, or it does not come up; what served before still does."""


@dataclasses.dataclass(frozen=True)
class Version:
    """A registered version as MLflow tells it."""

    number: int
    sha256: str
    verdict: str
    feature_service: str
    image: str
    reason: str = ""
    approval: Approval | None = None

    @property
    def placeable(self) -> bool:
        """It has all that a release of it needs on a cluster, whatever the gate says."""
        return bool(self.sha256 and self.feature_service and self.image)

    @property
    def serves(self) -> bool:
        """The gate let it pass, and said so in a form that travels with a release."""
        return self.placeable and self.verdict == "PROMOTE" and self.approval is not None


def versions(tracking_uri: str, name: str) -> list[Version]:
    """All versions of a model, newest first.

    Raises:
        NoChampion: MLflow does not answer.
    """
    found: list[Mapping[str, Any]] = []
    query = {"filter": f"name = '{name}'", "max_results": "200"}
    try:
        while True:
            answer = httpx.get(f"{tracking_uri}/api/2.0/mlflow/model-versions/search", params=query, timeout=30)
            answer.raise_for_status()
            page = answer.json()
            found += page.get("model_versions", [])
            if not page.get("next_page_token"):
                break
            query["page_token"] = page["next_page_token"]
    except (httpx.HTTPError, ValueError) as error:
        raise NoChampion(f"MLflow at {tracking_uri} does not tell the versions of {name}: {error}") from error
    read = [_version(item["version"], {tag["key"]: tag["value"] for tag in item.get("tags", [])}) for item in found]
    return sorted(read, key=lambda it: -it.number)


def _version(number: str, tags: Mapping[str, str]) -> Version:
    names = ("sha256", "verdict", "feature_service", "image", "reason")
    return Version(int(number), **{name: tags.get(name, "") for name in names}, approval=approval.in_tags(tags))


def may_serve(found: Sequence[Version]) -> Version:
    """The version to serve: the newest that the gates let pass.

    Raises:
        NoChampion: none may; the words say why the newest may not.
    """
    if not found:
        raise NoChampion("no version may serve: none is registered")
    for it in found:
        if it.serves:
            return it
    top = found[0]
    why = "it carries no approval of the gate; gate it again" if top.placeable else NOT_PUSHED
    why = why if top.verdict == "PROMOTE" else top.reason or "never gated"
    raise NoChampion(f"no version may serve: v{top.number} {top.verdict or ''}: {why}")


def release_of(name: str, version: Version, image: str) -> Release:
    """Code and model, both by digest, and what the model reads."""
    model = ModelRef(
        name=name, version=str(version.number), sha256=version.sha256, image=version.image, approval=version.approval
    )
    return Release.model_validate({"image": image, "model": model, "featureService": version.feature_service})


def placeable(found: Sequence[Version], name: str, number: int) -> Version:
    """The version that a person asks for past the gate.

    Raises:
        NoChampion: it is not there, or no pod could mount it.
    """
    for it in found:
        if it.number == number and it.placeable:
            return it
    what = f"{NOT_PUSHED}; the gate pushes none that it rejects" if found else "MLflow does not know it"
    raise NoChampion(f"{name} v{number} cannot serve: {what}")


def trust(kubectl: Kubectl) -> gate.Trust:
    """The keys that the operator trusts, from where it has them."""
    where = f"ConfigMap {PUBLIC} in {SERVING}"
    try:
        return gate.Trust(approval.keys_in((kubectl.find("configmap", PUBLIC, SERVING) or {})["data"]["signing.pub"]))
    except KeyError:
        return gate.Trust(problem=f"{where} is not there or has no signing.pub; see docs/kubernetes.md")
    except ValueError as error:
        return gate.Trust(problem=f"{where}, signing.pub: {error}")


def refuse_unapproved(kubectl: Kubectl, release: Release, accepted: Sequence[Release] = ()) -> None:
    """What the operator would refuse is not even asked for.

    Raises:
        NoChampion: the gate's word does not cover it; with the reason.
    """
    if why := gate.refusal(release, trust(kubectl), accepted):
        raise NoChampion(f"{release.short} may not serve: {why}")


def serve_first(kubectl: Kubectl, name: str, version: Version, tell: Callable[[str, int, int], None]) -> Release:
    """Stamp out the release, wait until all its replicas are ready, route all traffic to it, say so in the rollout.

    Safe to repeat; a champion that serves keeps serving until the new one is ready.

    Raises:
        NoChampion: there is no rollout or template of it, no trusted approval, or its pods do not become ready.
        CommandFailed: the API server refuses.
    """
    rollout = kubectl.find("modelrollouts.flightdeck.dev", name, SERVING)
    template = kubectl.find("podtemplate", TEMPLATE, SERVING)
    if rollout is None or template is None:
        missing = f"ModelRollout {name}" if rollout is None else f"PodTemplate {TEMPLATE}"
        raise NoChampion(f"no {missing} in {SERVING}; run `flightdeck deploy` first")
    release = release_of(name, version, workloads.code_image(template))
    refuse_unapproved(kubectl, release)
    replicas = int(rollout["spec"].get("replicas") or 1)
    documents = workloads.release_objects(
        template, release, namespace=SERVING, replicas=replicas, owner=workloads.owner_reference(rollout)
    )
    apply(kubectl, documents)
    wait_workload(kubectl, workloads.workload_name(release), tell)
    route = workloads.http_route(name, {workloads.workload_name(release): 100}, namespace=SERVING)
    apply(kubectl, [route])
    _tell_rollout(kubectl, name, release, replicas)
    return release


def want(
    kubectl: Kubectl, rollout: Mapping[str, Any], release: Release, annotations: Mapping[str, str] | None = None
) -> None:
    """Ask for a release. What an earlier call annotated goes with it."""
    meta: dict[str, Any] = {key: rollout["metadata"][key] for key in ("name", "namespace")}
    meta |= {"annotations": dict(annotations)} if annotations else {}
    spec = {"release": release.model_dump(mode="json", by_alias=True, exclude_none=True)}
    apply(kubectl, [{"apiVersion": rollout["apiVersion"], "kind": rollout["kind"], "metadata": meta, "spec": spec}])


def apply(kubectl: Kubectl, documents: Sequence[Mapping[str, Any]]) -> None:
    """Under the releaser's field manager: a re-apply of Git undoes none of it.

    The documents hold only its fields: the server checks the whole that they become, kubectl beforehand could not.
    """
    items = {"apiVersion": "v1", "kind": "List", "items": list(documents)}
    kubectl(
        "apply", "--server-side", "--force-conflicts", f"--field-manager={RELEASER}", "--validate=false",
        "-f", "-",
        stdin=json.dumps(items),
    )  # fmt: skip


def wait_workload(kubectl: Kubectl, name: str, tell: Callable[[str, int, int], None]) -> None:
    """Until every replica of a Deployment is ready.

    Raises:
        NoChampion: it is not in time; with pods, reasons and last log lines.
    """
    deadline = time.monotonic() + READY_S
    while True:
        part = part_of(kubectl.get("deployment", name, "-n", SERVING))
        if part.done:
            return
        tell(f"{part.name} {part.ready}/{part.wanted}", part.ready, part.wanted)
        if time.monotonic() > deadline:
            pods = kubectl.get("pods", "-n", SERVING, "-l", f"app.kubernetes.io/instance={name}")["items"]
            words = explain(kubectl, troubles_of(pods))
            raise NoChampion(f"{name}: {part.ready} of {part.wanted} replicas after {READY_S:.0f} s\n{words}")
        time.sleep(1)


def _tell_rollout(kubectl: Kubectl, name: str, release: Release, replicas: int) -> None:
    now = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = release.model_dump(mode="json", by_alias=True, exclude_none=True)
    wanted = {
        "apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout",
        "metadata": {"name": name, "namespace": SERVING}, "spec": {"release": body},
    }  # fmt: skip
    apply(kubectl, [wanted])
    status = workloads.first_champion_status(release, replicas=replicas, at=now)
    kubectl(
        "patch", "modelrollouts.flightdeck.dev", name, "-n", SERVING, "--subresource=status", "--type=merge",
        "-p", json.dumps({"status": status}),
    )  # fmt: skip


def serving(kubectl: Kubectl, name: str) -> Release | None:
    """The champion that the rollout names, None when there is none yet."""
    rollout = kubectl.find("modelrollouts.flightdeck.dev", name, SERVING)
    body = (rollout or {}).get("status", {}).get("champion")
    return Release.model_validate(body) if body else None
