"""`kubectl flightdeck watch`: each change once, and an exit code that a script can go by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flightdeck.cli import kubectl_watch
from flightdeck.cluster.commands import CommandFailed
from services.rollout_operator.kube.store import KubeStore
from tests.unit.cli.test_kubectl import run
from tests.unit.rollout.kube_cluster import Cluster
from tests.unit.rollout.test_kube_tick import served


class Watched:
    """A cluster whose operator ticks, and whose time passes, between two looks."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.made = cluster, cluster.start()
        self.said: list[str] = []
        self.warned: list[str] = []
        self.away = 0

    def read(self) -> dict[str, Any]:
        if self.away:
            self.away -= 1
            raise CommandFailed("the connection was refused")
        return self.cluster.rollout

    def sleep(self, _: float) -> None:
        self.made.tick(self.cluster.now_s)
        self.cluster.pass_time()

    def follow(self, timeout_s: float | None = 200.0) -> int:
        return kubectl_watch.follow(
            self.read, self.said.append, self.warned.append, timeout_s, sleep=self.sleep,
            clock=lambda: self.cluster.now_s,
        )  # fmt: skip


def test_a_release_that_becomes_champion_ends_with_0_and_every_change_is_said_once():
    watched = Watched(served(Cluster()))
    watched.cluster.want("2")
    assert watched.follow() == 0
    assert len(watched.said) == len(set(watched.said))
    text = "\n".join(watched.said)
    for words in ("shadow begins", "canary 10 % passed", "weight 10 %", "is champion after", "(controller)"):
        assert words in text, text


def test_an_abort_ends_with_1():
    watched = Watched(served(Cluster(scores=lambda _: 0.9)))
    watched.cluster.want("2")
    assert watched.follow() == 1
    assert "aborted in shadow" in "\n".join(watched.said)


def test_a_refused_release_ends_with_1_and_says_why():
    watched = Watched(served(Cluster()))
    watched.cluster.want("2")
    watched.cluster.rollout["spec"]["release"]["model"]["name"] = "early"
    assert watched.follow() == 1
    assert "refused" in watched.said[-1] and "early" in watched.said[-1]


def test_without_an_end_it_stops_at_the_timeout():
    watched = Watched(served(Cluster()))
    watched.cluster.unready = watched.cluster.release("2").id
    watched.cluster.want("2")
    assert watched.follow(timeout_s=5.0) == 124
    assert "not ended after 5 s" in watched.warned[-1]


def test_an_api_server_that_is_away_is_waited_for_and_told_once():
    watched = Watched(served(Cluster()))
    watched.cluster.want("2")
    watched.away = 3
    assert watched.follow() == 0
    assert len(watched.warned) == 1


@pytest.mark.parametrize(("args", "words"), [(("early",), "there are: late"), (("late", "--timeout", "9"), "duration")])
def test_what_cannot_be_watched_is_told_at_once(args, words, monkeypatch):
    cluster = served(Cluster())

    class Kubectl:
        def find(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
            return cluster.read("ModelRollout", name)

        def get(self, *_: str) -> dict[str, Any]:
            return {"items": [cluster.rollout]}

    make: Callable[[str | None], Kubectl] = lambda context: Kubectl()  # noqa: E731
    monkeypatch.setattr("flightdeck.cli.kubectl._kubectl", make)
    code, said = run("watch", *args)
    assert code == 1 and words in said


def test_an_idle_rollout_whose_release_serves_has_ended():
    watched = Watched(served(Cluster()))
    assert isinstance(watched.made.store, KubeStore)
    assert watched.follow() == 0 and len(watched.said) == 1
