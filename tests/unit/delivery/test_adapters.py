"""What is asked of Git, of the users' way and of the registry, and what the answers mean."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from flightdeck.cluster.champion import Version
from flightdeck.contracts.release import Approval
from flightdeck.delivery import provenance, there, training, users
from flightdeck.delivery.decisions import Relation
from tests.unit.delivery.records import release

CARD = Approval.model_validate({"cardSha256": "0" * 64, "signature": "0" * 128})


def git(folder: Path, *args: str) -> str:
    argv = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org", *args)
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, words: str = "x") -> str:
    git(folder, "commit", "-q", "--allow-empty", "-m", words)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    return tmp_path


def test_the_relation_of_two_commits_is_gits(clone: Path):
    first, second = commit(clone), commit(clone)
    git(clone, "checkout", "-q", "--orphan", "other")
    beside = commit(clone, "another history")
    assert provenance.relation(second, "", clone) is Relation.FIRST
    assert provenance.relation(second, first, clone) is Relation.NEWER
    assert provenance.relation(first, second, clone) is Relation.OLDER
    assert provenance.relation(f"{first}-dirty", first, clone) is Relation.SAME
    assert provenance.relation(beside, second, clone) is Relation.BESIDE
    assert provenance.relation(beside, "f" * 40, clone) is Relation.BESIDE  # force-pushed away


def test_a_shallow_clone_cannot_tell(clone: Path, tmp_path_factory: pytest.TempPathFactory):
    first, second = commit(clone), commit(clone)
    shallow = tmp_path_factory.mktemp("shallow")
    git(shallow, "clone", "-q", "--depth", "1", f"file://{clone}", ".")
    assert provenance.relation(second, first, shallow) is Relation.UNKNOWN


def test_who_delivers_is_whom_a_hook_or_github_names(monkeypatch: pytest.MonkeyPatch):
    for name in (provenance.WHO_ENV, "GITHUB_ACTIONS", "GITHUB_ACTOR"):
        monkeypatch.delenv(name, raising=False)
    assert "@" in provenance.who()
    monkeypatch.setenv("GITHUB_ACTOR", "octo")
    assert provenance.who() != "octo"  # outside of GitHub anybody can set that
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    assert provenance.who() == "octo"
    monkeypatch.setenv(provenance.WHO_ENV, "ann")
    assert provenance.who() == "ann"


def test_training_inputs_are_digests_of_what_is_in_the_checkout():
    one, same, other = (provenance.training_inputs(it) for it in ("late", "late", "delay"))
    assert one == same
    assert (one.code, one.features, one.lock) == (other.code, other.features, other.lock) and one.spec != other.spec


def test_every_path_that_makes_a_model_is_there():
    for it in (*provenance.CODE, *provenance.FEATURES, provenance.LOCK):
        assert (provenance.CHECKOUT / it).exists(), it


def answer(status: int, body: object) -> httpx.Response:
    return httpx.Response(status, text=json.dumps(body))


GOOD, ROW = answer(200, {"version": "1"}), answer(200, {"predictions": [{"score": 0.3, "degraded": []}]})


@pytest.mark.parametrize(
    ("version", "row", "words"),
    [
        (GOOD, ROW, ""),
        (answer(200, {"version": "2"}), ROW, "says version 2, the rollout's champion is 1"),
        (answer(503, "away"), ROW, "/v1/model answers 503"),
        (GOOD, answer(500, "broken"), "/v1/predict answers 500"),
        (GOOD, answer(200, {"predictions": []}), "without a score"),
        (GOOD, answer(200, {"predictions": [{"score": None}]}), "without a score"),
    ],
)
def test_smoke_wants_the_recorded_version_and_a_score(version: httpx.Response, row: httpx.Response, words: str):
    found = users.wrong_with(version, row, release(1))
    assert words in found and bool(found) == bool(words)


def version(number: int, verdict: str = "PROMOTE", approval: Approval | None = CARD) -> Version:
    return Version(number, "a" * 64, verdict, "late_v1", "r@sha256:1", "too late", approval)


def test_a_candidate_that_the_gate_refused_is_told_with_its_reason():
    before = [version(1)]
    refused = training.judged_since(before, [version(2, "REJECT", None), *before])
    assert refused == "the gate says REJECT of v2: too late"
    assert training.judged_since(before, [version(2), *before]) == ""
    assert training.judged_since(before, before) == ""


class Registry(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(200 if self.path.endswith("sha256:there") else 404)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def test_an_image_is_missing_when_its_registry_says_so_or_says_nothing(port: int):
    here, gone = f"127.0.0.1:{port}/x@sha256:there", f"127.0.0.1:{port}/x@sha256:gone"
    silent = "127.0.0.1:1/x@sha256:there"
    found = there.missing([here, gone, silent])
    assert set(found) == {gone, silent}
    assert "answers 404" in found[gone] and "does not answer" in found[silent]


def test_requests_are_sent_while_the_block_runs_and_counted(port: int):
    with users.asking(f"http://127.0.0.1:{port}", "", [b"{}"], rate_per_s=100, longest_s=20) as found:
        waited = threading.Event()
        for _ in range(200):
            if found.answered >= 5 or waited.wait(0.05):
                break
    ended = found.answered
    assert ended >= 5 and found.failed == 0
    assert not waited.wait(0.1) and found.answered == ended
