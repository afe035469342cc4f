"""The files of a rollout: what survives a kill, and what two writers may do at once."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flightdeck.contracts.release import ModelRef, Release
from flightdeck.contracts.rollout import InvalidRollout, ModelRollout
from flightdeck.lab.rollout import store as files
from flightdeck.lab.rollout.store import BrokenFile, Look, NoRollout, Status, Store
from services.rollout_operator.plan import Order, OrderKind, Phase, State, Transition
from services.rollout_operator.verdict import Judgement, MetricVerdict, Verdict


def release(version: int) -> Release:
    model = ModelRef(name="late", version=str(version), sha256=f"{version:064x}")
    return Release(image="1a2b3c4d", model=model, feature_service="late_v1")


def rollout(version: int = 1, name: str = "late", **changes: Any) -> ModelRollout:
    spec = {
        "release": release(version).model_dump(by_alias=True), "replicas": 3,
        "plan": [{"canary": {"weight": 10, "deadline": "10m"}}], "judge": {"margins": {"errorRate": 0.01}},
        "onDeadline": "abort", "onNoData": "hold", "onNewRelease": "queueNewest",
    }  # fmt: skip
    content = {"apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout", "metadata": {"name": name}}
    return ModelRollout.model_validate({**content, "spec": spec | changes})


def entry(serial: int, target: Phase = Phase.SHADOW, at_s: float = 5.0) -> Transition:
    return Transition(
        serial, at_s, Phase.PENDING, target, 0, release(1).id, release(2).id, "3 of 3 ready", "controller"
    )


METRIC = MetricVerdict("errorRate", Verdict.WATCHING, True, 0.01, 0.0, None, 0.02, 400, "errorRate is not decided")
JUDGEMENT = Judgement(Verdict.WATCHING, "errorRate is not decided", (METRIC,))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    found = Store(tmp_path / "rollouts")
    found.apply(rollout(), "ann@desk")
    return found


def torn(path: Path) -> None:
    """As a kill in the middle of a write leaves it."""
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines()[-1][:20])


def test_applying_tells_what_it_changed_and_remembers_who(store: Store):
    assert store.apply(rollout(), "ann@desk") == "unchanged"
    assert store.apply(rollout(2), "bob@desk", "the pipeline's newest") == "configured"
    assert store.apply(rollout(name="minutes"), "ann@desk") == "created"
    assert store.names() == ["late", "minutes"]
    assert store.wanted("late") == rollout(2)
    assert [(it.who, it.what, it.note) for it in store.applied("late")] == [
        ("ann@desk", "created", ""), ("bob@desk", "configured", "the pipeline's newest"),
    ]  # fmt: skip


def test_an_unknown_name_is_answered_with_the_known_ones(store: Store, tmp_path: Path):
    for ask in (store.wanted, store.read_status, store.history, store.looks, store.load_evidence):
        with pytest.raises(NoRollout, match=r"no rollout 'early' in .*; there are: late"):
            ask("early")
    with pytest.raises(NoRollout, match="there are none yet; see `flightdeck rollout apply`"):
        Store(tmp_path / "nowhere").wanted("late")
    with pytest.raises(NoRollout):
        store.order("../late", Order(OrderKind.ABORT, "ann"))


def test_a_wanted_file_that_was_edited_into_nonsense_is_named(store: Store):
    (store.root / "late" / files.WANTED).write_text("spec: {}")
    with pytest.raises(InvalidRollout, match=r"wanted\.yaml"):
        store.wanted("late")


def test_orders_are_numbered_and_each_is_seen_once(store: Store):
    orders = [Order(OrderKind.PAUSE, "ann"), Order(OrderKind.RESUME, "bob", "looked at it")]
    assert [store.order("late", order) for order in orders] == [1, 2]
    assert store.orders_after("late", 0) == [(1, orders[0]), (2, orders[1])]
    assert store.orders_after("late", 1) == [(2, orders[1])]
    assert store.orders_after("late", 2) == []


def test_orders_of_many_people_at_once_get_numbers_without_gap(store: Store):
    def many() -> None:
        for _ in range(10):
            store.order("late", Order(OrderKind.RETRY, "ann"))

    people = [threading.Thread(target=many) for _ in range(4)]
    for person in people:
        person.start()
    for person in people:
        person.join()
    assert [number for number, _ in store.orders_after("late", 0)] == list(range(1, 41))


def test_an_order_that_a_kill_tore_is_none_and_does_not_spoil_the_next(store: Store):
    store.order("late", Order(OrderKind.PAUSE, "ann"))
    torn(store.root / "late" / files.ORDERS)
    assert len(store.orders_after("late", 0)) == 1
    assert store.order("late", Order(OrderKind.ABORT, "ann")) == 2
    assert [order.kind for _, order in store.orders_after("late", 0)] == [OrderKind.PAUSE, OrderKind.ABORT]


def test_a_status_comes_back_as_it_was_written(store: Store):
    assert store.read_status("late") is None
    state = State(Phase.CANARY, 10.0, 5.0, champion=release(1), candidate=release(2), step=0, serial=4)
    status = Status("late", state, JUDGEMENT, "kind: ModelRollout", 10, releases=[release(1)], orders_done=3)
    store.write_status(status)
    assert store.read_status("late") == status


def test_a_status_that_cannot_be_read_is_no_empty_status(store: Store):
    (store.root / "late" / files.STATUS).write_text('{"name": 1}')
    with pytest.raises(BrokenFile, match=r"status\.json"):
        store.read_status("late")


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file_whole(store: Store, monkeypatch: pytest.MonkeyPatch):
    store.write_status(Status("late", weight=10))
    store.save_evidence("late", 5.0, {"predictions": "7-0"}, b"old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", killed)
    for write in (
        lambda: store.write_status(Status("late", weight=50)),
        lambda: store.save_evidence("late", 5.0, {"predictions": "9-0"}, b"new"),
        lambda: store.apply(rollout(2), "ann"),
    ):
        with pytest.raises(KeyboardInterrupt):
            write()
    status, evidence = store.read_status("late"), store.load_evidence("late")
    assert status
    assert evidence
    assert (status.weight, evidence.dump, evidence.cursors) == (10, b"old", {"predictions": "7-0"})
    assert store.wanted("late") == rollout(1)


def test_the_history_does_not_hold_an_entry_twice(store: Store):
    store.record("late", [entry(1), entry(2)])
    store.record("late", [entry(1), entry(2), entry(3)])
    assert store.history("late") == [entry(1), entry(2), entry(3)]


def test_a_decision_that_was_taken_anew_after_a_kill_replaces_the_one_without_effect(store: Store):
    store.record("late", [entry(1), entry(2), entry(3)])
    store.record("late", [entry(2, Phase.ABORTING, at_s=6.0)])
    assert store.history("late") == [entry(1), entry(2, Phase.ABORTING, at_s=6.0)]


def test_a_history_with_a_torn_last_line_goes_on(store: Store):
    store.record("late", [entry(1)])
    torn(store.root / "late" / files.HISTORY)
    assert store.history("late") == [entry(1)]
    store.record("late", [entry(2)])
    assert store.history("late") == [entry(1), entry(2)]


def test_looks_are_kept_but_not_without_bound(store: Store, monkeypatch: pytest.MonkeyPatch):
    looks = [Look(float(at), 1.0, Phase.CANARY, 0, 10, JUDGEMENT) for at in range(40)]
    monkeypatch.setattr(files, "LOOKS_BYTES", 10 * len(msgspec.json.encode(looks[0])))
    for look in looks:
        store.look("late", look)
    found = store.looks("late")
    assert found == looks[-len(found) :]
    assert 10 <= len(found) <= 22
    torn(store.root / "late" / files.LOOKS)
    assert store.looks("late") == found


def test_evidence_of_another_version_begins_anew(store: Store):
    assert store.load_evidence("late") is None
    for broken in (b"", b"\x93", b"\x80"):
        (store.root / "late" / files.EVIDENCE).write_bytes(broken)
        assert store.load_evidence("late") is None


def test_any_torn_end_of_a_line_file_is_survived(store: Store):
    store.record("late", [entry(1), entry(2)])
    path = store.root / "late" / files.HISTORY
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for end in itertools.chain(range(first), range(first, len(whole), 7)):
        path.write_bytes(whole[:end])
        assert store.history("late") == [entry(1)][: end >= first]
        store.record("late", [entry(2)])
        assert store.history("late")[-1] == entry(2)
