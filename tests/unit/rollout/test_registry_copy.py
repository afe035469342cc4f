"""What the copy in a model registry shall say, and what is written when it says something else."""

from __future__ import annotations

from typing import Any

import pytest

from flightdeck.contracts.release import ModelRef, Release
from pipelines.registry.versions import ALIAS_WRITER_ENV, NotPromotable, promote
from services.rollout_operator.kube.registry import AWAY_S, REPEAT_S, Copies, RegistryRefused
from services.rollout_operator.kube.warnings import warning
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.registry_copy import Copy, Found, Point, Tag, Write, copy_of, writes


def release(version: str, code: str = "code") -> Any:
    model = ModelRef(name="late", version=version, sha256=version * 64)
    found = Release.model_validate({"image": code, "model": model, "featureService": "late_v1"})
    return found.model_dump(mode="json", by_alias=True, exclude_none=True)


def id_of(document: Any) -> str:
    return Release.model_validate(document).id


def made(status: dict[str, Any]) -> Copy:
    found = copy_of(status)
    assert found is not None
    return found


def told(copy: Copy) -> Found:
    """A registry that says what the copy says."""
    tags = {version: {"sha256": part.sha256, **part.tags} for version, part in copy.parts.items()}
    return Found(copy.champion, tags)


SERVES = {"phase": "done", "champion": release("2")}


def test_nothing_is_said_before_any_release_has_a_part():
    assert copy_of({}) is None and copy_of({"phase": "done", "conditions": []}) is None


def test_each_release_has_its_part_with_time_and_reason_of_the_history():
    history = [
        {"candidate": id_of(release("2")), "source": "promoting", "target": "done", "at": "T1", "reason": "won"},
        {"candidate": id_of(release("3")), "source": "aborting", "target": "aborted", "at": "T2", "reason": "lost"},
        {"candidate": id_of(release("4")), "source": "shadow", "target": "canary", "at": "T3", "reason": "passed"},
        {"candidate": id_of(release("4")), "source": "canary", "target": "canary", "at": "T4", "reason": "no effect"},
    ]
    status = {**SERVES, "phase": "canary", "candidate": release("4"), "refused": release("3"), "history": history}
    parts = made(status).parts
    seen = {
        version: (it.tags["rollout"], it.tags["rollout_since_utc"], it.tags["rollout_reason"])
        for version, it in parts.items()
    }
    assert seen == {
        "2": ("champion", "T1", "won"), "3": ("aborted", "T2", "lost"), "4": ("canary", "T3", "passed"),
    }  # fmt: skip


def test_new_code_around_the_same_version_leaves_it_champion():
    copy = made({**SERVES, "phase": "shadow", "candidate": release("2", "newer")})
    assert copy.parts["2"].tags["rollout"] == "champion"
    assert copy.parts["2"].tags["rollout_release"] == id_of(release("2"))


def test_a_first_rollout_moves_no_alias():
    copy = made({"phase": "promoting", "candidate": release("1")})
    assert copy.champion is None
    todo, _ = writes(copy, Found("7", {"1": {"sha256": "1" * 64}}))
    assert todo and not [it for it in todo if isinstance(it, Point)]


def test_what_agrees_is_not_written_again_even_when_the_history_forgot():
    history = [{"candidate": id_of(release("2")), "source": "promoting", "target": "done", "at": "T", "reason": "w"}]
    assert writes(made(SERVES), told(made({**SERVES, "history": history}))) == ([], [])


def test_the_role_is_the_last_tag_so_that_a_broken_off_copy_begins_again():
    copy = made(SERVES)
    todo, _ = writes(copy, Found(None, {"2": {"sha256": "2" * 64}}))
    assert todo[0] == Point("2") and todo[-1] == Tag("2", "rollout", "champion")
    for done in range(1, len(todo)):
        tags = {"sha256": "2" * 64} | {it.key: it.value for it in todo[:done] if isinstance(it, Tag)}
        again, _ = writes(copy, Found("2", {"2": tags}))
        assert again == todo[done:], f"after {done} of {len(todo)} writes"


def test_only_one_version_claims_to_be_champion_and_none_to_be_under_way():
    claims = {"1": "champion", "3": "canary", "4": "aborted", "5": "retired"}
    found = told(made(SERVES))
    found.tags.update({version: {"rollout": role} for version, role in claims.items()})
    todo, _ = writes(made(SERVES), found)
    assert todo == [Tag("1", "rollout", "retired"), Tag("3", "rollout", "withdrawn")]


@pytest.mark.parametrize(("tags", "words"), [(None, "no version 2"), ({"sha256": "f" * 64}, "nothing is written")])
def test_a_version_that_is_not_there_or_is_other_bytes_is_told_and_not_pointed_to(tags, words):
    todo, troubles = writes(made(SERVES), Found("1", {"2": tags} if tags else {}))
    assert todo == [] and len(troubles) == 1 and words in troubles[0]


def test_where_the_operator_writes_the_alias_a_pipeline_is_refused_before_anything_is_asked(monkeypatch):
    monkeypatch.setenv(ALIAS_WRITER_ENV, "rollout-operator")
    with pytest.raises(NotPromotable, match="written by the rollout-operator here"):
        promote(ModelRef(name="late", version="1", sha256="1" * 64), tracking_uri="http://127.0.0.1:1")


class Broken:
    """A registry that fails as it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.looks: list[str] = []

    def find(self, copy: Copy) -> Found:
        self.looks.append(copy.model)
        if self.error:
            raise self.error
        return told(copy)

    def write(self, model: str, what: Write) -> None:
        raise AssertionError(f"all agrees, yet {what} is written")


def rollout(name: str) -> dict[str, Any]:
    meta = {"name": name, "uid": "0123456789", "namespace": "n"}
    return {"apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout", "metadata": meta, "status": SERVES}


def test_many_idle_rollouts_are_each_looked_at_once_in_ten_minutes():
    registry, now_s = Broken(), [0.0]
    copies = Copies(registry, lambda *_: None, lambda: now_s[0])
    for tick in range(600):
        now_s[0] = float(tick)
        for number in range(20):
            copies.keep(f"r{number}", rollout(f"r{number}"))
        copies.step()
    assert len(registry.looks) == 20
    now_s[0] = REPEAT_S
    copies.step()
    assert len(registry.looks) == 40


def test_while_it_is_away_all_rollouts_wait_together_and_one_refusal_holds_up_no_other():
    registry, now_s, words = Broken(), [0.0], []
    copies = Copies(registry, lambda it, why: words.append((it["metadata"]["name"], why)), lambda: now_s[0])
    registry.error = Unavailable("away")
    for number in range(20):
        copies.keep(f"r{number}", rollout(f"r{number}"))
    assert copies.step() == AWAY_S and len(registry.looks) == 1 and not words
    registry.error = RegistryRefused("not so")
    now_s[0] += AWAY_S
    copies.step()
    assert [name for name, _ in words] == [f"r{number}" for number in range(20)]
    registry.error = ValueError("a bug")
    now_s[0] += REPEAT_S
    copies.step()
    assert len(words) == 40 and "a bug" in words[-1][1], "the thread goes on"


def test_a_rollout_that_went_is_forgotten():
    registry, now_s = Broken(), [0.0]
    copies = Copies(registry, lambda *_: None, lambda: now_s[0])
    copies.keep("late", rollout("late"))
    copies.forget("late")
    assert copies.step() == REPEAT_S and not registry.looks


def test_an_event_has_one_name_per_key():
    one, two = (warning(rollout("late"), "RegistryCopy", "words", key, 0.0) for key in ("a", "b"))
    assert one["metadata"]["name"] != two["metadata"]["name"]
    assert one["metadata"]["name"] == warning(rollout("late"), "RegistryCopy", "others", "a", 9.0)["metadata"]["name"]
    assert one["type"] == "Warning" and one["involvedObject"]["uid"] == "0123456789"
