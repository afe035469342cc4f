"""What people and an autoscaler ask of a running rollout, through the plugin and the API, as they would."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from benchmarks.open_load import Load
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import SERVING
from services.rollout_operator.workloads import workload_name
from tests.e2e.conftest import Figures, first_failure
from tests.e2e.rollouts import KIND, Drill

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]
LONG_S = 400.0
HOME_S = 10.0  # from the stop to no user at the candidate
MORE = 4  # replicas that the autoscaler wants


def plugin(*words: str) -> str:
    """`kubectl flightdeck ...`, as a person runs it."""
    done = subprocess.run(
        (sys.executable, "-m", "flightdeck.cli.kubectl", *words),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"
    return done.stdout


def test_an_emergency_stop_takes_users_back_and_go_on_begins_anew(
    drill: Drill, users: Load, kubectl: Kubectl, figures: Figures
):
    drill.brisk()
    drill.ask(drill.candidate())
    drill.in_phase("canary", 240, weight=25)
    asked = time.monotonic()
    plugin("stop", "the tests try the emergency stop")
    kept = time.monotonic()
    figures.add("kubectl flightdeck stop", kept - asked)
    try:
        stopped = drill.end(users, "emergency stop in the canary", LONG_S)
        drill.note(stopped)
        assert stopped.phase == "aborted"
        assert "the tests try the emergency stop" in stopped.reason, stopped.reason
        back = next(it.at for it in drill.watch.samples if it.at >= asked and not it.weight)
        figures.add("from the emergency stop kept to no user at the candidate", max(0.0, back - kept), HOME_S)
    finally:
        drill.began = time.monotonic()
        plugin("go-on")
    drill.watch.until(lambda it: it.phase == "pending", 30, "begun again")
    again = drill.end(users, "the same release after go-on", LONG_S)
    drill.note(again)
    assert again.phase == "done", again.reason
    assert not [*stopped.failed, *again.failed], first_failure(stopped.answers + again.answers)


def test_a_release_without_the_gates_word_starts_no_pod_until_the_glass_is_broken(
    drill: Drill, users: Load, kubectl: Kubectl
):
    drill.brisk()
    # Another version: what was champion already needs no approval again.
    version = f"{drill.champion.model.version}-unapproved"
    unsigned = drill.champion.model.model_copy(update={"approval": None, "version": version})
    release = drill.candidate().model_copy(update={"model": unsigned})
    drill.ask(release)
    kubectl("wait", KIND, drill.model, "-n", SERVING, "--for=condition=PlanAccepted=False", "--timeout=30s")
    condition = next(
        it
        for it in kubectl.get(KIND, drill.model, "-n", SERVING)["status"]["conditions"]
        if it["type"] == "PlanAccepted"
    )
    assert condition["reason"] == "Unapproved", condition
    time.sleep(3)
    assert kubectl.find("deployment", workload_name(release), SERVING) is None, "a release nobody approved has pods"
    drill.ask(release, break_glass="the tests try the way around the gate")
    found = drill.end(users, "without the gate's word, by break-glass", LONG_S)
    drill.note(found)
    assert found.phase == "done", found.reason
    events = kubectl.get("events", "-n", SERVING, "--field-selector", f"involvedObject.name={drill.model}")["items"]
    assert any("the tests try the way around the gate" in it.get("message", "") for it in events), "no Event tells it"
    told = json.dumps(found.status["history"])
    assert "the tests try the way around the gate" in told, "the history does not tell it"


def test_an_autoscaler_in_the_canary_grows_champion_and_candidate(drill: Drill, users: Load, kubectl: Kubectl):
    drill.brisk()
    scaler = {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": f"{drill.model}-test", "namespace": SERVING},
        "spec": {
            "scaleTargetRef": {"apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout", "name": drill.model},
            "minReplicas": MORE, "maxReplicas": MORE + 1,
            "metrics": [{
                "type": "Resource",
                "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}},
            }],
        },
    }  # fmt: skip
    drill.ask(drill.candidate())
    drill.in_phase("canary", 240, weight=25)
    kubectl("create", "-f", "-", stdin=json.dumps(scaler))
    try:
        grown = drill.watch.until(lambda it: it.ready == MORE, 120, f"{MORE} replicas of the candidate are ready")
        champion = kubectl.get("deployment", workload_name(drill.champion), "-n", SERVING)
        assert champion["spec"]["replicas"] == MORE, "the champion did not grow with it"
        found = drill.end(users, f"an autoscaler wants {MORE} replicas in the canary", LONG_S)
        drill.note(found, f"candidate had {grown.ready} in {grown.phase}")
        assert found.phase == "done", found.reason
        assert not found.failed, first_failure(found.answers)
    finally:
        kubectl("delete", "hpa", f"{drill.model}-test", "-n", SERVING, "--ignore-not-found")
        kubectl("scale", KIND, drill.model, "-n", SERVING, f"--replicas={drill.spec['replicas']}")
