"""Adapter: Envoy's bootstrap and its file-based discovery (CDS, EDS, RDS).

Envoy watches the discovery files and takes over a new version when a file is *moved* over the old one, without dropping
a connection: weights and mirror change under load. Source: Envoy's documentation, "Dynamic configuration (filesystem)".
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flightdeck.lab.ports import HOST

_TYPE = "type.googleapis.com/envoy"
ROUTE_NAME = "users"
UPSTREAM_HEADER = "x-flightdeck-replica"  # of each answer: host:port of the replica that gave it
NOBODY = '{"error":{"code":"nobody_serves","message":"no release serves yet","field":null}}'
_SHADOW = "-shadow"


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One replica."""

    name: str
    port: int


@dataclasses.dataclass(frozen=True)
class Backend:
    """The replicas of one release, and their part of the traffic.

    Args:
        name: the release's id; its cluster has the same name.
        weight: of the user's requests, in parts of the sum of all weights; 0 gets none.
        mirror_percent: of the user's requests that are sent here as well, answers thrown away; needs `shadow`.
        fallback: replicas of another release that answer when none of `endpoints` does.
        shadow: whether it has a second cluster, `<name>-shadow`, for copies.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    weight: int = 0
    mirror_percent: float = 0.0
    fallback: tuple[Endpoint, ...] = ()
    shadow: bool = False

    @property
    def clusters(self) -> tuple[str, ...]:
        """Names of its clusters, the users' first."""
        return (self.name, shadow_of(self.name)) if self.shadow else (self.name,)


def shadow_of(name: str) -> str:
    """The cluster that gets copies of requests for the release `name`.

    Copies have a cluster of their own without the fallback: the champion must never get them, and they are counted
    apart from the users' requests.
    """
    return f"{name}{_SHADOW}"


def release_of(cluster: str) -> str:
    """The release that the cluster belongs to."""
    return cluster.removesuffix(_SHADOW)


def bootstrap(folder: Path, listen_port: int, admin_port: int) -> dict[str, Any]:
    """Envoy's static part: where it listens, where it finds the rest."""
    return {
        "node": {"id": "lab", "cluster": "flightdeck-lab"},
        "admin": {"address": _address(admin_port)},
        "stats_config": {"stats_tags": []},
        "dynamic_resources": {
            "cds_config": _file(folder / "cds.json"),
        },
        "static_resources": {
            "listeners": [
                {
                    "name": "users",
                    "address": _address(listen_port),
                    "per_connection_buffer_limit_bytes": 4_194_304,  # a body must fit to be sent again on a retry
                    "filter_chains": [{"filters": [{"name": "http", "typed_config": _http(folder)}]}],
                }
            ]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPE}.extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 2000,
                    },
                }
            ]
        },
    }


def _http(folder: Path) -> dict[str, Any]:
    return {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "users",
        "codec_type": "AUTO",
        "generate_request_id": True,
        "preserve_external_request_id": True,
        "rds": {"route_config_name": ROUTE_NAME, "config_source": _file(folder / "rds.json")},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}.extensions.filters.http.router.v3.Router"},
            }
        ],
    }


def clusters(folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """CDS: the clusters `names`, sorted, with health checks of their own."""
    return _response("config.cluster.v3.Cluster", [_cluster(folder, name) for name in sorted(names)])


def _cluster(folder: Path, name: str) -> dict[str, Any]:
    copies = name.endswith(_SHADOW)
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"service_name": name, "eds_config": _file(eds_path(folder, name))},
        "connect_timeout": "0.25s",
        "lb_policy": "LEAST_REQUEST",
        # Below a tenth healthy, try them all: a late health check must not turn away what a replica could answer.
        # Copies are not worth that: nobody waits for their answers.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0 if copies else 10}},
        # Else a healthy replica that is no longer listed would still get requests until it fails a check.
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": "0.5s",
                "interval": "0.5s",
                "no_traffic_interval": "0.5s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/readyz"},
            }
        ],
        # What users' requests show before the next health check: out for 2 s, 4 s ..., two of three replicas at most.
        # With a fallback that is all replicas of the candidate: they are half of the cluster.
        "outlier_detection": {
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": 3,
            "enforcing_consecutive_gateway_failure": 100,
            "consecutive_local_origin_failure": 2,
            "split_external_local_origin_errors": True,
            "interval": "0.5s",
            "base_ejection_time": "2s",
            "max_ejection_time": "10s",
            "max_ejection_percent": 67,
            "enforcing_success_rate": 0,
        },
        "circuit_breakers": {"thresholds": [_limits(copies)]},
    }


def _limits(copies: bool) -> dict[str, int]:
    if copies:  # a replica that hangs holds so many copies and no more; the rest is dropped at once
        return {"max_connections": 64, "max_pending_requests": 64, "max_requests": 128, "max_retries": 0}
    # The default of 3 concurrent retries would fail requests exactly when a replica dies under load.
    return {"max_connections": 1000, "max_pending_requests": 2000, "max_requests": 2000, "max_retries": 500}


def eds_path(folder: Path, cluster: str) -> Path:
    """The file with the cluster's endpoints."""
    return folder / f"eds-{cluster}.json"


def endpoints(backend: Backend) -> dict[str, dict[str, Any]]:
    """EDS by cluster: where the replicas of one release are; the fallback has the lower priority 1."""
    own = [{"priority": 0, "lb_endpoints": _lb_endpoints(backend.endpoints)}]
    users = own + [{"priority": 1, "lb_endpoints": _lb_endpoints(backend.fallback)}] * bool(backend.fallback)
    return {
        name: _response(
            "config.endpoint.v3.ClusterLoadAssignment",
            # Envoy moves traffic to priority 1 as soon as priority 0 is less than 1 / 1.4 healthy. With 10 in place of
            # 1.4 a candidate keeps its exact share while a tenth of its replicas is healthy.
            [{"cluster_name": name, "endpoints": places, "policy": {"overprovisioning_factor": 1000}}],
        )
        for name, places in zip(backend.clusters, (users, own), strict=False)
    }


def _lb_endpoints(replicas: Iterable[Endpoint]) -> list[dict[str, Any]]:
    return [{"endpoint": {"address": _address(replica.port)}} for replica in replicas]


def routes(backends: Sequence[Backend]) -> dict[str, Any]:
    """RDS: weights, mirror, retries; without any backend the answer is 503.

    Raises:
        ValueError: no backend has a weight, or one is mirrored to without a cluster for that.
    """
    if backends:
        rule = {"match": {"prefix": "/"}, "route": _route(backends)}
    else:
        rule = {"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": {"inline_string": NOBODY}}}
    told = {"header": {"key": UPSTREAM_HEADER, "value": "%UPSTREAM_REMOTE_ADDRESS%"}}
    return _response(
        "config.route.v3.RouteConfiguration",
        [
            {
                "name": ROUTE_NAME,
                "response_headers_to_add": [told],
                "virtual_hosts": [{"name": "predictor", "domains": ["*"], "routes": [rule]}],
            }
        ],
    )


def _route(backends: Sequence[Backend]) -> dict[str, Any]:
    weighted = [backend for backend in backends if backend.weight > 0]
    if not weighted:
        raise ValueError(f"no backend has a weight above 0: {[backend.name for backend in backends]}")
    mirrors = []
    for item in backends:
        if item.mirror_percent > 0:
            if not item.shadow:
                raise ValueError(f"{item.name} is mirrored to and has no cluster for copies")
            parts = {"numerator": round(item.mirror_percent * 10_000), "denominator": "MILLION"}
            mirrors.append({"cluster": shadow_of(item.name), "runtime_fraction": {"default_value": parts}})
    route: dict[str, Any] = {
        "weighted_clusters": {"clusters": [{"name": item.name, "weight": item.weight} for item in weighted]},
        "timeout": "5s",
        "retry_policy": _retries(),
    }
    return route | ({"request_mirror_policies": mirrors} if mirrors else {})


def _retries() -> dict[str, Any]:
    """Two more attempts, each on another replica, and after a candidate's failure on the champion: with
    `update_frequency` 1 a priority that was tried is left out of the next choice.

    A prediction has no side effect, so it may be asked again.
    Source: Envoy's documentation, "HTTP route components", retry_host_predicate and retry_priority.
    """
    hosts, priorities = (f"{_TYPE}.extensions.retry.{kind}" for kind in ("host", "priority"))
    return {
        "retry_on": "reset,connect-failure,refused-stream,5xx",
        "num_retries": 2,
        "per_try_timeout": "1.5s",
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": f"{hosts}.previous_hosts.v3.PreviousHostsPredicate"},
            }
        ],
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {
                "@type": f"{priorities}.previous_priorities.v3.PreviousPrioritiesConfig",
                "update_frequency": 1,
            },
        },
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
    }


def write_bootstrap(folder: Path, listen_port: int, admin_port: int) -> Path:
    """Write the bootstrap; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    return move(folder / "bootstrap.json", bootstrap(folder, listen_port, admin_port))


def move(path: Path, content: dict[str, Any]) -> Path:
    """Replace the file in one move, which Envoy watches for; a file that says the same already stays."""
    text = json.dumps(content, indent=1)
    if path.is_file() and path.read_text() == text:
        return path
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)
    return path


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _file(path: Path) -> dict[str, Any]:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _response(kind: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    typed = [{"@type": f"{_TYPE}.{kind}", **resource} for resource in resources]
    return {"resources": typed}
