"""Looks of the judge on the cluster: kept, bounded, and never in the way of a tick."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from services.rollout_operator.kube import looks
from services.rollout_operator.remembered import Look
from services.rollout_operator.state import Phase
from services.rollout_operator.verdict import Judgement, MetricVerdict, Verdict
from tests.unit.rollout.kube_cluster import Cluster
from tests.unit.rollout.test_kube_tick import champion_is, drive, served


def look(at_s: float, *, started_s: float = 0.0, weight: int = 0, verdict: Verdict = Verdict.WATCHING) -> Look:
    metric = MetricVerdict("errorRate", verdict, True, 0.02, 0.001, None, 0.03, int(at_s), "0.001 so far")
    return Look(at_s, started_s, Phase.CANARY, 1, weight, Judgement(verdict, "so far", (metric,)))


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[redis.Redis]:
    """The real protocol, on a socket of its own: what a list, a trim and an expiry do is not ours to imagine."""
    program = shutil.which("redis-server") or str(Path(sys.executable).parent / "redis-server")
    socket = tmp_path / "s"
    server = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis(unix_socket_path=str(socket))
    try:
        for _ in range(200):
            try:
                client.ping()
                break
            except redis.ConnectionError:
                try:
                    server.wait(0.02)
                except subprocess.TimeoutExpired:
                    continue
        yield client
    finally:
        server.kill()
        server.wait(5)


def test_looks_come_back_as_they_were_the_newest_of_too_many_and_expire(valkey, monkeypatch):
    monkeypatch.setattr(looks, "KEPT", 5)
    writer = looks.Looks(valkey)
    written = [look(float(at)) for at in range(8)]
    assert all(writer.keep("uid", it) for it in written)
    valkey.rpush(looks.key("uid"), b"of another version")
    assert looks.kept(valkey, "uid") == written[-5:]
    assert 0 < valkey.ttl(looks.key("uid")) <= looks.KEPT_S
    assert looks.kept(valkey, "another") == []


def test_a_rollout_of_a_week_stays_within_the_bound_and_no_change_is_missed():
    writer, kept, at_s = looks.Looks(Cluster()), [], 1.0
    while at_s < 7 * 86_400:
        weight = 10 if at_s > 86_400 else 0
        if writer.due(it := look(at_s, weight=weight)):
            kept.append(it)
        assert writer.keep("uid", it)
        at_s += 1.0
    assert len(kept) < looks.KEPT
    assert [it.at_s for it in kept[:5]] == [1.0, 2.0, 3.0, 4.0, 5.0]
    first = next(it for it in kept if it.weight == 10)
    assert first.at_s == 86_401.0, "the moment at which the weight changed"


def test_the_tick_keeps_looks_of_every_judged_phase_and_the_deciding_one():
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, champion_is(cluster, "2"))
    found = looks.kept(cluster, "0123456789")
    assert {it.phase for it in found} == {Phase.SHADOW, Phase.CANARY, Phase.PROMOTING}
    assert {it.weight for it in found} >= {0, 10, 50}
    began = next(it["at_s"] for it in reversed(cluster.status["history"]) if it["target"] == "pending")
    assert {it.started_s for it in found} == {began}


def test_without_valkey_no_look_is_tried_and_the_rollout_goes_on(monkeypatch):
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    asked = []

    def away(*_: object, **__: object) -> None:
        raise redis.ConnectionError("away")

    def pipeline(**_: object) -> None:
        asked.append(1)
        away()

    monkeypatch.setattr(cluster, "pipeline", pipeline)
    monkeypatch.setattr(cluster, "set", away)
    made = cluster.start()
    for _ in range(3):
        cluster.pass_time()
        made.tick(cluster.now_s)
    assert not asked, "the evidence was refused just before: nobody waits a second time"
    monkeypatch.undo()
    monkeypatch.setattr(cluster, "pipeline", pipeline)
    drive(cluster, champion_is(cluster, "2"))
    assert asked, "a look that is refused is no reason to stop"
