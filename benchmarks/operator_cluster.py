"""A kind cluster with many ModelRollouts and no machine to run them on, for bench_operator.py."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

from flightdeck.cluster.commands import run
from flightdeck.cluster.gateway import CHART, CHART_ENV, VERSION
from flightdeck.cluster.kind import NODE_IMAGE_ENV, delete_kind
from flightdeck.cluster.names import K8S, RELEASER, SERVING
from flightdeck.contracts.release import ModelRef, Release
from flightdeck.contracts.rollout import API_VERSION, KIND
from services.rollout_operator import workloads
from services.rollout_operator.kube.routes import taken

CLUSTER = "flightdeck-scale"
ROUTES = "gateway.networking.k8s.io/v1"
GROUP, VERSION_OF_CRD = API_VERSION.split("/")
# The kinds that an operator asks for, as the API server's counter names them.
ASKED = ("modelrollouts", "deployments", "services", "pods", "podtemplates", "endpointslices", "httproutes", "events")
_COUNTED = re.compile(r"^apiserver_request_total\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def release_of(model: str, code: str) -> Release:
    """A release of `model` whose code is named by `code`, hex digits."""
    ref = ModelRef(name=model, version="1", sha256=f"{0:064x}", image=f"localhost:5001/models/{model}@sha256:{0:064x}")
    return Release(image=f"localhost:5001/flightdeck/predictor@sha256:{code:0>64}", model=ref, feature_service="bench")


class Cluster:
    """What the bench asks of the API server."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        config.load_kube_config(str(kubeconfig))
        self.api, self.custom = client.ApiClient(), client.CustomObjectsApi()

    def apply(self, path: str, document: dict[str, Any], *, manager: str = RELEASER) -> None:
        """Server-side."""
        self.api.call_api(
            path, "PATCH", query_params=[("fieldManager", manager), ("force", "true")], body=document,
            header_params={"Content-Type": "application/apply-patch+yaml"}, auth_settings=["BearerToken"],
            response_types_map=dict.fromkeys((200, 201), "object"),
        )  # fmt: skip

    def requests(self) -> float:
        """API requests so far for what an operator asks for, without watches."""
        answer = self.api.call_api(
            "/metrics", "GET", auth_settings=["BearerToken"], _preload_content=False, _return_http_data_only=True
        )
        counted = _COUNTED.findall(answer.data.decode())
        rows = [(dict(_LABEL.findall(labels)), float(value)) for labels, value in counted]
        asked = ((it, value) for it, value in rows if it.get("resource") in ASKED and it.get("verb") != "WATCH")
        if not rows:
            raise ValueError("the API server's page /metrics has no apiserver_request_total: nothing can be counted")
        return sum(value for it, value in asked if (it["resource"], it.get("subresource")) != ("httproutes", "status"))

    @contextlib.contextmanager
    def gateway(self) -> Iterator[None]:
        """In place of a Gateway's controller: takes every HTTPRoute as it is, at once."""
        closing = threading.Event()
        threading.Thread(target=self._take_routes, args=(closing,), daemon=True).start()
        try:
            yield
        finally:
            closing.set()

    def _take_routes(self, closing: threading.Event) -> None:
        api = client.CustomObjectsApi(client.ApiClient())
        where = (*ROUTES.split("/"), SERVING, "httproutes")
        while not closing.is_set():
            with contextlib.suppress(HTTPError, client.ApiException):  # a watch ends now and then, and with the cluster
                for event in watch.Watch().stream(api.list_namespaced_custom_object, *where):
                    route = event["object"]
                    if event["type"] != "DELETED" and not taken(route):
                        api.patch_namespaced_custom_object_status(*where, route["metadata"]["name"], _taken(route))

    def rollout(self, name: str) -> dict[str, Any]:
        """The object."""
        found: dict[str, Any] = self.custom.get_namespaced_custom_object(
            GROUP, VERSION_OF_CRD, SERVING, "modelrollouts", name
        )
        return found

    def taken_over(self) -> int:
        """How many an operator has looked at."""
        found = self.custom.list_namespaced_custom_object(GROUP, VERSION_OF_CRD, SERVING, "modelrollouts")["items"]
        return sum("state" in it.get("status", {}) for it in found)

    def want(self, name: str, release: Release) -> None:
        """As a deployer does."""
        body = {"release": release.model_dump(mode="json", by_alias=True, exclude_none=True)}
        document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": body}
        self.apply(_path("modelrollouts", name), document)

    def order(self, name: str, words: str) -> None:
        """A person's word, as `kubectl annotate` writes it."""
        body = {"metadata": {"annotations": {"flightdeck.dev/order": words}}}
        self.custom.patch_namespaced_custom_object(GROUP, VERSION_OF_CRD, SERVING, "modelrollouts", name, body)

    def has_deployment(self, name: str) -> bool:
        """Whether it stands."""
        try:
            client.AppsV1Api().read_namespaced_deployment(name, SERVING)
        except client.ApiException as error:
            if error.status == 404:
                return False
            raise
        return True

    def populate(self, count: int) -> list[str]:
        """Models with a champion each, as `flightdeck deploy` leaves them; returns their names."""
        client.CoreV1Api().create_namespace({"metadata": {"name": SERVING}})
        self.apply(f"/api/v1/namespaces/{SERVING}/podtemplates/predictor", _template(), manager="git")
        names = [f"model-{number:04d}" for number in range(count)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self._champion, names))
        return names

    def _champion(self, name: str) -> None:
        spec = yaml.safe_load((K8S.parent / "specs" / "late.rollout.yaml").read_text())["spec"]
        spec |= {"replicas": 1, "readyDeadline": "60m"}  # no pod is ever ready here
        document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
        self.apply(_path("modelrollouts", name), document, manager="git")
        route = workloads.git_route(name, namespace=SERVING, alone=False)
        self.apply(f"/apis/{ROUTES}/namespaces/{SERVING}/httproutes/{name}", route, manager="git")
        release = release_of(name, "a")
        self.want(name, release)
        for it in workloads.release_objects(
            _template(), release, namespace=SERVING, replicas=1, owner=workloads.owner_reference(self.rollout(name))
        ):
            group, plural = ("apis/apps/v1", "deployments") if it["kind"] == "Deployment" else ("api/v1", "services")
            self.apply(f"/{group}/namespaces/{SERVING}/{plural}/{it['metadata']['name']}", it)
        route = workloads.http_route(name, {workloads.workload_name(release): 100}, namespace=SERVING)
        self.apply(f"/apis/{ROUTES}/namespaces/{SERVING}/httproutes/{name}", route)
        at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = workloads.first_champion_status(release, replicas=1, at=at)
        self.custom.patch_namespaced_custom_object_status(
            GROUP, VERSION_OF_CRD, SERVING, "modelrollouts", name, {"status": status}
        )


def _path(plural: str, name: str) -> str:
    return f"/apis/{API_VERSION}/namespaces/{SERVING}/{plural}/{name}"


def _taken(route: dict[str, Any]) -> dict[str, Any]:
    at = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = {
        "type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": at,
        "observedGeneration": route["metadata"]["generation"],
    }  # fmt: skip
    parent = {"parentRef": {"name": workloads.GATEWAY}, "controllerName": "flightdeck.dev/bench"}
    return {"status": {"parents": [{**parent, "conditions": [said]}]}}


def _template() -> dict[str, Any]:
    pod = {
        "metadata": {"labels": {"app.kubernetes.io/name": "predictor"}},
        "spec": {
            "schedulingGates": [{"name": "flightdeck.dev/bench"}],  # never to run: no node has room for a thousand
            "containers": [{"name": "predictor", "image": f"flightdeck/predictor@sha256:{0:064x}"}],
        },
    }
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "predictor"}, "template": pod}


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A kind cluster with the CRDs, gone at the end. Its kubeconfig is a file of its own: no context is switched."""
    kubeconfig = folder / "kubeconfig"
    pinned = yaml.safe_load((K8S / "kind.yaml").read_text())["nodes"][0]["image"]
    made = ("kind", "create", "cluster", "--name", CLUSTER, "--kubeconfig", str(kubeconfig), "--wait", "180s")
    run((*made, "--image", os.environ.get(NODE_IMAGE_ENV) or pinned), timeout_s=600)
    try:
        chart = os.environ.get(CHART_ENV)
        crds = run(("helm", "show", "crds", *((chart,) if chart else (CHART, "--version", VERSION))), timeout_s=120)
        kubectl = ("kubectl", "--kubeconfig", str(kubeconfig))
        run((*kubectl, "apply", "--server-side", "-f", "-"), stdin=crds)
        run((*kubectl, "apply", "--server-side", "-k", str(K8S / "crds")))
        run((*kubectl, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"))
        yield Cluster(kubeconfig)
    finally:
        delete_kind(CLUSTER)
