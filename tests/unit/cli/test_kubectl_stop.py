"""`kubectl flightdeck stop` and `go-on`: the one ConfigMap that the operator reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flightdeck.cluster.commands import CommandFailed
from services.rollout_operator.kube.stops import NAME, stop_of
from tests.unit.cli.test_kubectl import run


class Kubectl:
    def __init__(self) -> None:
        self.there: dict[str, Any] | None = None

    def find(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        assert (kind, name) == ("configmap", NAME)
        return self.there

    def __call__(self, *args: str, stdin: str = "") -> str:
        if args[0] == "create":
            if self.there:
                raise CommandFailed("kubectl create ended with 1", 'Error from server (AlreadyExists): "x"')
            self.there = json.loads(stdin)
        else:
            assert args[:3] == ("delete", "configmap", NAME)
            self.there = None
        return ""


@pytest.fixture
def kubectl(monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    found = Kubectl()
    monkeypatch.setattr("flightdeck.cli.kubectl._kubectl", lambda context: found)
    return found


def test_a_stop_says_who_and_why_and_is_lifted(kubectl):
    code, said = run("stop", "the feed delivers nonsense")
    assert code == 0 and "none begins" in said
    stop = stop_of(kubectl.there)
    assert stop and stop.reason == "the feed delivers nonsense" and "@" in stop.who
    code, said = run("go-on")
    assert code == 0 and kubectl.there is None and "were stopped by" in said


def test_a_second_stop_leaves_the_first_ones_words(kubectl):
    run("stop", "first")
    code, said = run("stop", "second")
    assert code == 0 and "already" in said and "first" in said


def test_a_stop_without_a_reason_is_refused_and_going_on_without_a_stop_says_so(kubectl):
    code, said = run("stop", " ")
    assert code == 1 and "say why" in said and kubectl.there is None
    code, said = run("go-on")
    assert code == 0 and "no stop is there" in said
