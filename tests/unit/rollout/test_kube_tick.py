"""The operator's tick against an API server of our own: the lab's decisions, the cluster's documents."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from flightdeck.contracts.artefact import FileDigest, ModelManifest, ServedFeature, manifest_bytes
from flightdeck.contracts.model_spec import Task
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.release import ModelRef, Release
from services.rollout_operator.kube import orders, replicas
from services.rollout_operator.kube.api import Conflict
from services.rollout_operator.kube.operator import rollout_of
from services.rollout_operator.kube.store import KubeStore
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.state import Phase
from services.rollout_operator.tick import Rollout
from services.rollout_operator.workloads import owner_reference, workload_name

CODE = f"r/predictor@sha256:{'c' * 64}"
SPEC = """
replicas: 2
readyDeadline: 60s
plan:
  - shadow: {minPairs: 100, deadline: 10m}
  - canary: {weight: 10, minRequests: 20, deadline: 10m}
  - canary: {weight: 50, minRequests: 20, deadline: 10m}
judge: {warmup: 0, margins: {errorRate: 0.05, scoreDelta: 0.2}}
onDeadline: abort
onNoData: abort
onNewRelease: queueNewest
"""
TEMPLATE = {
    "kind": "PodTemplate", "metadata": {"name": "predictor"},
    "template": {"spec": {"containers": [{"name": "predictor", "image": CODE}]}},
}  # fmt: skip
PER_TICK = 200
MANIFEST = manifest_bytes(
    ModelManifest(
        model="late", task=Task.CLASSIFICATION, horizon_min=120, unit="p", feature_project="p", views={},
        feature_service="late_v1", decision_threshold=0.5, fallback_score=0.2,
        features=[ServedFeature(
            name="hour", source="on_demand", view="c", join_keys=[], feast_type="FLOAT", default=0.0
        )],
        files=[FileDigest(path="model.onnx", size_bytes=1, sha256="0" * 64)],
    )
).decode()  # fmt: skip


class Killed(BaseException):
    """SIGKILL, as far as a test can."""


class Cluster:
    """API server, kubelet, Gateway, Valkey and users. A write counts as an effect, before which one may be killed."""

    namespace = "n"

    def __init__(self, scores: Callable[[int], float] = lambda _: 0.2) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.scores, self.now_s, self.requests = scores, 1000.0, 0
        self.effects, self.kill_at, self.version = 0, 0, 0
        self.log: list[PredictionRecord] = []
        self.values: dict[str, bytes] = {}
        self.counted: dict[tuple[str, str, str], int] = {}  # kind, cluster, address
        self.weights: list[int] = []
        self.failing = self.unready = ""
        self.put(TEMPLATE)
        self.put({"kind": "HTTPRoute", "metadata": {"name": "late"}, "spec": {}})
        self.put({
            "apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout",
            "metadata": {"name": "late", "uid": "0123456789", "namespace": "n"}, "spec": yaml.safe_load(SPEC),
        })  # fmt: skip

    # The API server

    def put(self, document: Any) -> dict[str, Any]:
        key = document["kind"], document["metadata"]["name"]
        new, before = copy.deepcopy(dict(document)), self.objects.get(key, {})
        meta = new["metadata"]
        self.version += 1
        meta["resourceVersion"] = str(self.version)
        old = before.get("metadata", {}).get("generation", 0)
        meta["generation"] = old + (new.get("spec") != before.get("spec"))
        self.objects[key] = new
        return copy.deepcopy(new)

    def read(self, kind: str, name: str) -> dict[str, Any] | None:
        return copy.deepcopy(self.objects.get((kind, name)))

    def list(self, kind: str, selector: str, *, namespace: str = "") -> list[dict[str, Any]]:
        if namespace:
            return [{"metadata": {"name": "proxy"}, "status": {"phase": "Running", "podIP": "10.9.9.9"}}]
        assert selector == f"{replicas.MODEL}=late"
        return [copy.deepcopy(it) for (of, _), it in self.objects.items() if of == kind]

    def apply(self, document: Any) -> dict[str, Any]:
        self.effect()
        before = self.objects.get((document["kind"], document["metadata"]["name"]), {})
        return self.put({**before, **document, "metadata": {**before.get("metadata", {}), **document["metadata"]}})

    def patch(self, kind: str, name: str, body: Any) -> dict[str, Any]:
        self.effect()
        found = copy.deepcopy(self.objects[kind, name])
        if isinstance(body, list):
            if found["metadata"].get("annotations", {}).get(orders.ANNOTATION) != body[0]["value"]:
                raise Conflict("test")
            del found["metadata"]["annotations"][orders.ANNOTATION]
        for part, values in body.items() if isinstance(body, dict) else ():
            found[part] |= values
        return self.put(found)

    def replace_status(self, document: Any) -> dict[str, Any]:
        self.effect()
        found = self.objects["ModelRollout", "late"]
        if found["metadata"]["resourceVersion"] != document["metadata"]["resourceVersion"]:
            raise Conflict("changed meanwhile")
        return self.put({**found, "status": document["status"]})

    def create(self, document: Any) -> dict[str, Any]:
        return self.put(document)

    def delete(self, kind: str, name: str) -> None:
        self.effect()
        if kind == "Deployment":
            assert name not in self.routed(), f"{name} was retired while users were sent there"
        self.objects.pop((kind, name), None)

    def effect(self) -> None:
        self.effects += 1
        if self.effects == self.kill_at:
            raise Killed

    # Valkey

    def set(self, key: str, value: bytes, ex: int) -> None:
        self.effect()
        self.values[key] = value

    def get(self, key: str) -> bytes | None:
        return self.values.get(key)

    # What a test wants

    def release(self, version: str) -> Release:
        ref = ModelRef(
            name="late", version=version, sha256=hashlib.sha256(MANIFEST.encode()).hexdigest(),
            image=f"r/models/late@sha256:{'d' * 64}",
        )  # fmt: skip
        return Release.model_validate({"image": CODE, "model": ref, "featureService": "late_v1"})

    def want(self, version: str) -> None:
        found = copy.deepcopy(self.rollout)
        found["spec"]["release"] = self.release(version).model_dump(mode="json", by_alias=True)
        self.put(found)

    def annotate(self, text: str) -> None:
        found = copy.deepcopy(self.rollout)
        found["metadata"].setdefault("annotations", {})[orders.ANNOTATION] = text
        self.put(found)

    @property
    def rollout(self) -> dict[str, Any]:
        return self.objects["ModelRollout", "late"]

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.rollout.get("status", {})
        return found

    def routed(self) -> dict[str, int]:
        rules = self.objects["HTTPRoute", "late"]["spec"].get("rules") or [{"backendRefs": []}]
        return {it["name"]: it["weight"] for it in rules[0]["backendRefs"]}

    def start(self) -> Rollout:
        """A new operator, which knows only what is kept."""
        return rollout_of("late", self, self, Records(self), self.fetch)

    # What happens outside

    def fetch(self, url: str) -> str:
        if url.endswith("/v1/manifest"):
            return MANIFEST
        labels = 'envoy_cluster_name="{}",envoy_endpoint_address="{}:3000"'
        return "\n".join(
            f"envoy_cluster_endpoint_rq_{kind}{{{labels.format(cluster, place)}}} {count}"
            for (kind, cluster, place), count in self.counted.items()
        )

    @staticmethod
    def address(name: str) -> str:
        return f"10.0.0.{int(name[-8:][:2], 16)}"

    def pass_time(self) -> None:
        """Deployments get their pods, the Gateway takes the route, the users send their requests."""
        self.now_s += 1.0
        for kind in ("Pod", "EndpointSlice"):
            for key in [key for key in self.objects if key[0] == kind]:
                del self.objects[key]
        for (kind, name), it in list(self.objects.items()):
            if kind == "Deployment":
                labels = it["metadata"]["labels"]
                ready = labels[replicas.RELEASE] != self.unready
                for n in range(it["spec"]["replicas"]):
                    self.put({"kind": "Pod", "metadata": {"name": f"{name}-{n}", "labels": labels}, "status": {}})
                    self.put({
                        "kind": "EndpointSlice", "metadata": {"name": f"{name}-{n}", "labels": labels},
                        "endpoints": [{
                            "addresses": [self.address(name) + ("" if n == 0 else str(n))],
                            "conditions": {"ready": ready},
                        }],
                    })  # fmt: skip
        route = self.objects["HTTPRoute", "late"]
        accepted = {"type": "Accepted", "status": "True", "observedGeneration": route["metadata"]["generation"]}
        route["status"] = {"parents": [{"conditions": [accepted]}]}
        weights = self.routed()
        self.weights.append(min(weights.values(), default=0) if len(weights) > 1 else 0)
        first = self.requests
        champion = self.status.get("champion")
        champion_name = workload_name(Release.model_validate(champion)) if champion else ""
        for name, weight in weights.items():
            assert ("Deployment", name) in self.objects, f"users were sent to {name}, which does not run"
            count = PER_TICK * weight // 100
            self.answer(name, first, count, "httproute/n/late/rule/0", champion=name == champion_name)
            first += count
        for filter in (route["spec"].get("rules") or [{}])[0].get("filters", []):
            assert len(weights) == 1
            copied = filter["requestMirror"]["backendRef"]["name"]
            self.answer(copied, self.requests, PER_TICK, "httproute/n/late/rule/0-mirror-0", champion=False)
        self.requests = first

    def answer(self, name: str, first: int, count: int, cluster: str, *, champion: bool) -> None:
        release_id = name.rpartition("-")[2]
        failed = count if release_id == self.failing else 0
        for kind, more in (("success", count - failed), ("error", failed)):
            key = kind, cluster, self.address(name)
            self.counted[key] = self.counted.get(key, 0) + more
        for number in range(first, first + count):
            self.log.append(
                PredictionRecord(
                    request_id=f"r{number}", row=0, entity_id=f"e{number}", asked_at_us=0, model="late", version="1",
                    sha256="", feature_service="late_v1", features=[1.0], feature_hash="",
                    score=0.2 if champion else self.scores(number), decision="negative", degraded=[], ages_s={},
                    latency_us=1000, replica=f"{name}-0", release=release_id,
                )
            )  # fmt: skip


class Records:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.cursors: dict[str, str] = {}

    def skip_to_now(self) -> None:
        self.cursors["log"] = str(len(self.cluster.log))

    def predictions(self) -> list[PredictionRecord]:
        first = int(self.cursors.get("log", "0"))
        self.cursors["log"] = str(len(self.cluster.log))
        return self.cluster.log[first:]

    def outcomes(self, task: Task) -> dict[str, float]:
        return {}


def drive(cluster: Cluster, until: Callable[[], bool], ticks: int = 90) -> list[str]:
    """Tick until then; after a kill or a conflict a new operator goes on, as the real loop does. Phases seen."""
    made: Rollout | None = None
    phases: list[str] = []
    for _ in range(ticks):
        try:
            made = made or cluster.start()
            made.tick(cluster.now_s)
        except (Killed, Unavailable):
            made = None
        cluster.pass_time()
        phase = cluster.status.get("phase", "")
        if phase and phases[-1:] != [phase]:
            phases.append(phase)
        if until():
            return phases
    raise AssertionError(f"never came; phases {phases}: {cluster.status.get('reason')}")


def champion_is(cluster: Cluster, version: str) -> Callable[[], bool]:
    """It serves alone: the phase is done and every other Deployment is gone."""
    return lambda: (
        cluster.status.get("phase") == "done"
        and cluster.status["championVersion"] == f"v{version}"
        and cluster.routed() == {workload_name(cluster.release(version)): 100}
        and [name for kind, name in cluster.objects if kind == "Deployment"] == list(cluster.routed())
    )


def ended(cluster: Cluster) -> Callable[[], bool]:
    return lambda: cluster.status.get("phase") in ("done", "aborted")


@pytest.fixture
def cluster() -> Cluster:
    return served(Cluster())


def served(cluster: Cluster) -> Cluster:
    """The first release is champion."""
    cluster.want("1")
    assert drive(cluster, champion_is(cluster, "1")) == ["pending", "promoting", "done"]
    return cluster


FULL_WAY = ["pending", "shadow", "canary", "promoting", "done"]


def test_a_good_candidate_goes_the_whole_way_and_the_champion_retires(cluster):
    cluster.want("2")
    assert drive(cluster, champion_is(cluster, "2"))[-5:] == FULL_WAY
    rising = [now for now, before in zip(cluster.weights[1:], cluster.weights, strict=False) if now != before]
    assert rising[:2] == [10, 50]
    told = [it for (kind, _), it in cluster.objects.items() if kind == "Event"]
    assert len(told) == len(cluster.status["history"])
    complete = next(it for it in cluster.status["conditions"] if it["type"] == "Complete")
    assert complete["status"] == "True" and "v2" in complete["message"]


def test_a_candidate_that_scores_otherwise_goes_from_the_shadow_and_no_user_saw_it():
    cluster = served(Cluster(scores=lambda _: 0.9))
    cluster.weights.clear()
    cluster.want("2")
    assert drive(cluster, lambda: cluster.status["phase"] == "aborted")[-4:] == [
        "pending", "shadow", "aborting", "aborted",
    ]  # fmt: skip
    assert set(cluster.weights) == {0} and "scoreDelta" in cluster.status["reason"]
    assert ("Deployment", workload_name(cluster.release("2"))) not in cluster.objects
    assert ("Deployment", workload_name(cluster.release("1"))) in cluster.objects


def test_errors_under_weight_abort():
    cluster = served(Cluster())
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary")
    cluster.failing = cluster.release("2").id
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    assert "errorRate" in cluster.status["reason"]
    assert cluster.routed() == {workload_name(cluster.release("1")): 100}


def test_killed_before_any_of_its_writes_it_ends_as_if_it_had_not_been():
    whole = served(Cluster())
    whole.effects = 0
    whole.want("2")
    drive(whole, champion_is(whole, "2"))
    for kill_at in range(1, whole.effects + 1):
        cluster = served(Cluster())
        cluster.effects, cluster.kill_at = 0, kill_at
        cluster.want("2")
        phases = drive(cluster, champion_is(cluster, "2"))
        assert phases[-5:] == FULL_WAY, (kill_at, phases)
        serials = [it["serial"] for it in cluster.status["history"]]
        assert serials == sorted(set(serials)), f"killed before write {kill_at}: history {serials}"


def test_a_hand_edit_of_the_route_is_put_back_at_the_next_tick(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary" and len(cluster.routed()) == 2)
    edited = copy.deepcopy(cluster.objects["HTTPRoute", "late"])
    for backend in edited["spec"]["rules"][0]["backendRefs"]:
        backend["weight"] = 70
    cluster.put(edited)
    cluster.pass_time()
    cluster.start().tick(cluster.now_s)
    assert sorted(cluster.routed().values()) in ([10, 90], [50, 50]), "a weight of the plan"


def test_weight_is_taken_away_when_no_replica_is_ready(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary" and len(cluster.routed()) == 2)
    cluster.unready = cluster.release("2").id
    cluster.pass_time()
    cluster.start().tick(cluster.now_s)
    assert cluster.routed() == {workload_name(cluster.release("1")): 100}


def test_an_order_is_obeyed_once_however_often_the_operator_dies(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary")
    cluster.annotate("abort looks odd")
    cluster.kill_at = cluster.effects + 3  # after the decision was kept, before the annotation went
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    drive(cluster, lambda: "order" not in cluster.status)
    assert orders.ANNOTATION not in cluster.rollout["metadata"]["annotations"]
    assert len([it for it in cluster.status["history"] if it["target"] == "aborting"]) == 1
    cluster.annotate("abort looks odd")
    drive(cluster, lambda: orders.ANNOTATION not in cluster.rollout["metadata"]["annotations"])
    assert "no effect" in cluster.status["history"][-1]["reason"], "the same words again are a new order"


def test_a_decision_on_a_spec_that_changed_meanwhile_is_not_kept(cluster):
    made = cluster.start()
    original = cluster.replace_status

    def changed_meanwhile(document: Any) -> dict[str, Any]:
        cluster.annotate("pause")
        return original(document)

    cluster.replace_status = changed_meanwhile  # type: ignore[method-assign]
    cluster.want("2")
    before = copy.deepcopy(cluster.status)
    with pytest.raises(Conflict):
        made.tick(cluster.now_s)
    assert cluster.status == before
    assert ("Deployment", workload_name(cluster.release("2"))) not in cluster.objects


def test_a_champion_of_a_deploy_is_taken_over_as_it_stands():
    cluster = served(Cluster())
    kept = {key: cluster.status[key] for key in ("champion", "phase", "reason")}
    cluster.put({**cluster.rollout, "status": kept})
    cluster.effects = 0
    made = cluster.start()
    made.tick(cluster.now_s)
    assert cluster.status["state"]["phase"] == "done" and cluster.effects == 1, "nothing but the status is written"


def test_git_without_a_release_changes_nothing(cluster):
    found = copy.deepcopy(cluster.rollout)
    del found["spec"]["release"]
    cluster.put(found)
    made = cluster.start()
    made.tick(cluster.now_s)
    assert made.status.state and made.status.state.phase is Phase.DONE
    assert champion_is(cluster, "1")()


def test_a_release_of_another_model_is_refused_and_what_serves_goes_on(cluster):
    cluster.want("2")
    cluster.rollout["spec"]["release"]["model"]["name"] = "early"
    cluster.start().tick(cluster.now_s)
    plan_accepted = next(it for it in cluster.status["conditions"] if it["type"] == "PlanAccepted")
    assert plan_accepted["status"] == "False" and "early" in plan_accepted["message"]
    assert cluster.status["phase"] == "done"


def test_a_candidate_without_a_ready_replica_goes_at_the_deadline_and_the_reason_is_told(cluster):
    cluster.unready = cluster.release("2").id
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    assert "only 0 of 2 replicas ready" in cluster.status["reason"]


def test_while_the_rollout_is_deleted_the_champion_is_left_to_itself(cluster):
    cluster.want("2")
    drive(cluster, lambda: cluster.status["phase"] == "canary" and len(cluster.routed()) == 2)
    made = cluster.start()
    store = made.store
    assert isinstance(store, KubeStore)
    made.platform.leave(cluster.release("1"), 2)  # type: ignore[attr-defined]
    assert cluster.routed() == {workload_name(cluster.release("1")): 100}
    champion = cluster.objects["Deployment", workload_name(cluster.release("1"))]
    candidate = cluster.objects["Deployment", workload_name(cluster.release("2"))]
    assert champion["metadata"]["ownerReferences"] == []
    assert candidate["metadata"]["ownerReferences"] == [owner_reference(cluster.rollout)]
