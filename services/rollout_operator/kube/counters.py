"""The gateway's counters: attempts at each replica, from the page that each Envoy proxy has for Prometheus.

Envoy Gateway folds a rule's backends into one cluster of Envoy, so a cluster tells nothing about a release; endpoints
do (EnvoyProxy `enablePerEndpointStats`), joined to releases by address. Copies go to a cluster of their own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import httpx

from services.rollout_operator.evidence import Attempts
from services.rollout_operator.kube.api import Api
from services.rollout_operator.ports import Unavailable

GATEWAY_NAMESPACE = "envoy-gateway-system"
PORT, PAGE = 19001, "/stats/prometheus"
TIMEOUT_S = 1.0
_LINE = re.compile(r"envoy_cluster_endpoint_rq_(success|error)\{([^}]*)\} (\d+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_COPIES = re.compile(r"-mirror-\d+$")  # Envoy Gateway's name of a RequestMirror filter's cluster


def labels_of(text: str) -> dict[str, str]:
    """What stands between the braces of a line for Prometheus."""
    return dict(_LABEL.findall(text))


Counters = dict[tuple[str, str, str], Attempts]  # (proxy, cluster, "address:port") ->


def parse(text: str, proxy: str) -> Counters:
    """Of one proxy's page. An attempt that failed: a 5xx answer, a reset, no connection, no answer in time."""
    found: dict[tuple[str, str, str], dict[str, int]] = {}
    for kind, labels, value in _LINE.findall(text):
        named = labels_of(labels)
        place = proxy, named.get("envoy_cluster_name", ""), named.get("envoy_endpoint_address", "")
        found.setdefault(place, {})[kind] = int(value)
    return {
        place: Attempts(it.get("success", 0) + it.get("error", 0), it.get("error", 0))
        for place, it in found.items() if place[2]
    }  # fmt: skip


def under(route: str, cluster: str, *, copies: bool) -> bool:
    """Whether a cluster of Envoy is of the HTTPRoute `namespace/name`, and of its copies or of its users."""
    return cluster.startswith(f"httproute/{route}/") and bool(_COPIES.search(cluster)) == copies


def of_release(
    counters: Mapping[tuple[str, str, str], Attempts], owners: Mapping[str, str], release: str, route: str,
    *, copies: bool,
) -> dict[str, Attempts]:  # fmt: skip
    """Counters of a release's replicas under one HTTPRoute, of copies only or of users only.

    Args:
        owners: address -> release id. route: `namespace/name`.
    """
    return {
        f"{proxy} {cluster} {place}": attempts
        for (proxy, cluster, place), attempts in counters.items()
        if under(route, cluster, copies=copies)
        and owners.get(place.rpartition(":")[0].strip("[]")) == release
    }  # fmt: skip


# One for all: to make a client costs more than to ask a page. In the cluster no proxy is between.
_client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)


def fetch(url: str) -> str:
    """A page.

    Raises:
        Unavailable: it does not answer in time, or not with 200.
    """
    try:
        answer = _client.get(url)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise Unavailable(f"GET {url}: {error or type(error).__name__}") from error
    return answer.text


def scrape(api: Api, fetch: Callable[[str], str] = fetch) -> Counters:
    """All counters of all proxies now. A proxy that does not answer is missing, which is no zero.

    Raises:
        Unavailable: there is no proxy, none answers, or none counts by endpoint: nothing is known, and nothing is zero.
    """
    owner = "gateway.envoyproxy.io/owning-gateway"
    selector = f"{owner}-name=flightdeck,{owner}-namespace={api.namespace}"
    pods = [it for it in api.list("Pod", selector, namespace=GATEWAY_NAMESPACE) if _address(it)]
    if not pods:
        raise Unavailable(f"no pod in {GATEWAY_NAMESPACE} has the labels {selector}: is the Gateway flightdeck there?")
    found: Counters = {}
    silent: list[str] = []
    for pod in pods:
        try:
            found |= parse(fetch(f"http://{_address(pod)}:{PORT}{PAGE}"), pod["metadata"]["name"])
        except Unavailable as error:
            silent.append(str(error))
    if not found:
        why = "; ".join(silent) or "the EnvoyProxy must have enablePerEndpointStats, and a route must have a backend"
        raise Unavailable(f"no proxy of {len(pods)} tells attempts by endpoint: {why}")
    return found


def _address(pod: Mapping[str, Any]) -> str:
    status = pod.get("status", {})
    return str(status.get("podIP", "")) if status.get("phase") == "Running" else ""
