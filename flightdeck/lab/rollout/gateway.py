"""Adapter: the gateway, Envoy. Routes go in as discovery files; what it confirms and counts comes from its admin page.

A change never opens a gap: a new cluster is there and checked before a route names it, and an old one stays for as long
as a request may still be under way to it.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from flightdeck.lab import envoy
from flightdeck.lab.envoy import Backend, Endpoint
from flightdeck.lab.ports import HOST
from services.rollout_operator.evidence import Attempts
from services.rollout_operator.ports import Unavailable

__all__ = ["Attempts", "Counted", "Gateway", "GatewayUnavailable"]

TIMEOUT_S = 1.0
PATIENCE_S = 3.0  # for the first health checks of a new cluster: one takes half a second at most
GRACE_S = 6.0  # a request is answered or given up within 5 s


class GatewayUnavailable(Unavailable):
    """The gateway does not answer, or has not taken what was asked of it; nothing is known of its counters."""


class Counted(msgspec.Struct, frozen=True):
    """The gateway's counters at one moment.

    Args:
        counters: (cluster, "host:port") -> attempts. Each is one counter of Envoy that can begin anew by itself, when
            an endpoint left its cluster and came back, and all of them when Envoy is started anew; so differences are
            to be taken of each, not of sums.
        owners: "host:port" -> the release whose replica listens there.
    """

    counters: dict[tuple[str, str], Attempts]
    owners: dict[str, str]

    def of(self, release: str, *, mirrored: bool | None = None) -> dict[str, Attempts]:
        """Counters of a release's replicas, named `<cluster> <host:port>`; those of copies only or of users only on
        request. What the champion's replicas answered for a failing candidate is in none: that failed at the candidate.
        """
        return {
            f"{cluster} {place}": attempts
            for (cluster, place), attempts in self.counters.items()
            if self.owners.get(place) == release == envoy.release_of(cluster)
            and mirrored in (None, cluster != envoy.release_of(cluster))
        }  # fmt: skip

    def by_endpoint(self) -> dict[str, Attempts]:
        """ "host:port" -> all attempts there, users' and copies."""
        sums: dict[str, Attempts] = {}
        for (_, place), one in self.counters.items():
            so_far = sums.get(place, Attempts(0, 0))
            sums[place] = Attempts(so_far.total + one.total, so_far.failed + one.failed)
        return sums


class Gateway:
    """Envoy with its discovery files in `folder`. Keeps nothing in memory: any process may use it after another."""

    def __init__(self, folder: Path, admin_port: int) -> None:
        self.folder, self.admin_port = folder, admin_port

    def route(
        self, champion: str, champion_ready: Sequence[Endpoint], candidate: str | None = None,
        candidate_ready: Sequence[Endpoint] = (), *, weight: int = 0, mirror: bool = False,
    ) -> None:  # fmt: skip
        """All users to the champion, but `weight` of 100 to the candidate; with `mirror` copies of all to it as well.

        Writes what changed only. A candidate without a ready replica gets nothing, whatever its weight. A champion
        without one keeps the endpoints it had: health checks know better than an empty list, which could only fail.
        Waits up to `PATIENCE_S` where a new cluster gets traffic.

        Args:
            champion, candidate: ids of releases.
        Raises:
            GatewayUnavailable: a new cluster did not come up; users go where they went before.
            OSError: a file could not be written. ValueError: the weight is not 0 to 100.
        """
        if not 0 <= weight <= 100:
            raise ValueError(f"a weight is 0 to 100 per cent of the users; found {weight}")
        kept = tuple(champion_ready) or self._endpoints(champion)
        backends = [Backend(champion, kept, weight=100)]
        if candidate is not None and candidate_ready:
            copies = 100.0 if mirror else 0.0
            backends = [
                Backend(champion, kept, weight=100 - weight),
                Backend(candidate, tuple(candidate_ready), weight, copies, fallback=kept, shadow=True),
            ]
        self._write(backends)

    def clear(self) -> None:
        """No release serves: what a starting Envoy finds, instead of the endpoints of an earlier lab."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self._names("cds.json"):
            envoy.eds_path(self.folder, name).unlink(missing_ok=True)
        envoy.move(self.folder / "rds.json", envoy.routes([]))
        envoy.move(self.folder / "cds.json", envoy.clusters(self.folder, []))

    def routed(self, candidate: str | None) -> tuple[int, bool]:
        """The candidate's weight of 100, and whether it gets copies, by the routes that Envoy says it uses.

        Raises:
            GatewayUnavailable: it does not answer.
        """
        weights, copies = _of_routes(self._ask("/config_dump?resource=dynamic_route_configs"))
        if candidate is None or not weights:
            return 0, False
        part = 100 * weights.get(candidate, 0) / sum(weights.values())
        return round(part), envoy.shadow_of(candidate) in copies

    def attempts(self) -> Counted:
        """All counters now. An attempt that failed: a 5xx answer, a reset, no connection, or no answer in time.

        Source: Envoy's admin page `clusters`, `rq_success` and `rq_error` of each host; both count when an attempt
        ends, retried ones included. `rq_total` would leave out attempts that found no connection. Measured: see
        tests/integration/lab/test_gateway.py.
        Raises:
            GatewayUnavailable: it does not answer.
        """
        counters: dict[tuple[str, str], Attempts] = {}
        owners: dict[str, str] = {}
        for cluster in self._ask("/clusters?format=json").get("cluster_statuses", []):
            for host in cluster.get("host_statuses", []):
                address = host["address"]["socket_address"]
                place = f"{address['address']}:{address['port_value']}"
                stats = {item["name"]: int(item.get("value", 0)) for item in host.get("stats", [])}
                failed = stats["rq_error"]
                counters[cluster["name"], place] = Attempts(stats["rq_success"] + failed, failed)
                if not host.get("priority"):
                    owners[place] = envoy.release_of(cluster["name"])
        return Counted(counters, owners)

    # -- files ----------------------------------------------------------------------------------------------------

    def _write(self, backends: Sequence[Backend]) -> None:
        """Endpoints, clusters, routes, and at last what is no longer needed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for backend in backends:
            for name, content in envoy.endpoints(backend).items():
                envoy.move(envoy.eds_path(self.folder, name), content)
        needed = {name for backend in backends for name in backend.clusters}
        present = set(self._names("cds.json"))
        if not needed <= present:
            envoy.move(self.folder / "cds.json", envoy.clusters(self.folder, needed | present))
        path, content = self.folder / "rds.json", envoy.routes(backends)
        used, used_before = _used(content), _used(self._read("rds.json"))
        if used - used_before:
            self._await_clusters(used - used_before)
        envoy.move(path, content)
        if present - needed and time.time() - path.stat().st_mtime > GRACE_S:
            self._forget(present - needed, needed)

    def _await_clusters(self, names: Iterable[str]) -> None:
        """Until Envoy has the clusters and has checked their endpoints once; a stopped Envoy reads all at its start."""
        deadline = time.monotonic() + PATIENCE_S
        missing = set(names)
        while missing:
            try:
                found = {item["name"] for item in self._ask("/clusters?format=json").get("cluster_statuses", [])}
                missing -= found
            except GatewayUnavailable as error:
                if isinstance(error.__cause__, ConnectionRefusedError):
                    return
            if missing and time.monotonic() > deadline:
                raise GatewayUnavailable(
                    f"the gateway has no cluster {', '.join(sorted(missing))} after {PATIENCE_S} s"
                )
            if missing:
                time.sleep(0.02)

    def _forget(self, old: set[str], needed: set[str]) -> None:
        try:
            routes = self._ask("/config_dump?resource=dynamic_route_configs")
        except GatewayUnavailable:
            return  # the next call does it
        weights, copies = _of_routes(routes)
        if not (set(weights) | copies) & old:
            envoy.move(self.folder / "cds.json", envoy.clusters(self.folder, needed))
            for name in old:
                envoy.eds_path(self.folder, name).unlink(missing_ok=True)

    def _read(self, name: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return {}
        return found

    def _names(self, name: str) -> list[str]:
        return [item["name"] for item in self._read(name).get("resources", [])]

    def _endpoints(self, release: str) -> tuple[Endpoint, ...]:
        """The endpoints of its own that the release has now."""
        found = self._read(envoy.eds_path(self.folder, release).name).get("resources", [{}])[0]
        own = [place for place in found.get("endpoints", []) if not place["priority"]]
        return tuple(
            Endpoint("", item["endpoint"]["address"]["socket_address"]["port_value"])
            for place in own
            for item in place["lb_endpoints"]
        )

    def _ask(self, path: str) -> Any:
        connection = http.client.HTTPConnection(HOST, self.admin_port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise GatewayUnavailable(f"GET {path} of the gateway's admin page answered {answer.status}")
            return json.loads(content)
        except (OSError, http.client.HTTPException, ValueError) as error:
            if isinstance(error, GatewayUnavailable):
                raise
            raise GatewayUnavailable(
                f"GET {path} of the gateway's admin page on port {self.admin_port}: {error or type(error).__name__}"
            ) from error
        finally:
            connection.close()


def _of_routes(dump: Mapping[str, Any]) -> tuple[dict[str, int], set[str]]:
    """Weights by cluster, and the clusters that get copies, of Envoy's dump of its dynamic routes."""
    weights: dict[str, int] = {}
    copies: set[str] = set()
    for item in dump.get("configs", []):
        found, mirrored = _targets(item.get("route_config", {}))
        weights |= found
        copies |= mirrored
    return weights, copies


def _used(response: Mapping[str, Any]) -> set[str]:
    """The clusters that a file of routes sends anything to."""
    used: set[str] = set()
    for table in response.get("resources", []):
        weights, copies = _targets(table)
        used |= set(weights) | copies
    return used


def _targets(table: Mapping[str, Any]) -> tuple[dict[str, int], set[str]]:
    weights: dict[str, int] = {}
    copies: set[str] = set()
    for host in table.get("virtual_hosts", []):
        for rule in host["routes"]:
            route = rule.get("route", {})
            for item in route.get("weighted_clusters", {}).get("clusters", []):
                weights[item["name"]] = item["weight"]
            copies |= {item["cluster"] for item in route.get("request_mirror_policies", [])}
    return weights, copies
