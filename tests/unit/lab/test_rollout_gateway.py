"""What the gateway's adapter writes and reads; the admin page is a small fake, no Envoy runs."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flightdeck.lab.envoy import Endpoint
from flightdeck.lab.ports import free_port
from flightdeck.lab.rollout import gateway as module
from flightdeck.lab.rollout.gateway import Attempts, Counted, Gateway, GatewayUnavailable

OLD, NEW = "0a0a0a0a", "0b0b0b0b"
CHAMPION = [Endpoint("late-0a0a0a0a-1", 8101)]
CANDIDATE = [Endpoint("late-0b0b0b0b-1", 8201)]


class Admin:
    """Envoy's admin page: has taken what lies in the folder, unless told to be slow."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clusters, self.status = folder, list[dict[str, Any]](), 200
        self.takes = True

    def answer(self, path: str) -> Any:
        if path.startswith("/config_dump"):
            (table,) = json.loads((self.folder / "rds.json").read_text())["resources"]
            return {"configs": [{"route_config": table}]}
        if self.clusters or not self.takes:
            return {"cluster_statuses": self.clusters}
        found = json.loads((self.folder / "cds.json").read_text())["resources"]
        return {"cluster_statuses": [{"name": item["name"]} for item in found]}


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[tuple[Admin, Gateway]]:
    made = Admin(tmp_path)

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(made.status)
            self.end_headers()
            self.wfile.write(json.dumps(made.answer(self.path)).encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made, Gateway(tmp_path, server.server_port)
        server.shutdown()


@pytest.fixture
def stopped(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path, free_port())


def names(folder: Path, file: str = "cds.json") -> list[str]:
    return [item["name"] for item in json.loads((folder / file).read_text())["resources"]]


def ports(folder: Path, cluster: str) -> list[list[int]]:
    (found,) = json.loads((folder / f"eds-{cluster}.json").read_text())["resources"]
    return [
        [item["endpoint"]["address"]["socket_address"]["port_value"] for item in place["lb_endpoints"]]
        for place in found["endpoints"]
    ]


def test_routes_are_read_back_from_what_envoy_says_it_uses(admin):
    _, gateway = admin
    gateway.route(OLD, CHAMPION)
    assert gateway.routed(NEW) == gateway.routed(None) == (0, False)
    gateway.route(OLD, CHAMPION, NEW, CANDIDATE, mirror=True)
    assert gateway.routed(NEW) == (0, True)
    gateway.route(OLD, CHAMPION, NEW, CANDIDATE, weight=10)
    assert gateway.routed(NEW) == (10, False)
    gateway.route(OLD, CHAMPION, NEW, CANDIDATE, weight=100)
    assert gateway.routed(NEW) == (100, False)
    gateway.clear()
    assert gateway.routed(NEW) == (0, False)


def test_nothing_is_written_when_nothing_changed(admin, tmp_path):
    _, gateway = admin
    gateway.route(OLD, CHAMPION, NEW, CANDIDATE, weight=10)
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    gateway.route(OLD, CHAMPION, NEW, CANDIDATE, weight=10)
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before


def test_a_weight_outside_0_to_100_is_refused(stopped):
    for weight in (-1, 101):
        with pytest.raises(ValueError, match=f"found {weight}"):
            stopped.route(OLD, CHAMPION, NEW, CANDIDATE, weight=weight)


def test_a_candidate_without_a_ready_replica_gets_nothing(admin):
    _, gateway = admin
    gateway.route(OLD, CHAMPION, NEW, [], weight=50, mirror=True)
    assert gateway.routed(NEW) == (0, False)


def test_a_champion_without_a_ready_replica_keeps_its_endpoints(admin, tmp_path):
    _, gateway = admin
    gateway.route(OLD, CHAMPION)
    gateway.route(OLD, [], NEW, CANDIDATE, weight=10)
    assert ports(tmp_path, OLD) == [[8101]]
    assert ports(tmp_path, NEW) == [[8201], [8101]]


def test_a_cluster_that_does_not_come_up_gets_no_route(admin, tmp_path, monkeypatch):
    fake, gateway = admin
    monkeypatch.setattr(module, "PATIENCE_S", 0.1)
    gateway.route(OLD, CHAMPION)
    fake.takes = False
    with pytest.raises(GatewayUnavailable, match=f"no cluster {NEW}"):
        gateway.route(OLD, CHAMPION, NEW, CANDIDATE, weight=10)
    assert gateway.routed(NEW) == (0, False)
    gateway.route(OLD, CHAMPION, NEW, CANDIDATE, weight=0)  # taking weight away waits for nobody
    fake.takes = True
    gateway.route(OLD, CHAMPION, NEW, CANDIDATE, weight=10)
    assert gateway.routed(NEW) == (10, False)


def test_a_stopped_gateway_finds_everything_at_its_start(stopped, tmp_path):
    stopped.route(OLD, CHAMPION, NEW, CANDIDATE, weight=10)
    assert names(tmp_path) == [OLD, NEW, f"{NEW}-shadow"]
    with pytest.raises(GatewayUnavailable):
        stopped.routed(NEW)


def test_an_old_cluster_stays_while_requests_may_be_under_way_to_it(admin, tmp_path, monkeypatch):
    _, gateway = admin
    gateway.route(OLD, CHAMPION, NEW, CANDIDATE, weight=50)
    gateway.route(NEW, CANDIDATE)
    gateway.route(NEW, CANDIDATE)
    assert names(tmp_path) == [OLD, NEW, f"{NEW}-shadow"]
    monkeypatch.setattr(module, "GRACE_S", -1.0)
    gateway.route(NEW, CANDIDATE)
    assert names(tmp_path) == [NEW]
    assert {path.name for path in tmp_path.iterdir()} == {"cds.json", "rds.json", f"eds-{NEW}.json"}


def host(port: int, success: int, error: int, priority: int = 0) -> dict[str, Any]:
    stats = [{"name": "rq_success", "value": str(success)}, {"name": "rq_error", "value": str(error)}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"address": address, "stats": stats} | ({"priority": priority} if priority else {})


def test_attempts_count_where_they_were_made_and_copies_apart(admin):
    fake, gateway = admin
    fake.clusters = [
        {"name": OLD, "host_statuses": [host(8101, 90, 1)]},
        {"name": NEW, "host_statuses": [host(8201, 7, 3), host(8101, 3, 0, priority=1)]},
        {"name": f"{NEW}-shadow", "host_statuses": [host(8201, 40, 2)]},
    ]
    counted = gateway.attempts()
    assert counted.of(NEW) == {
        f"{NEW} 127.0.0.1:8201": Attempts(10, 3),
        f"{NEW}-shadow 127.0.0.1:8201": Attempts(42, 2),
    }
    assert counted.of(NEW, mirrored=False) == {f"{NEW} 127.0.0.1:8201": Attempts(10, 3)}
    assert counted.of(NEW, mirrored=True) == {f"{NEW}-shadow 127.0.0.1:8201": Attempts(42, 2)}
    assert counted.of(OLD) == {f"{OLD} 127.0.0.1:8101": Attempts(91, 1)}, "without what it answered for the candidate"
    assert counted.by_endpoint() == {"127.0.0.1:8101": Attempts(94, 1), "127.0.0.1:8201": Attempts(52, 5)}


def test_an_endpoint_without_a_counter_yet_has_none_and_a_new_envoy_begins_anew(admin):
    fake, gateway = admin
    fake.clusters = [{"name": OLD}, {"name": NEW, "host_statuses": [host(8201, 0, 0)]}]
    assert gateway.attempts() == Counted({(NEW, "127.0.0.1:8201"): Attempts(0, 0)}, {"127.0.0.1:8201": NEW})


def test_an_admin_page_that_does_not_answer_is_no_zero(admin, stopped):
    fake, gateway = admin
    fake.status = 503
    for ask in (gateway.attempts, stopped.attempts, lambda: gateway.routed(NEW)):
        with pytest.raises(GatewayUnavailable):
            ask()
