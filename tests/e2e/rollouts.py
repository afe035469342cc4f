"""Rollouts of candidates that differ from the champion by their image alone, watched from outside while users ask."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.open_load import Answer, Load
from flightdeck.cluster.champion import TEMPLATE, apply, serving
from flightdeck.cluster.commands import CommandFailed, Kubectl, run
from flightdeck.cluster.names import CHECKOUT, SERVING
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import RolloutSpec, parse_rollout
from flightdeck.lab.faults import CATALOGUE
from services.rollout_operator import workloads
from services.rollout_operator.forecast import Traffic
from services.rollout_operator.kube import gatekeeper, replicas, routes
from services.rollout_operator.kube.api import Kubernetes
from services.rollout_operator.kube.orders import ANNOTATION
from services.rollout_operator.lint import Level, lint
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.workloads import workload_name

KIND = "modelrollouts.flightdeck.dev"
IMAGE = "localhost:5001/flightdeck/drill"  # the registry that `make up` gives to kind
DOCKERFILE = CHECKOUT / "tests" / "e2e" / "drill" / "Dockerfile"
OPERATOR = "app.kubernetes.io/name=rollout-operator"
LOOK_S = 0.25
ENDED, RUNNING = ("done", "aborted"), ("pending", "shadow", "canary", "promoting", "paused")
RATE_PER_S = 40.0  # of users in these tests
# Quicker than the shipped plan at that rate; each use of it asks the linter.
BRISK = [
    {"shadow": {"minPairs": 500, "deadline": "2m"}},
    {"canary": {"weight": 25, "minRequests": 100, "deadline": "2m"}},
    {"canary": {"weight": 50, "minRequests": 100, "deadline": "90s"}},
]
# In the operator's pod, which may read the prediction log: requests that a release answered since a moment (ms).
_ANSWERED = """
import json, os, sys
from flightdeck.contracts.prediction import PREDICTION_STREAM
from services.rollout_operator.records import connect
log = connect(os.environ["OPERATOR_STREAMS_REDIS_URL"])
log.cursors[PREDICTION_STREAM] = f"{sys.argv[1]}-0"
print(json.dumps([it.request_id for it in log.predictions() if it.release == sys.argv[2]]))
"""
_REQUEST = re.compile(r'"request_id":"([^"]+)"')


def build_image(kubectl: Kubectl, fault: str = "") -> str:
    """A new image of the predictor, by digest in the registry: with a fault, or the same under another digest."""
    code = workloads.code_image(kubectl.get("podtemplate", TEMPLATE, "-n", SERVING))
    nonce = uuid.uuid4().hex[:12]  # a release that was sent home is not tried again, so each is another
    tag, arguments = f"{IMAGE}:{nonce}", {"PREDICTOR": code, "NONCE": nonce, "FAULT": fault}
    given = [it for key, value in arguments.items() for it in ("--build-arg", f"{key}={value}")]
    target = "faulty" if fault else "same"
    context = str(CHECKOUT / "flightdeck" / "lab")
    run(("docker", "build", "-q", "-f", str(DOCKERFILE), "--target", target, *given, "-t", tag, context), timeout_s=300)
    try:
        run(("docker", "push", "-q", tag), timeout_s=120)
        digests = json.loads(run(("docker", "image", "inspect", tag, "--format", "{{json .RepoDigests}}")))
        return str(next(it for it in digests if it.startswith(f"{IMAGE}@")))
    finally:
        run(("docker", "image", "rm", tag))


@dataclasses.dataclass(frozen=True)
class Sample:
    """What stood on the cluster at a moment (`time.monotonic()`): of the candidate, or of nobody."""

    at: float
    phase: str
    weight: int
    mirrored: bool
    ready: int
    candidate: str
    reason: str
    serial: int

    @property
    def told(self) -> str:
        """In a few words."""
        return f"{self.phase}, {self.weight} %, {self.ready} ready: {self.reason}"


class Watch:
    """Looks four times a second, from another process than the operator, whatever the operator says."""

    def __init__(self, model: str) -> None:
        self.model, self.api = model, Kubernetes(SERVING)
        self.samples: list[Sample] = []
        self.status: dict[str, Any] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(15)

    def _run(self) -> None:
        while not self._end.wait(LOOK_S):
            with contextlib.suppress(Unavailable, ValueError):  # it is away: no sample, and the gap is seen
                self.samples.append(self._sample())

    def _sample(self) -> Sample:
        at = time.monotonic()
        rollout, route = self.api.read("ModelRollout", self.model), self.api.read("HTTPRoute", self.model)
        slices = self.api.list("EndpointSlice", f"{replicas.MODEL}={self.model}")
        status = self.status = (rollout or {}).get("status", {})
        body = status.get("state", {}).get("candidate") or status.get("candidate")
        weight, mirrored, ready, name = 0, False, 0, ""
        if body:
            release = Release.model_validate(body)
            name = release.id
            ready = len(replicas.addresses(release.id, slices))
            weight, mirrored = sent(route, workload_name(release))
        serial = int(status.get("state", {}).get("serial", 0))
        return Sample(at, status.get("phase", ""), weight, mirrored, ready, name, status.get("reason", ""), serial)

    def until(self, holds: Callable[[Sample], bool], within_s: float, what: str) -> Sample:
        """The first sample from now on of which it holds."""
        began, seen = time.monotonic(), 0
        while True:
            samples = self.samples[seen:]
            seen += len(samples)
            for it in samples:
                if it.at >= began and holds(it):
                    return it
            last = self.samples[-1].told if self.samples else "nothing was seen"
            assert time.monotonic() - began < within_s, f"not {what} within {within_s:.0f} s; now: {last}"
            time.sleep(0.05)

    def first(self, holds: Callable[[Sample], bool], since: float) -> Sample | None:
        """The first sample since a moment of which it holds."""
        return next((it for it in list(self.samples) if it.at >= since and holds(it)), None)


def sent(route: Mapping[str, Any] | None, service: str) -> tuple[int, bool]:
    """What the rules say of a Service, taken or not: its weight of 100, and whether it gets copies."""
    weight, copies = 0, False
    for rule in (route or {}).get("spec", {}).get("rules") or ():
        backends = {it["name"]: it.get("weight", 1) for it in rule.get("backendRefs") or ()}
        total = sum(backends.values())
        weight = max(weight, round(100 * backends.get(service, 0) / total) if total else 0)
        copies = copies or service in routes.mirrors(rule)
    return weight, copies


@dataclasses.dataclass
class Outcome:
    """How a rollout ended and what its users met.

    Args:
        began, evidence, left, ended: moments: asked for; first copy or user of the candidate; the operator decided to
            send it home (NaN: never); the end. answered: requests of users that the candidate answered, as no champion.
    """

    title: str
    phase: str
    reason: str
    began: float
    evidence: float
    left: float
    ended: float
    answers: list[Answer]
    answered: int
    status: dict[str, Any]
    visited: list[str]

    @property
    def took_s(self) -> float:
        """From the request for the release to the end."""
        return self.ended - self.began

    @property
    def failed(self) -> list[Answer]:
        """User requests without an answer 200."""
        return [it for it in self.answers if it.status != 200]

    @property
    def metrics(self) -> list[str]:
        """Those that surely failed, and what counted without one."""
        judged = (self.status.get("judgement") or {}).get("metrics", [])
        found = [it["metric"] for it in judged if it["verdict"] == "fail"]
        found += ["restarts"] if "replicas died" in self.reason else []
        return found + (["readyDeadline"] if "replicas ready after" in self.reason else [])

    def requests_until(self, moment: float) -> int:
        """Of users, from the first evidence on."""
        return sum(self.evidence <= it.at < moment for it in self.answers)

    def moment_of(self, request: float) -> float:
        """When the n-th of them was sent; infinite when there were fewer."""
        sent_at = sorted(it.at for it in self.answers if it.at >= self.evidence)
        return sent_at[max(0, int(request) - 1)] if len(sent_at) >= request else float("inf")


@dataclasses.dataclass
class Drill:
    """One test's rollout."""

    kubectl: Kubectl
    model: str
    watch: Watch
    champion: Release
    spec: dict[str, Any]
    table: list[str]
    began: float = 0.0
    asked: Release | None = None

    def candidate(self, fault: str = "") -> Release:
        """The champion's model under another image."""
        return self.champion.model_copy(update={"image": build_image(self.kubectl, fault)})

    def ask(self, release: Release, break_glass: str = "") -> None:
        """As `kubectl flightdeck release` does. `break_glass`: why it may be tried without an approval."""
        self.began, self.asked = time.monotonic(), release
        meta: dict[str, Any] = {"name": self.model, "namespace": SERVING}
        meta |= {"annotations": {gatekeeper.ANNOTATION: break_glass}} if break_glass else {}
        spec = {"release": release.model_dump(mode="json", by_alias=True, exclude_none=True)}
        apply(self.kubectl, [{"apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout", "metadata": meta,
                              "spec": spec}])  # fmt: skip

    def order(self, words: str) -> None:
        """As the plugin's promote, abort, pause and so on do."""
        self.kubectl("annotate", KIND, self.model, "-n", SERVING, f"{ANNOTATION}={words}", "--overwrite")

    def brisk(self) -> RolloutSpec:
        """The quick plan, with the shipped margins."""
        return self.plan(plan=BRISK)

    def plan(self, rate_per_s: float = RATE_PER_S, **changes: Any) -> RolloutSpec:
        """Follow another plan or judge from the next rollout on; the linter must have no error to tell of it."""
        wanted = {**self.spec, **changes}
        content = {"apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout", "metadata": {"name": self.model}}
        release = self.champion.model_dump(mode="json", by_alias=True, exclude_none=True)
        spec = parse_rollout(json.dumps({**content, "spec": {**wanted, "release": release}}), self.model).spec
        errors = [it.sentence for it in lint(spec, Traffic(rate_per_s)) if it.level is Level.ERROR]
        assert not errors, f"the test's plan cannot work: {errors}"
        self._set(wanted)
        return spec

    def _set(self, spec: Mapping[str, Any]) -> None:
        """Git's fields, under Git's field manager."""
        patch = [{"op": "replace", "path": f"/spec/{key}", "value": value} for key, value in spec.items()]
        self.kubectl(
            "patch", KIND, self.model, "-n", SERVING, "--type=json", "--field-manager=flightdeck", "-p",
            json.dumps(patch),
        )  # fmt: skip

    def shipped(self) -> RolloutSpec:
        """The plan and judge that are in Git."""
        content = {"apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout", "metadata": {"name": self.model}}
        release = self.champion.model_dump(mode="json", by_alias=True, exclude_none=True)
        return parse_rollout(json.dumps({**content, "spec": {**self.spec, "release": release}}), self.model).spec

    def in_phase(self, phase: str, within_s: float, weight: int | None = None) -> Sample:
        """Wait until the candidate that was asked for is there."""
        assert self.asked is not None
        name = self.asked.id
        what = phase if weight is None else f"{phase} {weight} %"
        began = self.began

        def there(it: Sample) -> bool:
            return it.candidate == name and it.phase == phase and weight in (None, it.weight)

        def over(it: Sample) -> bool:
            return (
                it.phase in ENDED
                and not it.candidate
                and self.watch.first(lambda one: one.candidate == name, began) is not None
            )

        found = self.watch.until(lambda it: there(it) or over(it), within_s, what)
        assert there(found), f"not {what}, it has ended: {found.told}"
        return found

    def end(self, users: Load, title: str, within_s: float) -> Outcome:
        """Wait until it has ended, whatever the end; keeps its row."""
        assert self.asked is not None
        name, began = self.asked.id, self.began
        if self.watch.first(lambda it: it.candidate == name, began) is None:
            self.watch.until(lambda it: it.candidate == name, 30, "begun")
        last = self.watch.until(lambda it: it.phase in ENDED and not it.candidate, within_s, "ended")
        mine = [it for it in self.watch.samples if it.at >= began and it.candidate == name]
        evidence = next((it.at for it in mine if it.mirrored or it.weight), float("nan"))
        home = last.at if last.phase == "aborted" else float("nan")
        left = next((it.at for it in mine if it.phase == "aborting"), home)
        until = min([it.at for it in mine if it.weight == 100] or [last.at])
        answers = [it for it in list(users.answers) if began <= it.at < last.at]
        weighted = next((it.at for it in mine if it.weight), float("inf"))
        hers = self._answered(name, [it for it in answers if weighted <= it.at < until])
        visited = list(dict.fromkeys(f"{it.phase} {it.weight}" if it.phase == "canary" else it.phase for it in mine))
        return Outcome(
            title, last.phase, last.reason, began, evidence, left, last.at, answers, hers, self.watch.status,
            [*visited, last.phase],
        )  # fmt: skip

    def _answered(self, release: str, answers: Sequence[Answer]) -> int:
        """How many of these the release answered, by the prediction log: the Gateway names no replica."""
        ids = {found[1] for it in answers if it.status == 200 and (found := _REQUEST.search(it.said))}
        if not ids:
            return 0
        time.sleep(1.5)  # replicas write theirs in batches
        since_ms = int((time.time() - (time.monotonic() - self.began)) * 1000)
        argv = ("deployment/rollout-operator", "-n", SERVING, "--", "python", "-c", _ANSWERED, str(since_ms), release)
        deadline = time.monotonic() + 60
        while True:
            try:
                return len(ids & set(json.loads(self.kubectl("exec", *argv))))
            except CommandFailed:  # it was killed a moment ago
                assert time.monotonic() < deadline, "no operator reads the prediction log"
                time.sleep(1)

    def note(self, found: Outcome, extra: str = "") -> None:
        """Its row in the table."""
        phases = [it for it in found.visited if it not in ("aborting", *ENDED)]
        where = f" in {phases[-1]}" if found.phase == "aborted" and phases else ""
        words = "; ".join(it for it in (extra, short(found)) if it)
        self.table.append(
            f"| {found.title} | {found.phase}{where} | {found.took_s:.0f} s | {len(found.answers):,} | "
            f"{len(found.failed)} | {found.answered:,} | {words} |"
        )
        print(self.table[-1])

    def put_back(self) -> None:
        """The champion of before serves all users, nobody else is there, Git's plan stands."""
        self._set(self.spec)
        self.ask(self.champion)
        self.watch.until(self._quiet_or_running_back, 180, "at rest")
        now = serving(self.kubectl, self.model)
        if now is not None and now.id != self.champion.id:
            self.in_phase("pending", 30)
            self.order("promote the release before the test")
            self.watch.until(lambda it: it.phase == "done" and not it.candidate, 180, "back to the champion of before")
        until_at_rest(self.kubectl, self.model, self.champion)

    def _quiet_or_running_back(self, it: Sample) -> bool:
        return (it.phase in ENDED and not it.candidate) or it.candidate == self.champion.id


def caught(found: Outcome, name: str, where: str = "") -> None:
    """A planted fault was sent home where and why the catalogue says; or, where a cluster differs, in that phase."""
    fault = CATALOGUE[name]
    assert found.phase == "aborted", f"{name} ended {found.phase}: {found.reason}"
    phases = [it.split()[0] for it in found.visited if it not in ("aborting", "aborted")]
    assert phases[-1] == (where or fault.caught_in), f"{name} was caught in {phases}: {found.reason}"
    assert set(found.metrics) & set(fault.metrics), f"{name} was caught by {found.metrics}: {found.reason}"


def short(found: Outcome) -> str:
    """The reason as the status tells it, without what every reason of that kind has."""
    words = found.reason
    for mark in ("; champion ", "; the users'", ", with the "):
        words = words.partition(mark)[0]
    return words.replace("|", "/")[:260]


def until_at_rest(kubectl: Kubectl, model: str, champion: Release, within_s: float = 120) -> None:
    """The champion alone: its pods ready, all users, no copies, no other release's workload."""
    deadline, mine = time.monotonic() + within_s, workload_name(champion)
    while True:
        rules = kubectl.get("httproute", model, "-n", SERVING)["spec"].get("rules", [])
        made = kubectl.get("deployment", "-n", SERVING, "-l", f"{replicas.MODEL}={model}")["items"]
        others = {it["metadata"]["name"] for it in made} - {mine}
        pods = kubectl.get("pods", "-n", SERVING, "-l", f"{replicas.MODEL}={model}")["items"]
        ready = sum(
            any(it["type"] == "Ready" and it["status"] == "True" for it in pod["status"].get("conditions", ()))
            for pod in pods
        )
        status = kubectl.get(KIND, model, "-n", SERVING)["status"]
        users = [{it["name"] for it in rule["backendRefs"]} for rule in rules]
        copies = [rule for rule in rules if rule.get("filters")]
        wanted = int(status.get("wantedReplicas", 0))
        if users == [{mine}] and not copies and not others and ready == len(pods) == wanted and not status.get(
            "candidate"
        ):  # fmt: skip
            return
        assert time.monotonic() < deadline, (
            f"not as before: users {users}, copies {bool(copies)}, others {others}, {ready} of {len(pods)} pods ready"
        )
        time.sleep(0.5)


def kill_operator(kubectl: Kubectl) -> str:
    """SIGKILL, no grace; returns the pod's name. Kubernetes makes another."""
    name = str(kubectl.get("pods", "-n", SERVING, "-l", OPERATOR)["items"][0]["metadata"]["name"])
    kubectl("delete", "pod", name, "-n", SERVING, "--grace-period=0", "--force", "--wait=false")
    return name


def kill_processes(kubectl: Kubectl, release: Release) -> int:
    """SIGKILL to the process of each replica at once, from kind's node: a pod cannot kill its own first one."""
    label = f"{replicas.MODEL}={release.model.name},{replicas.RELEASE}={release.id}"
    pods, pids = kubectl.get("pods", "-n", SERVING, "-l", label)["items"], dict[str, list[str]]()
    for pod in pods:
        node, (container,) = pod["spec"]["nodeName"], pod["status"]["containerStatuses"]
        tasks = run(("docker", "exec", node, "ctr", "-n", "k8s.io", "tasks", "ls")).splitlines()
        pid = {words[0]: words[1] for line in tasks if len(words := line.split()) > 1}
        pids.setdefault(node, []).append(pid[container["containerID"].removeprefix("containerd://")])
    for node, found in pids.items():
        assert all(it.isdigit() and int(it) > 1 for it in found), f"no process ids on {node}: {found}"
        run(("docker", "exec", node, "kill", "-9", *found))
    return len(pods)


@contextlib.contextmanager
def drilled(kubectl: Kubectl, model: str, table: list[str]) -> Iterator[Drill]:
    """From a champion at rest to a champion at rest."""
    champion = serving(kubectl, model)
    assert champion is not None, f"{model} has no champion"
    spec = {key: value for key, value in kubectl.get(KIND, model, "-n", SERVING)["spec"].items() if key != "release"}
    with Watch(model) as watch:
        drill = Drill(kubectl, model, watch, champion, spec, table)
        until_at_rest(kubectl, model, champion)
        try:
            yield drill
        finally:
            drill.put_back()


HEAD = (
    "| what | ends | after | user requests | failed | users answered by the candidate | reason |\n"
    "| --- | --- | --: | --: | --: | --: | --- |\n"
)


def table_of(rows: Sequence[str]) -> str:
    """In Markdown."""
    return HEAD + "".join(f"{it}\n" for it in rows)
