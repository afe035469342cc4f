"""What a delivery asks a ModelRollout for, and what it says when the rollout ends otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from flightdeck.cluster.champion import Version
from flightdeck.contracts.release import Release
from flightdeck.delivery import rollout
from flightdeck.delivery.rollout import Result
from services.rollout_operator.remembered import Status
from services.rollout_operator.state import Phase, State
from tests.unit.delivery.records import release

CODE = release(1, "b").image


class Cluster:
    """Stands for kubectl: one ModelRollout and one PodTemplate."""

    def get(self, kind: str, *_: str) -> dict[str, Any]:
        pod = {"spec": {"containers": [{"name": "predictor", "image": CODE}]}}
        if kind == "podtemplate":
            return {"metadata": {"name": "predictor"}, "template": pod}
        return {"metadata": {"name": "late", "namespace": "n"}, "status": {"reason": "error rate 4 %"}}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Release]:
    """Releases that were asked for; every rollout ends well unless a test says otherwise."""
    found: list[Release] = []
    monkeypatch.setattr(rollout.champion, "want", lambda kubectl, of, wanted: found.append(wanted))
    monkeypatch.setattr(rollout.champion, "refuse_unapproved", lambda *_: None)
    monkeypatch.setattr(rollout.kubectl_watch, "follow", lambda *_: 0)
    return found


def stands(
    monkeypatch: pytest.MonkeyPatch, champion: Release, *, refused: Release | None = None, were: Sequence[Release] = ()
) -> None:
    state = State(Phase.DONE, 0.0, 0.0, champion=champion, refused=refused)
    monkeypatch.setattr(rollout, "remembered", lambda *_: Status("late", state, releases=[champion, *were]))
    monkeypatch.setattr(rollout.champion, "serving", lambda *_: champion)


def handed(*versions: int) -> Result:
    found = [
        Version(it, f"{it:064d}", "PROMOTE", "late_v1", f"r/m@sha256:{it:064d}", "", rollout_approval())
        for it in versions
    ]
    return rollout.hand_over(
        Cluster(), "late", found, host="", bodies=lambda: [b"{}"], rate_per_s=0, timeout_s=1,  # type: ignore[arg-type]
        say=lambda _: None, count=lambda *_: None,
    )  # fmt: skip


def rollout_approval() -> Any:
    from flightdeck.contracts.release import Approval

    return Approval.model_validate({"cardSha256": "0" * 64, "signature": "0" * 128})


def test_new_code_alone_is_handed_over_with_the_model_that_serves(
    asked: list[Release], monkeypatch: pytest.MonkeyPatch
):
    stands(monkeypatch, release(1, "a"))
    assert not handed(1).refused
    assert [(it.image, it.model) for it in asked] == [(CODE, release(1).model)]


def test_a_newer_version_goes_with_the_new_code(asked: list[Release], monkeypatch: pytest.MonkeyPatch):
    stands(monkeypatch, release(1, "a"))
    handed(2, 1)
    assert [(it.image, it.model.version) for it in asked] == [(CODE, "2")]


def test_what_serves_already_is_not_asked_for_again(asked: list[Release], monkeypatch: pytest.MonkeyPatch):
    stands(monkeypatch, release(1, "b"))
    assert "serves already" in handed(1).words and asked == []


def test_what_was_sent_home_is_not_tried_again_by_itself(asked: list[Release], monkeypatch: pytest.MonkeyPatch):
    stands(monkeypatch, release(1, "a"), refused=release(1, "b"))
    result = handed(1)
    assert "kubectl flightdeck retry late" in result.refused and asked == []


@pytest.mark.parametrize(("code", "refused", "open_"), [(1, True, False), (124, False, True)])
def test_how_it_ended_is_told(
    asked: list[Release], monkeypatch: pytest.MonkeyPatch, code: int, refused: bool, open_: bool
):
    stands(monkeypatch, release(1, "a"))
    monkeypatch.setattr(rollout.kubectl_watch, "follow", lambda *_: code)
    result = handed(1)
    assert (bool(result.refused), bool(result.open)) == (refused, open_)
    assert result.release == release(1, "a")
    assert not refused or "error rate 4 %" in result.refused
