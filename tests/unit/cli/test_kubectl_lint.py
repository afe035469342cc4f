"""`kubectl flightdeck lint`: a plan against the replicas and the rate that the cluster has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.cli.test_kubectl import run

SHIPPED = Path(__file__).resolve().parents[3] / "specs" / "late.rollout.yaml"


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The shipped rollout, scaled to 5, at 40 requests a second."""
    found: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    found["spec"]["replicas"] = 5
    found["status"] = {"requestsPerSecond": 40.0}

    class Kubectl:
        def find(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
            return found if name == "late" else None

    monkeypatch.setattr("flightdeck.cli.kubectl._kubectl", lambda context: Kubectl())
    return found


def test_the_rate_and_the_replicas_are_the_clusters(there):
    code, said = run("lint", "late")
    assert code == 0, said
    assert "5 replicas, 40 requests per second as the operator measured it" in said
    assert "At 40 requests per second" in said


def test_at_a_rate_too_low_it_ends_with_1_and_a_plan_that_passes(there):
    there["status"]["requestsPerSecond"] = 5.0
    code, said = run("lint", "late")
    assert code == 1 and "error spec.plan[0].shadow.deadline" in said and "This passes" in said


def test_a_file_is_linted_with_the_replicas_and_the_rate_of_what_runs(there):
    code, said = run("lint", "-f", str(SHIPPED))
    assert code == 0 and "5 replicas, 40 requests per second" in said
    code, said = run("lint", "-f", str(SHIPPED), "--rate", "5", "--json")
    assert code == 1 and json.loads(said)["proposal"]


def test_without_a_rate_it_says_who_would_know(there):
    del there["status"]["requestsPerSecond"]
    code, said = run("lint", "late")
    assert code == 1 and "measured no request rate yet; give one with --rate" in said
    assert run("lint", "late", "--rate", "100")[0] == 0


@pytest.mark.parametrize("args", [(), ("early",)])
def test_what_is_not_there_is_told(there, args):
    code, said = run("lint", *args)
    assert code == 1 and ("name a ModelRollout" in said or "no ModelRollout early" in said)
