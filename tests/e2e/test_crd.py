"""The API server refuses of a ModelRollout what the typed object refuses; all by server-side dry run."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import SERVING
from services.rollout_operator.crd import GROUP, PLURAL, VERSION
from tests.unit.crd.objects import ABSENT, CHANGES, GOOD, Object, accepted, changed, objects

PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{SERVING}/{PLURAL}"
Taken = Callable[[Object], str]


@pytest.fixture(scope="module")
def refusal(kubectl: Kubectl) -> Iterator[Taken]:
    """Why the API server would not make an object; empty when it would."""
    proxy = subprocess.Popen(
        ("kubectl", "--context", kubectl.context, "proxy", "--port=0"), stdout=subprocess.PIPE, text=True
    )
    try:
        assert proxy.stdout
        address = proxy.stdout.readline().split()[-1]
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        with httpx.Client(base_url=f"http://{address}", params=query, timeout=30) as client:

            def ask(case: Object) -> str:
                answer = client.post(PATH, json={**case, "metadata": {**case["metadata"], "namespace": SERVING}})
                return "" if answer.status_code in {201, 409} else str(answer.json()["message"])  # 409: it is there

            yield ask
    finally:
        proxy.terminate()
        proxy.communicate(timeout=10)


def test_the_example_is_taken(refusal: Taken):
    assert refusal(GOOD) == ""


def test_a_rollout_of_git_has_no_release_and_is_taken(refusal: Taken):
    assert refusal(changed("spec.release", ABSENT)) == ""


def test_each_single_change_is_judged_as_by_the_types(refusal: Taken):
    differ = {}
    for path, value in CHANGES:
        case = changed(path, value)
        told = refusal(case)
        if (told == "") != accepted(case):
            differ[f"{path} = {'absent' if value is ABSENT else value}"] = told or "taken"
    assert not differ


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
@given(objects())
def test_changes_at_once_are_judged_as_by_the_types(refusal: Taken, case: Object):
    told = refusal(case)
    assert (told == "") == accepted(case), told or "taken"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("spec.plan.2.canary.weight", 10, "weights must rise from step to step"),
        ("spec.plan.1", {}, "a step is either `shadow` or `canary`"),
        ("spec.plan.1.canary.deadline", "0s", "must be above 0s and at most 168h"),
        ("spec.judge.margins", {}, "margins names no metric"),
        ("spec.judge.marginz", {}, "unknown field"),
    ],
)
def test_a_refusal_says_what_is_wrong(refusal: Taken, path: str, value: object, words: str):
    assert words in refusal(changed(path, value))
