"""Which replicas to start and stop, and the two files between controller and keeper."""

from __future__ import annotations

from pathlib import Path

import pytest

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import ModelRef, Release
from flightdeck.lab.envoy import Endpoint
from flightdeck.lab.rollout.replicas import (
    OBSERVED,
    WANTED,
    ObservedReplicas,
    ReleaseSeen,
    ReplicaSeen,
    observed_of,
    release_id,
    to_do,
    want,
    wanted,
)
from flightdeck.lab.stack import Replica
from flightdeck.lab.users import write_atomically


def release(image: str) -> Release:
    ref = ModelRef(name="late", version="1", sha256="0" * 64)
    return Release(image=image, model=ref, feature_service="late_v1")  # type: ignore[call-arg]


A, B = release("a"), release("b")


def replicas(of: Release, *numbers: int) -> list[Replica]:
    return [Replica(of, number, 8100 + number) for number in numbers]


def test_what_is_wanted_and_not_there_starts_and_what_is_there_and_not_wanted_stops():
    todo = to_do([(A, 3), (B, 2)], [*replicas(A, 1, 2, 3), *replicas(B, 2)], room=9)
    assert (todo.start, todo.stop) == (((B, 1),), ())
    todo = to_do([(B, 2)], [*replicas(A, 1, 2), *replicas(B, 1, 2)], room=9)
    assert (todo.start, todo.stop) == ((), (f"late-{A.id}-1", f"late-{A.id}-2"))


def test_fewer_replicas_keep_the_lowest_numbers():
    assert to_do([(A, 1)], replicas(A, 1, 2, 3), room=9).stop == (f"late-{A.id}-2", f"late-{A.id}-3")


@pytest.mark.parametrize(("room", "started"), [(2, 2), (0, 0), (-1, 0), (9, 3)])
def test_no_more_start_at_a_time_than_there_is_room_for(room: int, started: int):
    assert len(to_do([(A, 3)], [], room=room).start) == started


def test_stopping_waits_for_no_room():
    assert to_do([], replicas(A, 1), room=0).stop == (f"late-{A.id}-1",)


def test_when_all_is_as_wanted_there_is_nothing_to_do():
    assert to_do([(A, 2)], replicas(A, 1, 2), room=9) == to_do([], [], room=9)


def test_a_replica_names_its_release():
    assert release_id(Replica(A, 2, 8101).name) == A.id
    assert release_id("predictor-1") == release_id("late-1") == release_id("") == ""


def test_the_wanted_file_says_all_and_is_written_only_when_it_says_something_new(tmp_path: Path):
    layout = StateLayout(tmp_path)
    assert wanted(layout) is None, "nobody has said anything: leave all as it is"
    want(layout, [(A, 3), (B, 0)])
    path = layout.run / WANTED
    inode = path.stat().st_ino
    want(layout, [(A, 3)])
    assert path.stat().st_ino == inode
    assert wanted(layout) == [(A, 3)]
    want(layout, [])
    assert wanted(layout) == []


@pytest.mark.parametrize("content", ["", "{", '{"wanted":[{"release":{"image":"a"},"replicas":1}]}'])
def test_a_wanted_file_that_cannot_be_read_stops_nothing(tmp_path: Path, content: str):
    layout = StateLayout(tmp_path)
    layout.run.mkdir()
    (layout.run / WANTED).write_text(content)
    assert wanted(layout) is None


def test_what_was_seen_comes_back_and_an_old_file_says_nothing(tmp_path: Path):
    layout = StateLayout(tmp_path)
    layout.run.mkdir()
    seen = ReleaseSeen(
        [ReplicaSeen("late-a-1", 8101, 7, True), ReplicaSeen("late-a-2", 8102, None, False, "dead")], 2, 1
    )
    write_atomically(layout.run / OBSERVED, ObservedReplicas(100.0, {A.id: seen}))
    assert observed_of(layout, A, now_s=101.0) == seen
    assert seen.ready == (Endpoint("late-a-1", 8101),)
    assert observed_of(layout, A, now_s=200.0) == ReleaseSeen(), "its writer is gone"
    assert observed_of(layout, B, now_s=101.0) == observed_of(layout, None, now_s=101.0) == ReleaseSeen()
