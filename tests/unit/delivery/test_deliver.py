"""A delivery that falls short goes back by itself, one that is stopped is gone on with, and two never meet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flightdeck.cluster import deploy
from flightdeck.cluster.commands import CommandFailed
from flightdeck.cluster.deploy import DeployRefused
from flightdeck.contracts.ledger import DeliveryRecord, Verdict
from flightdeck.delivery import deliver, ledger, provenance
from flightdeck.delivery.decisions import Relation
from flightdeck.delivery.deliver import STAGES, Asked, Delivery, Stopped
from flightdeck.delivery.users import FellShort
from flightdeck.progress import Board
from tests.unit.delivery.records import record

MANIFESTS = [{"kind": "Deployment", "metadata": {"name": "x", "namespace": "flightdeck-platform"}}]


class Cluster:
    """Stands for kubectl: objects by kind and name; `away` is an API server that does not answer."""

    context = "kind-test"

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Any] = {("namespace", "flightdeck-platform"): {"kind": "Namespace"}}
        self.away = False

    def answers(self) -> bool:
        return not self.away

    def find(self, kind: str, name: str, namespace: str | None = None) -> Any:
        self._ask()
        return self.objects.get((kind.lower(), name))

    def get(self, kind: str, *_: str) -> dict[str, Any]:
        self._ask()
        found = [it for (of, name), it in self.objects.items() if of == "configmap" and name.startswith("delivery-0")]
        return {"items": found if kind == "configmaps" else []}

    def __call__(self, *args: str, stdin: str = "", timeout_s: float = 0) -> str:
        self._ask()
        if args[0] in ("create", "apply", "replace"):
            body = json.loads(stdin)
            key = body["kind"].lower(), body["metadata"]["name"]
            if args[0] == "create" and key in self.objects:
                raise CommandFailed("failed", "AlreadyExists")
            body["metadata"].setdefault("resourceVersion", "1")
            self.objects[key] = body
        elif args[0] == "delete":
            self.objects.pop((args[1], args[2]), None)
        return ""

    def _ask(self) -> None:
        if self.away:
            raise CommandFailed("kubectl ended with 1", "connection refused")


class Run(Delivery):
    """A delivery whose stages do nothing, but for the one that is told to fail."""

    def __init__(self, cluster: Cluster, fails: dict[str, BaseException], folder: Path) -> None:
        super().__init__(folder, Board(list(STAGES), Console(quiet=True)), Asked(wait_s=0))
        self.cluster_there, self.fails, self.did = cluster, fails, list[str]()
        self.commit = "new"
        self.documents, self.digests = MANIFESTS, {"flightdeck/predictor": "r/predictor@sha256:1"}
        self.up.aim = self._aim  # type: ignore[method-assign]

    def _aim(self) -> None:
        from flightdeck.cluster.target import How, Target

        self.up.target, self.up.overlay = Target("kind-test", How.EXISTING), "kind"

    def _stage(self, name: str) -> None:
        with self.board.stage(name) as stage:
            self.did.append(name)
            if name == "deploy":
                self.applied = True
            if name in self.fails:
                raise self.fails[name]
            if name == "ledger":
                self.ledger(stage)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(deliver, "Kubectl", lambda context: found)
    monkeypatch.setattr(provenance, "relation", lambda *_: Relation.NEWER)
    return found


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(deliver.restore, "restore", lambda kubectl, target, **_: found.append(target.number))
    return found


def delivered(cluster: Cluster, *verdicts: Verdict) -> None:
    records: list[DeliveryRecord] = []
    for number, verdict in enumerate(verdicts, start=1):
        previous = records[-1].sha256 if records else ""
        records.append(record(number, verdict, previous, manifests=ledger.digest(MANIFESTS)))
        ledger.append(cluster, "flightdeck-platform", records[-1], MANIFESTS)  # type: ignore[arg-type]


def records_of(cluster: Cluster) -> list[DeliveryRecord]:
    return ledger.read(cluster, "flightdeck-platform")  # type: ignore[arg-type]


def test_a_whole_delivery_is_recorded_and_leaves_neither_lease_nor_note(cluster: Cluster, tmp_path: Path):
    run = Run(cluster, {}, tmp_path)
    assert run.run().verdict is Verdict.DELIVERED
    assert run.did == list(STAGES)
    (kept,) = records_of(cluster)
    assert kept.commit == "new" and kept.images == run.digests
    assert [it.name for it in kept.stages] == list(STAGES)
    assert (tmp_path / "deliveries" / "dev.json").read_text() == kept.text + "\n"
    assert not {("lease", deliver.LEASE), ("configmap", ledger.UNDER_WAY)} & set(cluster.objects)


@pytest.mark.parametrize("stage", ["ready", "smoke", "load", "training"])
def test_what_falls_short_before_the_rollout_goes_back_to_the_last_that_stands(
    cluster: Cluster, restored: list[int], tmp_path: Path, stage: str
):
    delivered(cluster, Verdict.DELIVERED, Verdict.ROLLED_BACK)
    with pytest.raises(Stopped, match=rf"{stage}: it is broken\nrolled back: delivery 1"):
        Run(cluster, {stage: FellShort("it is broken")}, tmp_path).run()
    assert restored == [1]
    assert records_of(cluster)[-1].verdict is Verdict.ROLLED_BACK
    assert ledger.gaps(records_of(cluster)) == []
    assert ("lease", deliver.LEASE) not in cluster.objects


def test_a_refused_deploy_changed_nothing_so_nothing_is_rolled_back_or_recorded(
    cluster: Cluster, restored: list[int], tmp_path: Path
):
    delivered(cluster, Verdict.DELIVERED)
    with pytest.raises(Stopped, match="deploy: the API server refuses"):
        Run(cluster, {"deploy": DeployRefused("the API server refuses")}, tmp_path).run()
    assert restored == [] and len(records_of(cluster)) == 1


def test_without_an_earlier_delivery_the_words_say_that_there_is_no_way_back(
    cluster: Cluster, restored: list[int], tmp_path: Path
):
    with pytest.raises(Stopped, match="no delivery was recorded before, so there is nothing to roll back to"):
        Run(cluster, {"smoke": FellShort("no answer")}, tmp_path).run()
    assert restored == [] and [it.verdict for it in records_of(cluster)] == [Verdict.FAILED]


def test_a_roll_back_that_falls_short_is_told_and_recorded(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    def broken(*_: object, **__: object) -> None:
        raise CommandFailed("the disk is full")

    monkeypatch.setattr(deliver.restore, "restore", broken)
    delivered(cluster, Verdict.DELIVERED)
    with pytest.raises(Stopped, match="rolling back to delivery 1 fell short, too: the disk is full"):
        Run(cluster, {"smoke": FellShort("no answer")}, tmp_path).run()
    assert records_of(cluster)[-1].verdict is Verdict.FAILED


def test_a_cluster_that_goes_away_in_the_middle_is_told_with_what_serves_and_how_to_go_on(
    cluster: Cluster, restored: list[int], tmp_path: Path
):
    delivered(cluster, Verdict.DELIVERED)
    run = Run(cluster, {}, tmp_path)
    stage = run._stage

    def away(name: str) -> None:
        if name == "ready":
            cluster.away = True
            raise CommandFailed("kubectl ended with 1", "connection refused")
        stage(name)

    run._stage = away  # type: ignore[method-assign]
    with pytest.raises(Stopped, match=r"does not answer[\s\S]*keeps serving[\s\S]*make deliver ENVIRONMENT=dev"):
        run.run()
    assert restored == []
    cluster.away = False
    assert len(records_of(cluster)) == 1 and ledger.noted(cluster, "flightdeck-platform")["stage"] == "ready"  # type: ignore[arg-type]


def test_after_a_kill_the_next_delivery_goes_on_and_says_so(cluster: Cluster, restored: list[int], tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        Run(cluster, {"smoke": KeyboardInterrupt()}, tmp_path).run()
    assert restored == [] and records_of(cluster) == []
    again = Run(cluster, {}, tmp_path)
    said: list[str] = []
    again._say = said.append  # type: ignore[method-assign]
    again.run()
    assert any("which did not end; it was at: smoke" in it for it in said)
    assert [it.number for it in records_of(cluster)] == [1]


def test_a_training_that_was_under_way_is_followed_and_not_begun_again(cluster: Cluster, tmp_path: Path):
    run = Run(cluster, {"training": KeyboardInterrupt()}, tmp_path)
    stage = run._stage

    def training(name: str) -> None:
        if name == "training":
            run._note("training", run="3f2c81aa", inputs="{}")
        stage(name)

    run._stage = training  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.run()
    again = Run(cluster, {}, tmp_path)
    seen: list[str] = []
    other = again._stage

    def look(name: str) -> None:
        if name == "training":
            seen.append(again.began["run"])
        other(name)

    again._stage = look  # type: ignore[method-assign]
    again.run()
    assert seen == ["3f2c81aa"]


def test_without_a_cluster_none_is_made_unless_one_was_asked_for(cluster: Cluster, tmp_path: Path):
    from flightdeck.cluster.target import How, Target

    run = Run(cluster, {}, tmp_path)

    def aim() -> None:
        run.up.target = Target("kind-flightdeck", How.KIND)

    run.up.aim = aim  # type: ignore[method-assign]
    with pytest.raises(Stopped, match="no cluster answers for dev: what serves there was left alone"):
        run.run()
    assert run.did == []


def test_a_second_delivery_is_told_of_the_first(cluster: Cluster, tmp_path: Path):
    import datetime as dt

    now = dt.datetime.now(dt.UTC).strftime(deploy.TIME)
    lease = {"holderIdentity": "other-7", "leaseDurationSeconds": 120, "renewTime": now}
    cluster.objects["lease", deliver.LEASE] = {"metadata": {"resourceVersion": "1"}, "spec": lease}
    run = Run(cluster, {}, tmp_path)
    with pytest.raises(Stopped, match=r"another deploy \(other-7\) is at work"):
        run.run()
    assert "deploy" not in run.did


def test_an_older_commit_is_refused_before_anything_is_built(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(provenance, "relation", lambda *_: Relation.OLDER)
    delivered(cluster, Verdict.DELIVERED)
    run = Run(cluster, {}, tmp_path)
    with pytest.raises(Stopped, match="older than commit1, which was delivered last: add --allow-older"):
        run.run()
    assert run.did == []


def test_a_candidate_that_was_sent_home_is_recorded_and_the_deployment_stays(
    cluster: Cluster, restored: list[int], tmp_path: Path
):
    run = Run(cluster, {}, tmp_path)
    run.refusals = ["the rollout sent late v2 home: error rate"]
    found = run.run()
    assert (found.verdict, found.stands) == (Verdict.CANDIDATE_REFUSED, True)
    assert not run.board.ok and restored == []
