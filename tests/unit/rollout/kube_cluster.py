"""A cluster in memory for the operator's tests: API server, kubelet, Gateway, Valkey and users."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flightdeck.contracts import approval
from flightdeck.contracts.artefact import FileDigest, ModelManifest, ServedFeature, manifest_bytes
from flightdeck.contracts.model_spec import Task
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.release import Approval, ModelRef, Release
from services.rollout_operator.gate import Trust
from services.rollout_operator.kube import gatekeeper, orders, replicas
from services.rollout_operator.kube.api import Conflict
from services.rollout_operator.kube.operator import rollout_of
from services.rollout_operator.tick import Rollout
from services.rollout_operator.workloads import workload_name

GATE = Ed25519PrivateKey.from_private_bytes(b"g" * 32)  # the gate job's key
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


def key_of(private: Ed25519PrivateKey) -> str:
    return private.public_key().public_bytes_raw().hex()


def approved(release: Release, key: Ed25519PrivateKey = GATE, said: bytes | None = None) -> Release:
    """With the gate's word on its version, or with whatever else was signed."""
    model, card = release.model, "c" * 64
    right = approval.statement(model.name, model.version, model.sha256, release.feature_service, card)
    word = Approval.model_validate({"cardSha256": card, "signature": key.sign(right if said is None else said).hex()})
    return release.model_copy(update={"model": model.model_copy(update={"approval": word})})


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
        self.lists: dict[str, list[bytes]] = {}
        self.counted: dict[tuple[str, str, str], int] = {}  # kind, cluster, address
        self.answered: dict[str, int] = {}  # address -> requests, by the replica's own counter
        self.past_gateway = 0  # requests a tick straight to the champion's replica, which the log has and no proxy
        self.weights: list[int] = []
        self.failing = self.unready = ""
        self.trust = Trust((key_of(GATE),))
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
        found = self.objects["ModelRollout", document["metadata"]["name"]]
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

    def pipeline(self, *, transaction: bool) -> Pipeline:
        return Pipeline(self)

    def lrange(self, key: str, first: int, last: int) -> list[bytes]:
        assert (first, last) == (0, -1)
        return self.lists.get(key, [])

    # What a test wants

    def release(self, version: str) -> Release:
        ref = ModelRef(
            name="late", version=version, sha256=hashlib.sha256(MANIFEST.encode()).hexdigest(),
            image=f"r/models/late@sha256:{'d' * 64}",
        )  # fmt: skip
        return approved(Release.model_validate({"image": CODE, "model": ref, "featureService": "late_v1"}))

    def want(self, version: str) -> None:
        self.ask(self.release(version))

    def ask(self, release: Release) -> None:
        found = copy.deepcopy(self.rollout)
        found["spec"]["release"] = release.model_dump(mode="json", by_alias=True, exclude_none=True)
        self.put(found)

    def annotate(self, text: str) -> None:
        self.annotated(orders.ANNOTATION, text)

    def break_glass(self, text: str) -> None:
        self.annotated(gatekeeper.ANNOTATION, text)

    def annotated(self, key: str, text: str) -> None:
        found = copy.deepcopy(self.rollout)
        found["metadata"].setdefault("annotations", {})[key] = text
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

    def start(self, name: str = "late") -> Rollout:
        """A new operator, which knows only what is kept."""
        return rollout_of(name, self, self, Records(self), self.fetch, trust=lambda: self.trust)

    # What happens outside

    def fetch(self, url: str) -> str:
        if url.endswith("/v1/manifest"):
            return MANIFEST
        if url.endswith("/metrics"):
            count = self.answered.get(url.removeprefix("http://").partition(":3000")[0], 0)
            return (
                "process_start_time_seconds 1.7e+09\npredictor_model_info{} 1.0\n"
                f'predictor_requests_total{{route="/v1/predict",code="2xx",model_version="1"}} {count}.0\n'
                'predictor_requests_total{route="/readyz",code="2xx",model_version="1"} 7.0\n'
            )
        labels = 'envoy_cluster_name="{}",envoy_endpoint_address="{}:3000"'
        return "\n".join(
            f"envoy_cluster_endpoint_rq_{kind}{{{labels.format(cluster, place)}}} {count}"
            for (kind, cluster, place), count in self.counted.items()
        )

    @staticmethod
    def address(name: str) -> str:
        return "10." + ".".join(str(byte) for byte in bytes.fromhex(name[-8:])[:3])

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
                    told = {"phase": "Running", "podIP": self.address(name) + ("" if n == 0 else str(n))}
                    self.put({"kind": "Pod", "metadata": {"name": f"{name}-{n}", "labels": labels}, "status": told})
                    service = {"kubernetes.io/service-name": name} if ("Service", name) in self.objects else {}
                    self.put({
                        "kind": "EndpointSlice", "metadata": {"name": f"{name}-{n}", "labels": labels | service},
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
            for kind in ("Deployment", "Service"):
                assert (kind, name) in self.objects, f"users were sent to {name}, which has no {kind}"
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
        straight = self.past_gateway if champion else 0
        self.answered[self.address(name)] = self.answered.get(self.address(name), 0) + count + straight
        failed = count if release_id == self.failing else 0
        for kind, more in (("success", count - failed), ("error", failed)):
            key = kind, cluster, self.address(name)
            self.counted[key] = self.counted.get(key, 0) + more
        for number in [*range(first, first + count), *range(-straight - 1_000_000, -1_000_000)]:
            self.log.append(
                PredictionRecord(
                    request_id=f"r{number}", row=0, entity_id=f"e{number}", asked_at_us=first, model="late",
                    version="1", sha256="", feature_service="late_v1", features=[1.0], feature_hash="",
                    score=0.2 if champion else self.scores(number), decision="negative", degraded=[], ages_s={},
                    latency_us=1000, replica=f"{name}-0", release=release_id,
                )
            )  # fmt: skip


class Pipeline:
    """Valkey's, for one list: nothing happens before `execute`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.todo: list[tuple[str, bytes, int]] = []

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.todo.clear()

    def rpush(self, key: str, value: bytes) -> None:
        self.todo.append((key, value, 0))

    def ltrim(self, key: str, first: int, last: int) -> None:
        assert last == -1
        self.todo.append((key, b"", first))

    def expire(self, key: str, seconds: int) -> None:
        assert seconds > 0

    def execute(self) -> None:
        self.cluster.effect()
        for key, value, first in self.todo:
            if value:
                self.cluster.lists.setdefault(key, []).append(value)
            else:
                self.cluster.lists[key] = self.cluster.lists[key][first:]


class Logged(Protocol):
    """A world that has a prediction log."""

    log: list[PredictionRecord]


class Records:
    """The streams: a position per reader, as in the real adapter."""

    def __init__(self, world: Logged) -> None:
        self.world = world
        self.cursors: dict[str, str] = {}

    def skip_to_now(self) -> None:
        self.cursors["log"] = str(len(self.world.log))

    def predictions(self) -> list[PredictionRecord]:
        first = int(self.cursors.get("log", "0"))
        self.cursors["log"] = str(len(self.world.log))
        return self.world.log[first:]

    def outcomes(self, task: Task) -> dict[str, float]:
        return {}
