"""The controller goes on from its files, at whatever line it was killed: same end, no gap for the users on the way."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flightdeck.contracts.artefact import MANIFEST, ModelManifest, ServedFeature, file_digest, manifest_bytes
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import Task
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.release import ModelRef, Release
from flightdeck.contracts.rollout import ModelRollout, parse_rollout
from flightdeck.lab.envoy import release_of, shadow_of
from flightdeck.lab.rollout import replicas
from flightdeck.lab.rollout.controller import rollout_of
from flightdeck.lab.rollout.gateway import Attempts, Counted, GatewayUnavailable
from flightdeck.lab.rollout.replicas import ObservedReplicas, ReleaseSeen, ReplicaSeen
from flightdeck.lab.rollout.store import Store
from flightdeck.lab.users import write_atomically
from services.rollout_operator.plan import Order, OrderKind, Phase
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.tick import Rollout
from tests.unit.rollout.kube_cluster import Records

SPEC = """
apiVersion: flightdeck.dev/v1alpha1
kind: ModelRollout
metadata: {name: late}
spec:
  replicas: 2
  plan:
    - shadow: {minPairs: 100, deadline: 10m}
    - canary: {weight: 10, minRequests: 20, deadline: 10m}
    - canary: {weight: 50, minRequests: 20, deadline: 10m}
  judge: {warmup: 0, margins: {errorRate: 0.05, scoreDelta: 0.2}}
  onDeadline: abort
  onNoData: abort
  onNewRelease: queueNewest
"""
PER_TICK = 200
TICK_S = 1.0


class Killed(BaseException):
    """SIGKILL, as far as a test can."""


class World:
    """Gateway, keeper, streams and users around a controller, which may be killed before its effect `kill_at`."""

    def __init__(self, folder: Path, *, scores: Callable[[int], float] = lambda _: 0.2) -> None:
        self.layout = StateLayout(folder)
        self.store = Store(self.layout.rollouts)
        self.scores = scores
        self.effects, self.kill_at = 0, 0
        self.weights: list[int] = []
        self.routes: tuple[str, tuple[Any, ...], str | None, int, bool] = ("", (), None, 0, False)
        self.log: list[PredictionRecord] = []
        self.counters: dict[tuple[str, str], Attempts] = {}
        self.unavailable = False
        self.failing = ""  # id of a release whose attempts all fail
        self.now_s = time.time()
        self.requests = 0
        self.sha256 = self._artefact()

    def _artefact(self) -> str:
        folder = self.layout.artefacts / "new"
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"x")
        feature = ServedFeature(
            name="hour", source="on_demand", view="c", join_keys=[], feast_type="FLOAT", default=0.0
        )
        content = manifest_bytes(ModelManifest(
            model="late", task=Task.CLASSIFICATION, horizon_min=120, unit="p", feature_project="p",
            feature_service="late_v1", features=[feature], views={}, decision_threshold=0.5, fallback_score=0.2,
            files=[file_digest(folder / "model.onnx")],
        ))  # fmt: skip
        (folder / MANIFEST).write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        folder.rename(self.layout.artefacts / sha256)
        return sha256

    def release(self, image: str) -> Release:
        ref = ModelRef(name="late", version="1", sha256=self.sha256)
        return Release(image=image, model=ref, feature_service="late_v1")  # type: ignore[call-arg]

    def want(self, image: str, **changes: Any) -> None:
        rollout: ModelRollout = parse_rollout(SPEC, release=self.release(image))
        self.store.apply(rollout, "test")

    # What a controller gets

    def start(self) -> Rollout:
        """A new controller, which knows only the files."""
        return rollout_of("late", self.store, self.layout, Gateway(self), Records(self))  # type: ignore[arg-type]

    def effect(self) -> None:
        self.effects += 1
        if self.effects == self.kill_at:
            raise Killed

    # What happens outside

    def pass_time(self) -> None:
        """The keeper makes true what is wanted; the users send their requests."""
        self.now_s += TICK_S
        wanted = replicas.wanted(self.layout) or []
        releases = {}
        for release, count in wanted:
            seen = [
                ReplicaSeen(f"late-{release.id}-{number}", self.port(release, number), 1, True)
                for number in range(1, count + 1)
            ]
            releases[release.id] = ReleaseSeen(seen, len(seen))
        self.layout.run.mkdir(parents=True, exist_ok=True)
        write_atomically(self.layout.run / replicas.OBSERVED, ObservedReplicas(self.now_s, releases))
        champion, _, candidate, weight, mirror = self.routes
        self.weights.append(weight)
        if not champion:
            return
        parts = {champion: PER_TICK * (100 - weight) // 100}
        if candidate and weight:
            parts[candidate] = PER_TICK * weight // 100
        first = self.requests
        for release_id, count in parts.items():
            assert release_id in releases, f"users were sent to {release_id}, which does not run"
            self._answer(release_id, first, count)
            first += count
        if candidate and mirror:
            self._answer(candidate, self.requests, PER_TICK, cluster=shadow_of(candidate))
        self.requests = first

    def _answer(self, release_id: str, first: int, count: int, *, cluster: str = "") -> None:
        key = (cluster or release_id, f"127.0.0.1:{self.port_of(release_id)}")
        before = self.counters.get(key, Attempts(0, 0))
        failed = count if release_id == self.failing else 0
        self.counters[key] = Attempts(before.total + count, before.failed + failed)
        champion = release_id == self.routes[0]
        for number in range(first, first + count):
            score = 0.2 if champion else self.scores(number)
            self.log.append(
                PredictionRecord(
                    request_id=f"r{number}", row=0, entity_id=f"e{number}", asked_at_us=0, model="late", version="1",
                    sha256=self.sha256, feature_service="late_v1", features=[1.0], feature_hash="", score=score,
                    decision="negative", degraded=[], ages_s={}, latency_us=1000, replica=f"late-{release_id}-1",
                    release=release_id,
                )
            )  # fmt: skip

    @staticmethod
    def port_of(release_id: str) -> int:
        return 20_000 + int(release_id[:3], 16)

    def port(self, release: Release, number: int) -> int:
        return self.port_of(release.id) + number - 1


class Gateway:
    def __init__(self, world: World) -> None:
        self.world = world

    def route(self, champion, champion_ready, candidate=None, candidate_ready=(), *, weight=0, mirror=False) -> None:
        self.world.effect()
        if self.world.unavailable:
            raise GatewayUnavailable("down")
        self.world.routes = (champion, tuple(champion_ready), candidate, weight, mirror)

    def routed(self, candidate: str | None) -> tuple[int, bool]:
        _, _, known, weight, mirror = self.world.routes
        return (weight, mirror) if candidate and candidate == known else (self._first(candidate), False)

    def _first(self, candidate: str | None) -> int:
        """The first release is routed as if it were the champion."""
        return 100 if candidate and candidate == self.world.routes[0] else 0

    def attempts(self) -> Counted:
        owners = {place: release_of(cluster) for cluster, place in self.world.counters}
        return Counted(dict(self.world.counters), owners)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return make_world(tmp_path, monkeypatch)


def make_world(folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any) -> World:
    """A world in which each write of a file counts as an effect, before which a controller may be killed."""
    world = World(folder, **more)
    monkeypatch.setattr(
        "flightdeck.lab.rollout.store.os.fsync", lambda _: None
    )  # a power cut is not what is tested here
    for name in ("record", "write_status", "save_evidence", "look"):
        original = getattr(Store, name)

        def counted(store: Store, *args: Any, _original: Any = original) -> Any:
            world.effect()
            return _original(store, *args)

        monkeypatch.setattr(Store, name, counted)
    want = replicas.want

    def counted_want(*args: Any) -> None:
        world.effect()
        want(*args)

    monkeypatch.setattr("flightdeck.lab.rollout.controller.replicas.want", counted_want)
    return world


def drive(world: World, until: Callable[[Phase], bool], ticks: int = 120) -> list[Phase]:
    """Tick until the phase is reached; a killed controller is followed by a new one. Returns the phases seen."""
    made, phases = world.start(), []
    for _ in range(ticks):
        try:
            made.tick(world.now_s)
        except Killed:
            made = world.start()
        world.pass_time()
        status = world.store.read_status("late")
        if status and status.state:
            if not phases or phases[-1] is not status.state.phase:
                phases.append(status.state.phase)
            if until(status.state.phase):
                return phases
    raise AssertionError(f"never came; phases {phases}")


def ended(phase: Phase) -> bool:
    return phase in (Phase.DONE, Phase.ABORTED)


def second_done(world: World) -> Callable[[Phase], bool]:
    """The candidate "two" is champion."""
    return lambda phase: phase is Phase.DONE and len(world.store.history("late")) > 6


def serve_first(world: World) -> None:
    world.want("one")
    assert drive(world, ended) == [Phase.PENDING, Phase.PROMOTING, Phase.DONE]
    made = world.start()
    for _ in range(3):
        made.tick(world.now_s)
        world.pass_time()


FULL_WAY = [Phase.PENDING, Phase.SHADOW, Phase.CANARY, Phase.PROMOTING, Phase.DONE]


def test_a_good_candidate_goes_the_whole_way_and_the_champion_retires(world):
    serve_first(world)
    world.want("two")
    phases = drive(world, second_done(world))
    assert phases[-5:] == FULL_WAY
    drive(world, lambda _: [release.image for release, _ in replicas.wanted(world.layout) or []] == ["two"])
    assert world.routes[0] == world.release("two").id
    rising = [weight for weight, before in zip(world.weights[1:], world.weights, strict=False) if weight != before]
    assert rising[:3] == [10, 50, 100]


def test_a_candidate_that_scores_otherwise_is_sent_home_from_the_shadow(tmp_path, monkeypatch):
    world = make_world(tmp_path, monkeypatch, scores=lambda _: 0.9)
    serve_first(world)
    world.weights.clear()
    world.want("two")
    assert drive(world, lambda phase: phase is Phase.ABORTED)[-4:] == [
        Phase.PENDING, Phase.SHADOW, Phase.ABORTING, Phase.ABORTED,
    ]  # fmt: skip
    assert set(world.weights) == {0}, "no user saw it"
    status = world.store.read_status("late")
    assert status and status.state and "scoreDelta" in status.state.reason


def effects_of_a_whole_rollout(folder: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        world = make_world(folder, patch)
        serve_first(world)
        world.effects = 0
        world.want("two")
        drive(world, second_done(world))
        return world.effects


def test_killed_before_any_of_its_writes_it_ends_as_if_it_had_not_been(tmp_path):
    total = effects_of_a_whole_rollout(tmp_path / "whole")
    assert total > 30
    for kill_at in range(1, total + 1):
        with pytest.MonkeyPatch.context() as patch:
            world = make_world(tmp_path / str(kill_at), patch)
            serve_first(world)
            world.effects, world.kill_at = 0, kill_at
            world.want("two")
            phases = drive(world, second_done(world))
            assert phases[-5:] == FULL_WAY, (kill_at, phases)
            serials = [item.serial for item in world.store.history("late")]
            assert serials == sorted(set(serials)), f"killed before write {kill_at}: history {serials}"


def test_an_order_is_obeyed_once_and_survives_the_controllers_death(world):
    serve_first(world)
    world.want("two")
    drive(world, lambda phase: phase is Phase.CANARY)
    world.store.order("late", Order(OrderKind.ABORT, "ann", "looks odd"))
    world.kill_at = world.effects + 1
    assert drive(world, ended)[-1] is Phase.ABORTED
    aborts = [item for item in world.store.history("late") if item.target is Phase.ABORTING]
    assert len(aborts) == 1
    assert "ann" in aborts[0].who and "looks odd" in aborts[0].reason
    assert world.routes[0] == world.release("one").id


def test_while_the_gateway_is_away_no_replica_is_retired(world):
    serve_first(world)
    world.want("two")
    drive(world, lambda phase: phase is Phase.SHADOW)
    world.unavailable = True
    world.store.order("late", Order(OrderKind.ABORT, "ann"))
    made = world.start()
    for _ in range(5):
        made.tick(world.now_s)
        world.pass_time()
    assert len(replicas.wanted(world.layout) or []) == 2
    world.unavailable = False
    assert drive(world, ended)[-1] is Phase.ABORTED


def test_a_wanted_file_that_was_broken_by_hand_stops_nothing(world):
    serve_first(world)
    world.want("two")
    drive(world, lambda phase: phase is Phase.SHADOW)
    path = world.layout.rollouts / "late" / "wanted.yaml"
    path.write_text(path.read_text().replace("replicas: 2", "replicas: many"))
    assert drive(world, ended)[-1] is Phase.DONE


def test_the_last_rollouts_evidence_never_stands_in_for_this_ones(world):
    serve_first(world)
    world.want("two")
    made = world.start()
    for _ in range(60):
        made.tick(world.now_s)
        world.pass_time()
    assert made.status.state and made.status.state.champion and made.status.state.champion.image == "two"

    def away() -> None:
        raise Unavailable("away")

    made.records.skip_to_now = away
    world.want("three")
    for _ in range(30):
        made.tick(world.now_s)
        world.pass_time()
    assert made.status.state.phase is Phase.SHADOW
    assert made.status.judgement is None, "nothing was measured of this one"


def test_errors_are_seen_while_the_log_is_away(world):
    serve_first(world)
    world.want("two")
    made = world.start()
    while not (made.status.state and made.status.state.phase is Phase.CANARY):
        made.tick(world.now_s)
        world.pass_time()

    def away() -> list[PredictionRecord]:
        raise Unavailable("away")

    made.records.predictions = away
    world.failing = world.release("two").id
    for _ in range(10):
        made.tick(world.now_s)
        world.pass_time()
    assert made.status.state.phase in (Phase.ABORTING, Phase.ABORTED)
    assert "errorRate" in made.status.state.reason


def test_evidence_of_another_rollout_is_not_taken_for_this_ones(world):
    serve_first(world)
    world.want("two")
    drive(world, second_done(world))
    before = world.store.load_evidence("late")
    world.want("three")
    drive(world, lambda phase: phase is Phase.SHADOW)
    made = world.start()
    made.tick(world.now_s)
    after = world.store.load_evidence("late")
    assert before and after and after.started_s != before.started_s
    assert msgspec.msgpack.decode(after.dump)["evidence"]["tallies"][0]["pairs"] < PER_TICK * 3
