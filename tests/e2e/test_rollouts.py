"""Candidates with a planted fault never become champion; good ones do, whatever dies meanwhile."""

from __future__ import annotations

import pytest

from benchmarks.open_load import Load
from flightdeck.cluster.commands import Kubectl
from tests.e2e.conftest import first_failure
from tests.e2e.rollouts import Drill, caught, kill_operator

pytestmark = pytest.mark.timeout(900)


def test_a_constant_answer_is_sent_home_out_of_the_shadow(drill: Drill, users: Load):
    drill.ask(drill.candidate("constant"))
    found = drill.end(users, "constant", within_s=240)
    drill.note(found)
    caught(found, "constant")
    assert not found.failed, first_failure(found.answers)
    assert not found.answered, f"users got {found.answered} answers from a shadow"


def test_a_candidate_that_crashes_under_weight_loses_its_users(drill: Drill, users: Load):
    drill.ask(drill.candidate("crash-100"))
    found = drill.end(users, "crash-100", within_s=500)
    drill.note(found)
    caught(found, "crash-100")
    assert not found.failed, first_failure(found.answers)


def test_the_operator_is_killed_in_the_canary_of_a_good_candidate(drill: Drill, users: Load, kubectl: Kubectl):
    drill.ask(drill.candidate())
    drill.in_phase("canary", 240, weight=10)
    kill_operator(kubectl)
    found = drill.end(users, "operator killed in the canary", within_s=500)
    drill.note(found)
    assert found.phase == "done", found.reason
    assert not found.failed, first_failure(found.answers)
