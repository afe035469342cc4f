"""Where two parts of the operator meet: the stop and the gate, a refused spec and an autoscaler, and the like."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from services.rollout_operator.kube.operator import IDLE_S, Loop
from tests.unit.rollout.kube_cluster import Cluster
from tests.unit.rollout.test_gate import bare
from tests.unit.rollout.test_kube_stop import stop
from tests.unit.rollout.test_kube_tick import drive, ended, served


@pytest.fixture
def cluster() -> Cluster:
    return served(Cluster())


def history(cluster: Cluster) -> list[str]:
    return [it["target"] for it in cluster.status["history"]]


def test_a_stop_is_asked_for_before_what_waited_begins_though_another_release_is_refused(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    cluster.want("3")
    made = cluster.start()
    made.tick(cluster.now_s)  # v3 waits, and was let in
    cluster.ask(bare(cluster.release("4")))
    cluster.annotate("abort")
    drive(cluster, ended(cluster))
    stop(cluster, by="ann", reason="bad feature data")
    before = len(history(cluster))
    cluster.start().tick(cluster.now_s)  # a new process, which no watch has told yet
    assert "pending" not in history(cluster)[before:]


def test_a_retry_asks_for_the_stop_first(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "shadow")
    cluster.annotate("abort")
    drive(cluster, ended(cluster))
    stop(cluster, by="ann", reason="bad feature data")
    cluster.annotate("retry")
    before = len(history(cluster))
    cluster.start().tick(cluster.now_s)
    assert "pending" not in history(cluster)[before:]
