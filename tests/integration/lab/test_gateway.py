"""The gateway under an open load to real predictors: weights, copies, a dying and a hanging candidate."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import http.client
import http.server
import json
import math
import statistics
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import psutil
import pytest

from benchmarks.linear_artefact import write_linear_artefact
from benchmarks.open_load import Answer, Load
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import ModelRef, Release
from flightdeck.lab.envoy import Endpoint, release_of
from flightdeck.lab.faults import with_fault
from flightdeck.lab.ports import free_port
from flightdeck.lab.rollout import gateway
from flightdeck.lab.rollout.gateway import Attempts, Gateway
from flightdeck.lab.stack import Stack
from flightdeck.lab.supervisor import Supervisor

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(300), pytest.mark.slow]
RATE_PER_S = 60.0
CANDIDATE_SCORE = 0.25  # the fault `constant` answers the artefact's base rate; the champion answers something else
WARM_UP = 48  # answers, before anything is counted
ROW = {"carrier": "UA", "flight": 1545, "origin": "EWR", "dest": "IAH", "sched_dep_utc": "2013-07-04T21:15:00Z"}


@dataclasses.dataclass
class Serving:
    """Two replicas of a champion and two of a candidate behind the gateway, all users with the champion."""

    stack: Stack
    champion: str
    candidate: str
    names: dict[str, tuple[str, ...]]

    @property
    def gateway(self) -> Gateway:
        return self.stack.gateway

    def ready(self, release: str) -> list[Endpoint]:
        ports = {replica.name: replica.port for replica in self.stack.replicas()}
        return [Endpoint(name, ports[name]) for name in self.names[release]]

    def route(self, *, weight: int = 0, mirror: bool = False, candidate: bool = True) -> None:
        taken = (self.candidate, self.ready(self.candidate)) if candidate else (None, [])
        self.gateway.route(self.champion, self.ready(self.champion), *taken, weight=weight, mirror=mirror)

    def kill(self, release: str) -> None:
        """All its processes at once, as a machine that stops."""
        pids = {status.name: status.pid for status in self.stack.supervisor.status()}
        leaders = [psutil.Process(pids[name]) for name in self.names[release]]
        for process in [*(worker for leader in leaders for worker in leader.children()), *leaders]:
            process.kill()

    def connections(self) -> int:
        """From users to the gateway, so far."""
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.ports["gateway-admin"], timeout=5)
        connection.request("GET", "/stats?filter=http.users.downstream_cx_total&format=json")
        (found,) = json.loads(connection.getresponse().read())["stats"]
        connection.close()
        return int(found["value"])


@contextlib.contextmanager
def users_of(serving: Serving) -> Iterator[Load]:
    """An open load, with its connections made."""
    body = json.dumps({"rows": [ROW]}).encode()
    with Load(serving.stack.ports["gateway"], body, rate_per_s=RATE_PER_S) as users:
        users.more(WARM_UP)
        yield users


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    layout = StateLayout(tmp_path_factory.mktemp("gateway") / "state")
    layout.artefacts.mkdir(parents=True)
    ref = ModelRef(name="late", version="1", sha256=write_linear_artefact(layout.artefacts))
    champion = Release(image="test", model=ref, feature_service="late_v1")  # type: ignore[call-arg]
    candidate = champion.model_copy(update={"image": with_fault("test", "constant")})
    names = ("gateway", "gateway-admin", "mlflow", "redis-online", "redis-streams")
    with Supervisor(layout.run, layout.logs) as supervisor:
        stack = Stack(layout, {name: free_port() for name in names}, supervisor)
        stack.start_stores()
        started = {release.id: stack.start_predictors(release, 2) for release in (champion, candidate)}
        stack.start_gateway(started[champion.id])
        supervisor.wait(["gateway", *(name for group in started.values() for name in group)], 120)
        yield Serving(stack, champion.id, candidate.id, started)


@pytest.fixture
def load(serving: Serving) -> Iterator[Load]:
    serving.route(candidate=False)
    with users_of(serving) as load:
        yield load


def share_of_candidate(answers: list[Answer]) -> float:
    return sum(answer.score == CANDIDATE_SCORE for answer in answers) / len(answers)


def within_binomial(share: float, weight: float, count: int) -> bool:
    """Four standard deviations: one run in 16,000 is outside by chance."""
    return abs(share - weight) <= 4 * math.sqrt(weight * (1 - weight) / count)


def total(counters: Mapping[Any, Attempts]) -> Attempts:
    return Attempts(sum(one.total for one in counters.values()), sum(one.failed for one in counters.values()))


def settled(gateway: Gateway, releases: tuple[str, ...]) -> dict[str, Attempts]:
    """What each release's replicas were asked by users, for another release too, when it no longer moves: the load must
    be over."""
    while True:
        before, _ = gateway.attempts(), time.sleep(0.1)
        after = gateway.attempts()
        if before.counters == after.counters:
            asked = {key: one for key, one in after.counters.items() if key[0] == release_of(key[0])}
            return {
                release: total({key: one for key, one in asked.items() if after.owners.get(key[1]) == release})
                for release in releases
            }


def test_weights_rise_without_a_failed_request_or_a_dropped_connection_and_are_exact(
    serving: Serving, load: Load, record_property: Any
):
    connections, shares = serving.connections(), {}
    for weight, count in ((10, 400), (50, 600), (100, 100)):
        serving.route(weight=weight)
        load.more(3)  # what was under way when the routes changed
        assert serving.gateway.routed(serving.candidate) == (weight, False)
        answers = load.more(count)
        shares[weight] = share_of_candidate(answers)
        assert within_binomial(shares[weight], weight / 100, len(answers)), (weight, shares[weight], len(answers))
    serving.route(candidate=False)
    load.more(10)
    assert share_of_candidate(load.more(60)) == 0
    record_property("shares", shares)
    print(f"realised shares {shares}, {len(load.answers)} requests")
    assert not load.failed, load.failed[:3]
    assert serving.connections() == connections, "each user kept its connection"


def test_promotion_and_the_way_back_fail_no_request_and_old_clusters_go(
    serving: Serving, load: Load, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(gateway, "GRACE_S", 0.5)

    def clusters() -> set[str]:
        return {cluster for cluster, _ in serving.gateway.attempts().counters}

    serving.route(weight=50)
    assert clusters() == {serving.champion, serving.candidate, f"{serving.candidate}-shadow"}
    load.more(30)
    serving.gateway.route(serving.candidate, serving.ready(serving.candidate))
    load.more(60)
    assert share_of_candidate(load.more(30)) == 1
    serving.gateway.route(serving.candidate, serving.ready(serving.candidate))  # as each tick does
    load.more(30)
    assert clusters() == {serving.candidate}
    serving.route(candidate=False)  # its cluster is new again, and not a request may come before its first check
    load.more(10)
    assert share_of_candidate(load.more(60)) == 0
    assert not load.failed, load.failed[:3]


def test_the_gateway_counts_each_attempt_at_the_endpoint_that_answered_it(serving: Serving, load: Load):
    serving.route(weight=50)
    load.more(5)
    load.__exit__()
    places = {f"127.0.0.1:{end.port}" for group in serving.names for end in serving.ready(group)}
    settled(serving.gateway, ())
    before = serving.gateway.attempts().by_endpoint()
    with users_of(serving) as counted:
        counted.more(150)
    settled(serving.gateway, ())
    after = serving.gateway.attempts().by_endpoint()
    answered = collections.Counter(answer.upstream for answer in counted.answers)
    assert set(answered) == places
    assert {place: after[place].total - before[place].total for place in places} == dict(answered)
    assert {place: after[place].failed - before[place].failed for place in places} == dict.fromkeys(places, 0)


def test_copies_never_answer_a_user_and_are_counted_apart(serving: Serving, load: Load):
    serving.route(mirror=True)
    load.more(5)
    assert serving.gateway.routed(serving.candidate) == (0, True)
    copies = serving.gateway.attempts()
    answers = load.more(200)
    load.__exit__()
    settled(serving.gateway, ())
    sent = total(serving.gateway.attempts().of(serving.candidate, mirrored=True)).total
    sent -= total(copies.of(serving.candidate, mirrored=True)).total
    assert share_of_candidate(answers) == 0
    assert not load.failed, load.failed[:3]
    assert sent >= len(answers)
    assert total(serving.gateway.attempts().of(serving.champion, mirrored=True)).total == 0


def test_killing_all_candidates_under_half_of_the_users_fails_no_request(serving: Serving, load: Load):
    pair = (serving.champion, serving.candidate)
    load.__exit__()
    serving.route(weight=50)
    before = settled(serving.gateway, pair)
    with users_of(serving) as users:
        users.more(60)
        serving.kill(serving.candidate)
        killed = time.monotonic()
        answers = users.more(90)
        serving.stack.supervisor.wait(serving.names[serving.candidate], 60)
        recovered = time.monotonic()
        time.sleep(1.5)
        assert within_binomial(share_of_candidate(last := users.more(100)), 0.5, len(last)), "its share comes back"
    after = settled(serving.gateway, pair)
    slowest = max(answer.seconds for answer in users.answers if killed - 2 < answer.at < recovered)
    failed = after[serving.candidate].failed - before[serving.candidate].failed
    print(f"{len(users.answers)} requests, {len(users.failed)} failed, {failed} attempts at dead replicas, "
          f"slowest answer {slowest * 1000:.0f} ms")  # fmt: skip
    assert not users.failed, users.failed[:3]
    assert share_of_candidate(answers) == 0, "the champion answers for it"
    assert failed > 0, "attempts at dead replicas are the candidate's failures"
    assert after[serving.champion].failed == before[serving.champion].failed
    attempts = sum(after[release].total - before[release].total for release in pair)
    assert attempts == len(users.answers) + failed, "what was sent, and a retry for each failed attempt"


class Hanging(http.server.BaseHTTPRequestHandler):
    """Says that it is ready, and never answers a prediction."""

    protocol_version = "HTTP/1.1"
    over = threading.Event()
    asked = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        type(self).asked += 1
        self.over.wait(60)

    def log_message(self, *_: object) -> None:
        pass


def test_a_hanging_candidate_in_the_shadow_costs_the_champion_nothing(serving: Serving, load: Load):
    calm = statistics.median(answer.seconds for answer in load.more(250))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hanging) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        end = Endpoint("hangs", server.server_port)
        serving.gateway.route(serving.champion, serving.ready(serving.champion), "0000dead", [end], mirror=True)
        load.more(5)
        beside = statistics.median(answer.seconds for answer in load.more(450))  # 7 s: copies time out meanwhile
        counted = total(serving.gateway.attempts().of("0000dead", mirrored=True))
        serving.route(candidate=False)
        Hanging.over.set()
        server.shutdown()
    print(f"p50 {calm * 1000:.1f} ms, beside a hanging mirror {beside * 1000:.1f} ms; {Hanging.asked} copies hang")
    assert Hanging.asked > 50
    assert counted.failed == counted.total > 0, "a copy without an answer in time is a failed attempt"
    assert not load.failed, load.failed[:3]
    assert beside < 2 * calm + 0.01
