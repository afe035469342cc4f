"""The kubectl plugin: what it reads out of a status, and the annotation that it writes."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from flightdeck.cli.kubectl import app
from flightdeck.contracts.release import ModelRef, Release
from services.rollout_operator.kube import orders, status
from services.rollout_operator.remembered import Status
from services.rollout_operator.state import Phase, State, Transition
from services.rollout_operator.verdict import Judgement, MetricVerdict, Verdict


def release(version: str) -> Release:
    model = ModelRef(name="late", version=version, sha256="a" * 64)
    return Release.model_validate({"image": "code", "model": model, "featureService": "late_v1"})


class Kubectl:
    """A cluster with one ModelRollout under a canary."""

    context = "kind-x"

    def __init__(self) -> None:
        metric = MetricVerdict("errorRate", Verdict.WATCHING, True, 0.02, 0.01, None, 0.03, 120, "0.01 so far")
        state = State(
            Phase.CANARY, 10.0, 5.0, champion=release("1"), candidate=release("2"), step=0, reason="canary begins",
            serial=1,
        )  # fmt: skip
        told = Status(
            "late", state, Judgement(Verdict.WATCHING, "needs more", (metric,)), weight=10, replicas=3,
            releases=[release("1"), release("0")],
        )  # fmt: skip
        entry = Transition(1, 10.0, Phase.SHADOW, Phase.CANARY, 0, "a", "b", "shadow passed", "controller")
        document = status.document(
            told, {}, release("2"), [entry], order="", generation=1, refusal="", now_s=20.0
        )  # fmt: skip
        self.rollout: dict[str, Any] = {
            "apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout",
            "metadata": {"name": "late", "namespace": "n"},
            "spec": {"release": release("2").model_dump(mode="json", by_alias=True)}, "status": document,
        }  # fmt: skip
        self.said: list[tuple[str, ...]] = []
        self.applied = ""

    def find(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        return self.rollout if name == "late" else None

    def get(self, *args: str) -> dict[str, Any]:
        return {"items": [self.rollout]}

    def __call__(self, *args: str, stdin: str = "") -> str:
        self.said.append(args)
        self.applied = stdin
        return ""


@pytest.fixture
def kubectl(monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    found = Kubectl()
    monkeypatch.setattr("flightdeck.cli.kubectl._kubectl", lambda context: found)
    return found


def run(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, list(args))
    return done.exit_code, done.output


def test_the_status_tells_the_story(kubectl):
    code, text = run("status", "late")
    assert code == 0
    for words in ("late v1", "late v2", "10 % of the users", "watching: needs more", "0.01 so far", "canary"):
        assert words in text, text


def test_the_history_tells_who_and_why(kubectl):
    code, text = run("history", "late")
    assert code == 0 and "shadow passed" in text and "controller" in text


def test_an_order_becomes_the_annotation_that_the_operator_reads(kubectl):
    code, _ = run("abort", "late", "--note", "looks odd")
    assert code == 0
    (said,) = kubectl.said
    key, _, written = said[-1].partition("=")
    order = orders.order_of({"metadata": {"annotations": {key: written}}})
    assert order and (str(order.kind), order.note) == ("abort", "looks odd") and "@" in order.who


def test_an_order_that_waits_is_not_written_over(kubectl):
    kubectl.rollout["metadata"]["annotations"] = {orders.ANNOTATION: "pause"}
    code, text = run("abort", "late")
    assert code == 1 and "pause" in text and not kubectl.said


def test_undo_wants_the_release_before(kubectl):
    code, text = run("undo", "late", "--to", release("0").id)
    assert code == 0 and release("0").short in text
    assert '"version": "0"' in kubectl.applied


def test_a_name_that_is_not_there_is_answered_with_those_that_are(kubectl):
    code, text = run("status", "early")
    assert code == 1 and "there are: late" in text
