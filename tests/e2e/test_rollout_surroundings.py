"""What happens around a rollout of a good candidate does it no harm, and what is not known is told as such."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from benchmarks.open_load import Load
from flightdeck.cluster import overlays
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import PLATFORM, SERVING
from flightdeck.cluster.target import How, Target
from flightdeck.contracts.layout import StateLayout
from services.rollout_operator.workloads import workload_name
from tests.e2e.conftest import Figures, clock_now, first_failure, predictor_pods, until_ready
from tests.e2e.rollouts import BRISK, KIND, RATE_PER_S, Drill, Outcome, caught, kill_operator, sent, until_at_rest

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]
AWAY_S = 30.0
BACK_S = 2.0  # until a hand edit of the route is put back, and a little for looking
LONG_S, ROUND_S = 400.0, 450.0
SAME_AGAIN = int(os.environ.get("FLIGHTDECK_SAME_AGAIN", "2"))  # A/A rollouts


def good(found: Outcome, drill: Drill, words: str = "") -> None:
    """It became champion, and no user noticed what happened."""
    drill.note(found, words)
    assert found.phase == "done", found.reason
    assert not found.failed, first_failure(found.answers)


def test_the_operator_is_killed_in_every_phase(drill: Drill, users: Load, kubectl: Kubectl):
    drill.brisk()
    drill.ask(drill.candidate())
    killed = []
    for phase, weight in (("pending", None), ("shadow", None), ("canary", 25), ("canary", 50), ("promoting", None)):
        seen = drill.in_phase(phase, 240, weight)
        kill_operator(kubectl)
        after = drill.watch.until(lambda it, at=seen.at: it.at > at + 1, 30, "seen again")  # type: ignore[misc]
        killed.append(phase if after.phase in (phase, "aborting") else f"{phase} (it went on to {after.phase})")
        until_ready(kubectl, only=lambda name: "operator" in name)
    found = drill.end(users, "operator killed in each phase", LONG_S)
    good(found, drill, f"killed in {', '.join(killed)}")
    serials = [it["serial"] for it in found.status["history"]]
    assert serials == sorted(set(serials)), f"the history has an entry twice: {serials}"


def test_the_operator_is_killed_while_it_sends_a_candidate_home(drill: Drill, users: Load, kubectl: Kubectl):
    drill.ask(drill.candidate("slow-2s"))
    drill.in_phase("aborting", 240)
    kill_operator(kubectl)
    found = drill.end(users, "operator killed while it aborts slow-2s", LONG_S)
    drill.note(found)
    caught(found, "slow-2s")
    assert not found.failed, first_failure(found.answers)


@contextlib.contextmanager
def frozen(kubectl: Kubectl, process: str) -> Iterator[None]:
    """A process of the kind node stands still (SIGSTOP): connections stay open and nothing answers."""
    node = kubectl.get("nodes")["items"][0]["metadata"]["name"]
    pid = subprocess.run(
        ("docker", "exec", node, "pidof", process), capture_output=True, text=True, check=True, timeout=30
    ).stdout.strip()
    assert pid.isdigit(), f"{process} on {node}: one process expected, found {pid!r}"
    subprocess.run(("docker", "exec", node, "kill", "-STOP", pid), check=True, timeout=30)
    try:
        yield
    finally:
        subprocess.run(("docker", "exec", node, "kill", "-CONT", pid), check=True, timeout=30)


def test_the_api_server_does_not_answer_for_half_a_minute(drill: Drill, users: Load, kubectl: Kubectl):
    if not kubectl.context.startswith("kind-"):
        pytest.skip("NOT RUN: the API server can be stopped on kind only")
    drill.brisk()
    drill.ask(drill.candidate())
    drill.in_phase("canary", 240, weight=25)
    with frozen(kubectl, "kube-apiserver"):
        time.sleep(AWAY_S)
    deadline = time.monotonic() + 60
    while not kubectl.answers():
        assert time.monotonic() < deadline, "the API server does not answer again"
    good(drill.end(users, "API server away for 30 s in the canary", LONG_S), drill)
    until_ready(kubectl)


@contextlib.contextmanager
def away(kubectl: Kubectl, name: str) -> Iterator[None]:
    """A StatefulSet of the platform without a pod."""
    kubectl("scale", "statefulset", name, "-n", PLATFORM, "--replicas=0")
    try:
        kubectl("wait", "pod", "-n", PLATFORM, "-l", f"app.kubernetes.io/name={name}", "--for=delete", "--timeout=90s")
        yield
    finally:
        kubectl("scale", "statefulset", name, "-n", PLATFORM, "--replicas=1")
        until_ready(kubectl)


def test_prometheus_is_down_and_a_fault_is_found_all_the_same(drill: Drill, users: Load, kubectl: Kubectl):
    with away(kubectl, "prometheus"):
        drill.ask(drill.candidate("slow-2s"))
        found = drill.end(users, "Prometheus down, slow-2s", LONG_S)
    drill.note(found)
    caught(found, "slow-2s")
    assert not found.failed, first_failure(found.answers)


def test_valkey_is_down_for_half_a_minute(drill: Drill, users: Load, kubectl: Kubectl):
    drill.brisk()
    drill.ask(drill.candidate())
    drill.in_phase("canary", 240, weight=25)
    with away(kubectl, "valkey-streams"):
        time.sleep(AWAY_S)
    good(drill.end(users, "valkey-streams down for 30 s in the canary", LONG_S), drill)


def test_without_any_traffic_the_deadline_decides(drill: Drill, url: str):
    drill.plan(plan=[{"shadow": {"minPairs": 500, "deadline": "60s"}}, *BRISK[1:]])
    nobody = Load(1, b"", rate_per_s=1)  # never started
    drill.ask(drill.candidate())
    found = drill.end(nobody, "no traffic at all", LONG_S)
    drill.note(found)
    assert found.phase == "aborted"
    assert "no data" in found.reason and "onNoData: abort" in found.reason, found.reason


def test_traffic_that_starts_late_is_waited_for(drill: Drill, url: str, bodies: list[bytes]):
    drill.ask(drill.candidate())
    drill.in_phase("shadow", 120)
    time.sleep(40)
    with Load(int(url.rpartition(":")[2]), bodies, rate_per_s=RATE_PER_S, workers=32, longest_s=900) as late:
        good(drill.end(late, "traffic that starts 40 s late", LONG_S), drill)


def test_a_champion_pod_is_deleted_in_the_canary(drill: Drill, users: Load, kubectl: Kubectl, model: str):
    drill.brisk()
    drill.ask(drill.candidate())
    drill.in_phase("canary", 240, weight=25)
    mine = workload_name(drill.champion)
    victim = next(it for it in predictor_pods(kubectl, model) if it.startswith(mine))
    kubectl("delete", "pod", victim, "-n", SERVING, "--wait=false")
    good(drill.end(users, "a champion pod deleted in the canary", LONG_S), drill)


def test_a_route_that_was_edited_by_hand_is_put_back(
    drill: Drill, users: Load, kubectl: Kubectl, model: str, figures: Figures
):
    drill.brisk()
    drill.ask(drill.candidate())
    seen = drill.in_phase("canary", 240, weight=25)
    rules = kubectl.get("httproute", model, "-n", SERVING)["spec"]["rules"]
    for backend in rules[0]["backendRefs"]:
        backend["weight"] = 80 if backend["name"].endswith(seen.candidate) else 20
    patch = json.dumps({"spec": {"rules": rules}})
    kubectl("patch", "httproute", model, "-n", SERVING, "--type=merge", "-p", patch)
    edited = time.monotonic()
    back = drill.watch.until(lambda it: it.weight != 80, 30, "put back")
    figures.add("a hand edit of the HTTPRoute is put back", max(0.0, back.at - edited), BACK_S + 1)
    good(drill.end(users, "HTTPRoute edited by hand in the canary", LONG_S), drill, f"back to {back.weight} %")


def test_git_is_applied_again_in_the_canary(drill: Drill, users: Load, kubectl: Kubectl):
    drill.ask(drill.candidate())
    drill.in_phase("canary", 240, weight=10)
    overlay = Target(kubectl.context, How.EXISTING).overlay
    overlays.bring(kubectl, overlay, StateLayout.from_env().root, tell=print)
    found = drill.end(users, "Git applied again in the canary", LONG_S)
    good(found, drill)
    steps = [it for it in found.visited if it != "canary 0"]  # seen before the Gateway has moved the first weight
    assert steps == ["pending", "shadow", "canary 10", "canary 50", "promoting", "done"], found.visited


def test_the_rollout_is_deleted_in_the_canary_and_made_again(drill: Drill, users: Load, kubectl: Kubectl, model: str):
    drill.brisk()
    drill.ask(drill.candidate())
    seen = drill.in_phase("canary", 240, weight=25)
    began, kept = time.monotonic(), kubectl.get(KIND, model, "-n", SERVING)
    kubectl("delete", KIND, model, "-n", SERVING, "--timeout=90s")
    gone_s = time.monotonic() - began
    weight, copies = sent(kubectl.find("httproute", model, SERVING), workload_name(drill.champion))
    assert (weight, copies) == (100, False), "the champion does not have all users"
    time.sleep(3)
    after = users.since(began)
    again = {"apiVersion": kept["apiVersion"], "kind": kept["kind"], "metadata": {"name": model, "namespace": SERVING}}
    kubectl(
        "apply", "--server-side", "--field-manager=flightdeck", "-f", "-",
        stdin=json.dumps({**again, "spec": drill.spec}),
    )  # fmt: skip
    drill.ask(drill.champion)
    drill.watch.until(lambda it: it.phase == "done", 60, "taken over")
    until_at_rest(kubectl, model, drill.champion)
    failed = sum(it.status != 200 for it in after)
    drill.table.append(
        f"| the ModelRollout deleted in the canary | champion alone | {gone_s:.0f} s | {len(after):,} | {failed} |  | "
        f"was in {seen.phase} {seen.weight} %; made again, it adopted the champion |"
    )
    assert not failed, first_failure(after)


def test_of_two_changes_within_a_second_the_newer_one_wins(drill: Drill, users: Load):
    drill.brisk()
    first, second = drill.candidate("slow-2s"), drill.candidate()
    drill.ask(first)
    began = drill.began
    drill.ask(second)
    assert drill.began - began < 1, "the two were not asked for within a second"
    drill.watch.until(lambda it: it.candidate == second.id, LONG_S, "at the newer one")
    found = drill.end(users, "two releases asked for within a second", LONG_S)
    tried = any(it.candidate == first.id for it in drill.watch.samples if it.at >= began)
    good(found, drill, "the older one was tried first and sent home" if tried else "the older one was never tried")


def test_the_clock_of_the_data_is_moved_in_the_canary(drill: Drill, users: Load, kubectl: Kubectl):
    drill.brisk()
    before = clock_now(kubectl)
    drill.ask(drill.candidate())
    drill.in_phase("canary", 240, weight=25)
    set_clock = ("-n", PLATFORM, "exec", "deployment/dagster-code", "--", "flightdeck", "clock", "set")
    try:
        kubectl(*set_clock, f"{before.replace(hour=(before.hour + 3) % 24):%Y-%m-%dT%H:%MZ}")
        found = drill.end(users, "the data's clock moved by 3 h in the canary", LONG_S)
    finally:
        kubectl(*set_clock, f"{before:%Y-%m-%dT%H:%M:%SZ}")
    good(found, drill)


@pytest.mark.timeout(SAME_AGAIN * ROUND_S)
def test_the_same_release_under_another_digest_is_promoted_again_and_again(
    drill: Drill, url: str, bodies: list[bytes], figures: Figures
):
    drill.brisk()
    ends, port = [], int(url.rpartition(":")[2])
    for number in range(SAME_AGAIN):
        with Load(port, bodies, rate_per_s=RATE_PER_S, workers=32, longest_s=ROUND_S) as users:
            drill.ask(drill.candidate())
            found = drill.end(users, f"A/A {number + 1} of {SAME_AGAIN}", LONG_S)
        drill.note(found)
        ends.append(found.phase)
        assert not found.failed, first_failure(found.answers)
    figures.add(f"aborts of {SAME_AGAIN} A/A rollouts", ends.count("aborted"), SAME_AGAIN / 4, "aborts")


def test_a_change_of_the_feature_service_goes_through_the_plan_like_a_model(drill: Drill, users: Load):
    drill.brisk()
    other = "late_v1" if drill.champion.feature_service != "late_v1" else "late_v2"
    why = "the rollout tests try another feature service"  # the gate's approval is of the champion's own
    drill.ask(drill.champion.model_copy(update={"feature_service": other}), break_glass=why)
    found = drill.end(users, f"only the feature service changed, to {other}", LONG_S)
    drill.note(found)
    assert found.visited[:2] == ["pending", "shadow"], found.visited
    assert not found.failed, first_failure(found.answers)
