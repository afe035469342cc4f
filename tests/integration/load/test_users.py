"""Locust for real, against a small server on this machine."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flightdeck.lab.users import Arrival, write_arrivals
from flightdeck.load.plan import Limits, LoadPlan
from flightdeck.load.runner import run_users
from flightdeck.load.verdict import judge

RATE_PER_S = 40.0


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    seen: list[bytes]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append(body)
        status = 503 if body == b"bad" else 200
        content = json.dumps({"predictions": [{"score": 0.25, "degraded": []}]}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.seen = []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def plan(server: Server, folder: Path, bodies: list[bytes]) -> LoadPlan:
    write_arrivals(folder / "requests", [Arrival(0, f"{number}", body) for number, body in enumerate(bodies)])
    return LoadPlan(
        f"http://127.0.0.1:{server.server_port}", RATE_PER_S, 3.0, str(folder / "requests"), str(folder / "outcomes"),
        Limits(p50_ms=200, p99_ms=2000),
    )  # fmt: skip


def test_every_request_is_sent_in_turn_at_the_asked_rate(server: Server, tmp_path: Path):
    own = plan(server, tmp_path, [b"one", b"two", b"three"])
    found = run_users(own, tmp_path)
    verdict = judge(own, found)
    assert verdict.ok, verdict
    assert len(server.seen) == own.total == 120
    assert server.seen.count(b"one") == server.seen.count(b"three") == 40
    assert {it.score for it in found} == {0.25}
    intended = sorted(it.intended_s for it in found)
    assert intended[-1] - intended[0] == pytest.approx(119 / RATE_PER_S, abs=0.001)


def test_failed_answers_are_failures(server: Server, tmp_path: Path):
    own = plan(server, tmp_path, [b"good", b"good", b"good", b"bad"])
    verdict = judge(own, run_users(own, tmp_path))
    assert not verdict.ok
    assert verdict.findings[2].found == "30 of 120"


def test_nobody_there_is_all_failed_and_ends(tmp_path: Path, server: Server):
    own = plan(server, tmp_path, [b"good"])
    server.shutdown()
    server.server_close()
    verdict = judge(own, run_users(own, tmp_path))
    assert verdict.findings[2].found == "120 of 120"
