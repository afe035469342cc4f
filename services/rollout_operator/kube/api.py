"""Adapter: the API server. Nine kinds, six verbs, plain documents; what goes wrong is told in the tick's words."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import httpx
import kopf
import msgspec

from services.rollout_operator.ports import Unavailable

Document: TypeAlias = dict[str, Any]

RELEASER = "flightdeck-release"  # field manager of what a release sets; the same as of a first champion
TIMEOUT_S = 4.0
AT_ONCE = 24  # connections: as many as ticks at once
HOST_ENV, HTTPS_ENV = "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT_HTTPS"  # in every container
RENEWED_S = 60.0  # a ServiceAccount's token is another one after an hour, in the same file
PATHS = {
    "Deployment": ("apis/apps/v1", "deployments"),
    "Service": ("api/v1", "services"),
    "Pod": ("api/v1", "pods"),
    "PodTemplate": ("api/v1", "podtemplates"),
    "Event": ("api/v1", "events"),
    "ConfigMap": ("api/v1", "configmaps"),
    "EndpointSlice": ("apis/discovery.k8s.io/v1", "endpointslices"),
    "HTTPRoute": ("apis/gateway.networking.k8s.io/v1", "httproutes"),
    "ModelRollout": ("apis/flightdeck.dev/v1alpha1", "modelrollouts"),
}


class Conflict(Unavailable):
    """Somebody changed the object since it was read: read it again and decide anew."""


class Refused(ValueError):
    """The API server understood and will never take it as it is: invalid, forbidden, over a quota."""


class Api(Protocol):
    """The API server, within one namespace unless another is named.

    Every method raises Unavailable when it does not answer and Refused when it refuses.
    """

    namespace: str

    def read(self, kind: str, name: str) -> Document | None:
        """One object; None when there is none."""

    def list(self, kind: str, selector: str, *, namespace: str = "") -> list[Document]:
        """Objects with these labels."""

    def apply(self, document: Mapping[str, Any]) -> Document:
        """Server-side, under the releaser's field manager; it takes what others hold."""

    def patch(self, kind: str, name: str, body: Any) -> Document:
        """A merge patch, or a JSON patch when `body` is a list. Raises Conflict when a test in it does not hold."""

    def replace_status(self, document: Mapping[str, Any]) -> Document:
        """Of the object as it was read. Raises Conflict when it changed since."""

    def create(self, document: Mapping[str, Any]) -> Document:
        """A new object."""

    def delete(self, kind: str, name: str) -> None:
        """It and, later, what belongs to it; it may be gone already."""


class Kubernetes:
    """One connection pool, documents as they come, kopf's own login.

    The official client brings a typed model of every kind: 90 MB in a process that reads none of them.
    """

    def __init__(self, namespace: str) -> None:
        """From the pod's ServiceAccount, else from the kubeconfig.

        Raises:
            ValueError: there is neither.
        """
        self.namespace = namespace
        found = login()
        self._headers, self._renewed_s = found.as_http_headers(), time.monotonic()
        self._client = httpx.Client(
            base_url=found.server, verify=found.as_ssl_context(), trust_env=False, timeout=TIMEOUT_S,
            limits=httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE),
        )  # fmt: skip

    def read(self, kind: str, name: str) -> Document | None:
        """See Api."""
        try:
            return self._ask("GET", self._path(kind, name))
        except _NotFound:
            return None

    def list(self, kind: str, selector: str, *, namespace: str = "") -> list[Document]:
        """See Api."""
        found: list[Document] = self._ask("GET", self._path(kind, "", namespace), query={"labelSelector": selector})[
            "items"
        ]
        return found

    def apply(self, document: Mapping[str, Any]) -> Document:
        """See Api."""
        return self._ask(
            "PATCH", self._path(document["kind"], document["metadata"]["name"]), document,
            query={"fieldManager": RELEASER, "force": "true"}, content_type="application/apply-patch+yaml",
        )  # fmt: skip

    def patch(self, kind: str, name: str, body: Any) -> Document:
        """See Api."""
        how = "application/json-patch+json" if isinstance(body, list) else "application/merge-patch+json"
        return self._ask("PATCH", self._path(kind, name), body, query={"fieldManager": RELEASER}, content_type=how)

    def replace_status(self, document: Mapping[str, Any]) -> Document:
        """See Api."""
        return self._ask("PUT", f"{self._path(document['kind'], document['metadata']['name'])}/status", document)

    def create(self, document: Mapping[str, Any]) -> Document:
        """See Api."""
        return self._ask("POST", self._path(document["kind"], ""), document)

    def delete(self, kind: str, name: str) -> None:
        """See Api."""
        with contextlib.suppress(_NotFound):
            self._ask("DELETE", self._path(kind, name), {"propagationPolicy": "Background"})

    def _path(self, kind: str, name: str, namespace: str = "") -> str:
        group, plural = PATHS[kind]
        return f"/{group}/namespaces/{namespace or self.namespace}/{plural}" + (f"/{name}" if name else "")

    def _ask(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Any:  # fmt: skip
        content = None if body is None else msgspec.json.encode(body)
        headers = {"Accept": "application/json", "Content-Type": content_type, **self._authorization()}
        try:  # no second try here: the next tick asks again, and one that waits three times as long moves nobody
            answer = self._client.request(method, path, params=query, headers=headers, content=content)
            if answer.is_success:
                return bare(msgspec.json.decode(answer.content))
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            words = str(error) or type(error).__name__
            raise Unavailable(f"the API server did not answer {method} {path}: {words}") from error
        raise told(method, path, answer.status_code, answer.text)

    def _authorization(self) -> Mapping[str, str]:
        if time.monotonic() - self._renewed_s >= RENEWED_S:
            self._headers, self._renewed_s = login().as_http_headers(), time.monotonic()
        return self._headers


def login() -> kopf.ConnectionInfo:
    """As the pod's ServiceAccount, else as the kubeconfig's current context says.

    In a pod the API server is asked by the address that the kubelet tells: a cluster without DNS keeps its operator.

    Raises:
        ValueError: there is neither.
    """
    settings = kopf.OperatorSettings()
    if found := kopf.login_with_service_account(settings=settings):
        host, port = os.environ[HOST_ENV], os.environ[HTTPS_ENV]
        return dataclasses.replace(found, server=f"https://{f'[{host}]' if ':' in host else host}:{port}")
    if found := kopf.login_with_kubeconfig(settings=settings):
        return found
    raise ValueError("no API server is known: no ServiceAccount is mounted, and no kubeconfig is there")


class _NotFound(Unavailable):
    pass


def bare(answer: Any) -> Any:
    """Without who set which field: longer than the object, and a write that leaves it out leaves it as it is."""
    for document in (answer, *answer.get("items", ())):
        document.get("metadata", {}).pop("managedFields", None)
    return answer


def told(method: str, path: str, status: int, body: str) -> Exception:
    """An answer that is no success, as an error of ours."""
    words = f"{method} {path}: the API server answered {status}: {body[:300]}"
    if status == 404:
        return _NotFound(words)
    if status == 409 or (status == 422 and "test" in body and "json patch" in body.lower()):
        return Conflict(words)
    if status in (400, 403, 413, 415, 422):
        return Refused(words)
    return Unavailable(words)
