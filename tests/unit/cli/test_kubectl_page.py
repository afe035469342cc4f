"""`kubectl flightdeck status --html`: the evidence page of a cluster, from what a real run of the tick left behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from flightdeck.cluster import rollout_page
from flightdeck.cluster.commands import CommandFailed
from services.rollout_operator.kube import looks
from services.rollout_operator.remembered import Look
from tests.unit.cli.test_kubectl import run
from tests.unit.rollout.kube_cluster import Cluster
from tests.unit.rollout.test_kube_tick import champion_is, drive, served


class Kubectl:
    """Of a cluster in memory."""

    context = "kind-x"

    def __init__(self, cluster: Cluster, secret: str = "") -> None:
        self.cluster, self.secret = cluster, secret

    def find(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        return self.cluster.read("ModelRollout", name)

    def get(self, *args: str) -> dict[str, Any]:
        raise CommandFailed("kubectl get secret ended with 1", self.secret)


@pytest.fixture(scope="module")
def rolled_out() -> Cluster:
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, champion_is(cluster, "2"))
    return cluster


def page_of(cluster: Cluster, path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    def read(_: Any, uid: str) -> list[Look]:
        return looks.kept(cluster, uid)

    monkeypatch.setattr("flightdeck.cli.kubectl._kubectl", lambda context: Kubectl(cluster))
    monkeypatch.setattr(rollout_page, "read_looks", read)
    return run("status", "late", "--html", str(path))


def test_the_page_shows_each_metric_with_a_plot_and_the_history_and_loads_nothing(rolled_out, tmp_path, monkeypatch):
    code, said = page_of(rolled_out, tmp_path / "late.html", monkeypatch)
    assert code == 0, said
    text = (tmp_path / "late.html").read_text()
    assert text.count("<svg") == 2 and "<figcaption>errorRate" in text and "<figcaption>scoreDelta" in text
    assert "is champion after" in text and "canary 10 %" in text and "shadow passed" in text
    assert rolled_out.release("2").short in text
    assert not re.search(r'(?:src|href)="https?:', text)


def test_without_the_right_to_the_password_the_page_says_so_and_the_exit_code_too(rolled_out, tmp_path, monkeypatch):
    forbidden = 'Error from server (Forbidden): secrets "valkey" is forbidden: User "ann" cannot get resource'
    monkeypatch.setattr("flightdeck.cli.kubectl._kubectl", lambda context: Kubectl(rolled_out, forbidden))
    code, said = run("status", "late", "--html", str(tmp_path / "late.html"))
    assert code == 1 and "forbidden; ask for the right to get secrets" in " ".join(said.split())
    text = (tmp_path / "late.html").read_text()
    assert "forbidden" in text and "is champion after" in text and "<svg" not in text


def test_a_valkey_outside_of_the_cluster_is_told(monkeypatch):
    class Elsewhere(Kubectl):
        def get(self, *args: str) -> dict[str, Any]:
            return {"data": {"password": "cA=="}}

    def refuse(*args: object) -> None:
        raise CommandFailed('no way to x: Error from server (NotFound): services "valkey-streams" not found')

    monkeypatch.setattr(rollout_page, "forward", refuse)
    with pytest.raises(rollout_page.NoLooks, match="its Valkey is elsewhere"):
        rollout_page.read_looks(Elsewhere(Cluster()), "uid")  # type: ignore[arg-type]


def test_before_the_first_rollout_there_is_no_page(tmp_path, monkeypatch):
    code, said = page_of(Cluster(), tmp_path / "late.html", monkeypatch)
    assert code == 1 and "no rollout" in said and not (tmp_path / "late.html").exists()
