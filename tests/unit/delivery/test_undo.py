"""An undo deploys what was recorded, and refuses what is no longer there before anything is touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from flightdeck.cluster import champion
from flightdeck.cluster.target import How, Target
from flightdeck.contracts.ledger import Verdict
from flightdeck.contracts.release import Release
from flightdeck.delivery import deliver, ledger, undo, users
from flightdeck.delivery.deliver import Asked, Stopped
from flightdeck.delivery.rollout import Result
from flightdeck.delivery.undo import STAGES, Undo
from flightdeck.progress import Board, Stage
from tests.unit.delivery.records import record, release
from tests.unit.delivery.test_deliver import MANIFESTS, Cluster, records_of

OLD, NEW = "r/predictor@sha256:old", "r/predictor@sha256:new"


class Run(Undo):
    """An undo of which only waiting and asking users are left out."""

    def __init__(self, folder: Path, number: int | None) -> None:
        super().__init__(folder, Board(list(STAGES), Console(quiet=True)), Asked(wait_s=0), number=number)
        self.up.aim = self._aim  # type: ignore[method-assign]

    def _aim(self) -> None:
        self.up.target, self.up.overlay = Target("kind-test", How.EXISTING), "kind"

    def ready(self, stage: Stage) -> None:
        """Nothing to wait for."""

    def smoke(self, stage: Stage) -> None:
        """Nobody to ask."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(undo, "Kubectl", lambda context: found)
    other = [{"kind": "Deployment", "metadata": {"name": "y", "namespace": "flightdeck-platform"}}]
    one = record(1, images={"flightdeck/predictor": OLD}, manifests=ledger.digest(MANIFESTS))
    two = record(2, images={"flightdeck/predictor": NEW}, manifests=ledger.digest(other), previous=one.sha256)
    ledger.append(found, "flightdeck-platform", one, MANIFESTS)  # type: ignore[arg-type]
    ledger.append(found, "flightdeck-platform", two, other)  # type: ignore[arg-type]
    return found


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found: list[Any] = []

    def apply(kubectl: object, overlay: str, documents: list[Any], **_: object) -> list[str]:
        found.extend(documents)
        return ["x"]

    monkeypatch.setattr(undo.overlays, "apply", apply)
    return found


def test_what_a_registry_lost_is_named_and_nothing_is_touched(
    cluster: Cluster, applied: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(
        undo.there, "missing", lambda wanted: {OLD: "the registry answers 404"} if OLD in wanted else {}
    )
    with pytest.raises(Stopped, match=r"delivery 1 cannot be deployed again; nothing was changed:\n.*old: the reg"):
        Run(tmp_path, None).run()
    assert applied == [] and len(records_of(cluster)) == 2
    assert ("lease", deliver.LEASE) not in cluster.objects


def test_the_manifests_images_and_releases_of_then_come_back_as_another_record(
    cluster: Cluster, applied: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    asked: list[Release] = []

    def ask_for(kubectl: object, model: str, wanted: Release, **_: object) -> Result:
        asked.append(wanted)
        return Result(release(2), "sent home", refused="the rollout sent it home")

    monkeypatch.setattr(undo.there, "missing", lambda wanted: {})
    monkeypatch.setattr(champion, "serving", lambda *_: release(2))
    monkeypatch.setattr(undo.rollout, "ask_for", ask_for)
    monkeypatch.setattr(users, "smoke", lambda *_: ["answers"])
    monkeypatch.setattr(users, "way", lambda _: Way())
    run = Run(tmp_path, 1)
    run.bodies = [b"{}"]
    found = run.run()
    assert applied == MANIFESTS and asked == [release(1)]
    assert (found.number, found.undoes, found.commit, found.images) == (3, 1, "commit1", {"flightdeck/predictor": OLD})
    assert found.verdict is Verdict.CANDIDATE_REFUSED
    assert found.models["late"].release == release(2) and found.models["late"].made_from is None
    assert ledger.gaps(records_of(cluster)) == []


class Way:
    """An address, for as long as a block runs."""

    def __enter__(self) -> str:
        return "http://127.0.0.1:1"

    def __exit__(self, *_: object) -> None:
        """Nothing."""


def test_an_unknown_delivery_is_told_with_those_that_are_there(cluster: Cluster, tmp_path: Path):
    with pytest.raises(Stopped, match="no delivery 7; there are: 1, 2"):
        Run(tmp_path, 7).run()
