"""Candidates with a planted fault never become champion; good ones do, whatever dies meanwhile."""

from __future__ import annotations

import time

import pytest

from benchmarks.open_load import Load
from flightdeck.cluster.commands import Kubectl
from tests.e2e.conftest import Figures, first_failure
from tests.e2e.rollouts import Drill, caught, kill_operator, kill_processes

pytestmark = pytest.mark.timeout(900)
NO_READY_S = 2.0


def test_a_constant_answer_is_sent_home_out_of_the_shadow(drill: Drill, users: Load):
    drill.ask(drill.candidate("constant"))
    found = drill.end(users, "constant", within_s=240)
    drill.note(found)
    caught(found, "constant")
    assert not found.failed, first_failure(found.answers)
    assert not found.answered, f"users got {found.answered} answers from a shadow"


def test_a_candidate_whose_replicas_die_under_weight_loses_its_users(
    drill: Drill, users: Load, kubectl: Kubectl, figures: Figures
):
    if not kubectl.context.startswith("kind-"):
        pytest.skip("NOT RUN: a pod's process can be killed from its node on kind only")
    candidate = drill.candidate()
    drill.ask(candidate)
    drill.in_phase("canary", 240, weight=10)
    assert kill_processes(kubectl, candidate) == drill.spec["replicas"]
    killed = time.monotonic()
    gone = drill.watch.until(lambda it: it.weight == 0, 60, "without users")
    none = drill.watch.first(lambda it: it.ready == 0, killed)
    figures.add("all candidate replicas killed (-9): until no user is sent there", gone.at - killed)
    figures.add("  of it since Kubernetes knows of no ready replica", gone.at - (none or gone).at, NO_READY_S)
    found = drill.end(users, "all candidate replicas killed (-9) under 10 %", within_s=300)
    drill.note(found)
    assert (found.phase, found.metrics) == ("aborted", ["restarts"]), found.reason
    assert not found.failed, first_failure(found.answers)


def test_the_operator_is_killed_in_the_canary_of_a_good_candidate(drill: Drill, users: Load, kubectl: Kubectl):
    drill.ask(drill.candidate())
    drill.in_phase("canary", 240, weight=10)
    kill_operator(kubectl)
    found = drill.end(users, "operator killed in the canary", within_s=500)
    drill.note(found)
    assert found.phase == "done", found.reason
    assert not found.failed, first_failure(found.answers)
