"""Adapter: Envoy's bootstrap and its file-based discovery (CDS, EDS, RDS).

Envoy watches the discovery files and takes over a new version when a file is *moved* over the old one, without dropping
a connection: weights and mirror change under load. Source: Envoy's documentation, "Dynamic configuration (filesystem)".
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flightdeck.lab.ports import HOST

_TYPE = "type.googleapis.com/envoy"
ROUTE_NAME = "users"


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """One replica."""

    name: str
    port: int


@dataclasses.dataclass(frozen=True)
class Backend:
    """The replicas of one release, and their part of the traffic.

    Args:
        weight: of the user's requests, in parts of the sum of all weights; 0 gets none.
        mirror_percent: of the user's requests that are sent here as well, answers thrown away.
    """

    name: str
    endpoints: tuple[Endpoint, ...]
    weight: int = 0
    mirror_percent: float = 0.0


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


def clusters(folder: Path, backends: Sequence[Backend]) -> dict[str, Any]:
    """CDS: one cluster per release, with health checks of its own."""
    return _response("config.cluster.v3.Cluster", [_cluster(folder, backend.name) for backend in backends])


def _cluster(folder: Path, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"service_name": name, "eds_config": _file(folder / f"eds-{name}.json")},
        "connect_timeout": "0.25s",
        "lb_policy": "LEAST_REQUEST",
        # Below a tenth healthy, try them all: a late health check must not turn away what a replica could answer.
        "common_lb_config": {"healthy_panic_threshold": {"value": 10}},
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
        # The default of 3 concurrent retries would fail requests exactly when a replica dies under load.
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 1000, "max_pending_requests": 2000, "max_requests": 2000, "max_retries": 500}
            ]
        },
    }


def endpoints(backend: Backend) -> dict[str, Any]:
    """EDS: where the replicas of one release are."""
    return _response(
        "config.endpoint.v3.ClusterLoadAssignment",
        [
            {
                "cluster_name": backend.name,
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": _address(e.port)}} for e in backend.endpoints]}
                ],
            }
        ],
    )


def routes(backends: Sequence[Backend]) -> dict[str, Any]:
    """RDS: weights, mirror, retries. A prediction has no side effect, so it may be asked again.

    Raises:
        ValueError: no backend has a weight.
    """
    weighted = [backend for backend in backends if backend.weight > 0]
    if not weighted:
        raise ValueError(f"no backend has a weight above 0: {[backend.name for backend in backends]}")
    route: dict[str, Any] = {
        "weighted_clusters": {"clusters": [{"name": item.name, "weight": item.weight} for item in weighted]},
        "timeout": "5s",
        "retry_policy": {
            "retry_on": "reset,connect-failure,refused-stream,5xx",
            "num_retries": 2,
            "per_try_timeout": "1.5s",
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": f"{_TYPE}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 5,
            "retry_back_off": {"base_interval": "0.01s", "max_interval": "0.1s"},
        },
    }
    mirrors = [
        {
            "cluster": item.name,
            "runtime_fraction": {
                "default_value": {"numerator": round(item.mirror_percent * 10_000), "denominator": "MILLION"}
            },
        }
        for item in backends
        if item.mirror_percent > 0
    ]
    if mirrors:
        route["request_mirror_policies"] = mirrors
    return _response(
        "config.route.v3.RouteConfiguration",
        [
            {
                "name": ROUTE_NAME,
                "virtual_hosts": [
                    {"name": "predictor", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}
                ],
            }
        ],
    )


def write_bootstrap(folder: Path, listen_port: int, admin_port: int) -> Path:
    """Write the bootstrap; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    return _move(folder / "bootstrap.json", bootstrap(folder, listen_port, admin_port))


def write_discovery(folder: Path, backends: Sequence[Backend]) -> None:
    """Write endpoints, then clusters, then routes: no route ever names a cluster that Envoy cannot know yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for backend in backends:
        _move(folder / f"eds-{backend.name}.json", endpoints(backend))
    _move(folder / "cds.json", clusters(folder, backends))
    _move(folder / "rds.json", routes(backends))


def _move(path: Path, content: dict[str, Any]) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(path)
    return path


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": HOST, "port_value": port}}


def _file(path: Path) -> dict[str, Any]:
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _response(kind: str, resources: list[dict[str, Any]]) -> dict[str, Any]:
    typed = [{"@type": f"{_TYPE}.{kind}", **resource} for resource in resources]
    return {"resources": typed}
