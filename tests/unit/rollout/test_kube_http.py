"""The adapter to the API server against a local server that answers as one: paths, headers, errors in our words."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from services.rollout_operator.kube import api
from services.rollout_operator.kube.api import Conflict, Kubernetes, Refused
from services.rollout_operator.ports import Unavailable


class Server(ThreadingHTTPServer):
    """Answers every request with `status` and `answer`, and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.answer = 200, b"{}"
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []


class Handler(BaseHTTPRequestHandler):
    """See Server."""

    server: Server

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers), body))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def kubeconfig(folder: Path, server: Server, token: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "current-context": "it",
                "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
                "clusters": [{"name": "it", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{"name": "it", "user": {"token": token}}],
            }
        )
    )
    return path


@pytest.fixture
def kubernetes(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kubernetes:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, server, "first")))
    return Kubernetes("here")


def test_each_verb_asks_as_the_api_server_wants_it(kubernetes: Kubernetes, server: Server):
    server.answer = b'{"items": [], "metadata": {"managedFields": [1], "name": "it"}}'
    document = {"kind": "Service", "metadata": {"name": "a"}}
    assert kubernetes.read("Pod", "a") == {"items": [], "metadata": {"name": "it"}}
    kubernetes.list("Pod", "app=a,b", namespace="there")
    kubernetes.apply(document)
    kubernetes.patch("Deployment", "a", [{"op": "test"}])
    kubernetes.patch("Deployment", "a", {"spec": {}})
    kubernetes.replace_status({"kind": "ModelRollout", "metadata": {"name": "a"}})
    kubernetes.create({"kind": "Event", "metadata": {"name": "a"}})
    kubernetes.delete("Service", "a")
    asked = [(verb, path, headers["Content-Type"]) for verb, path, headers, _ in server.asked]
    assert asked == [
        ("GET", "/api/v1/namespaces/here/pods/a", "application/json"),
        ("GET", "/api/v1/namespaces/there/pods?labelSelector=app%3Da%2Cb", "application/json"),
        ("PATCH", "/api/v1/namespaces/here/services/a?fieldManager=flightdeck-release&force=true",
         "application/apply-patch+yaml"),
        ("PATCH", "/apis/apps/v1/namespaces/here/deployments/a?fieldManager=flightdeck-release",
         "application/json-patch+json"),
        ("PATCH", "/apis/apps/v1/namespaces/here/deployments/a?fieldManager=flightdeck-release",
         "application/merge-patch+json"),
        ("PUT", "/apis/flightdeck.dev/v1alpha1/namespaces/here/modelrollouts/a/status", "application/json"),
        ("POST", "/api/v1/namespaces/here/events", "application/json"),
        ("DELETE", "/api/v1/namespaces/here/services/a", "application/json"),
    ]  # fmt: skip
    assert {headers["Authorization"] for _, _, headers, _ in server.asked} == {"Bearer first"}
    assert json.loads(server.asked[2][3]) == document


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (409, b"changed", Conflict),
        (422, b"the JSON patch test failed", Conflict),
        (422, b"Invalid value", Refused),
        (403, b"forbidden: quota", Refused),
        (401, b"Unauthorized", Unavailable),
        (500, b"etcd", Unavailable),
        (429, b"too many", Unavailable),
        (200, b"<html>a proxy's page", Unavailable),
    ],
)
def test_an_answer_that_is_no_success_is_told_in_our_words(
    kubernetes: Kubernetes, server: Server, status: int, body: bytes, error: type[Exception]
):
    server.status, server.answer = status, body
    with pytest.raises(error, match="GET /api/v1/namespaces/here/pods"):
        kubernetes.list("Pod", "a=b")


def test_what_is_not_there_is_none_and_may_be_deleted(kubernetes: Kubernetes, server: Server):
    server.status = 404
    assert kubernetes.read("Pod", "a") is None
    kubernetes.delete("Pod", "a")


def test_a_server_that_hangs_up_is_unavailable(kubernetes: Kubernetes, server: Server):
    server.shutdown()
    server.server_close()
    with pytest.raises(Unavailable, match="did not answer GET"):
        kubernetes.read("Pod", "a")


def test_a_token_that_was_renewed_in_its_file_is_used(
    kubernetes: Kubernetes, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kubeconfig(tmp_path, server, "second")
    kubernetes.read("Pod", "a")
    monkeypatch.setattr(api, "RENEWED_S", 0.0)
    kubernetes.read("Pod", "a")
    assert [headers["Authorization"] for _, _, headers, _ in server.asked] == ["Bearer first", "Bearer second"]


def test_without_a_login_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match="no ServiceAccount is mounted, and no kubeconfig is there"):
        Kubernetes("here")
