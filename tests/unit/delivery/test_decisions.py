"""What a delivery does, from what is recorded and what is there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flightdeck.contracts.card import Digests
from flightdeck.contracts.ledger import StageTime, TrainingInputs, Verdict
from flightdeck.delivery import decisions
from flightdeck.delivery.decisions import Relation
from tests.unit.delivery.records import INPUTS, chain, record, release

GOOD, REFUSED, BACK = Verdict.DELIVERED, Verdict.CANDIDATE_REFUSED, Verdict.ROLLED_BACK


@pytest.mark.parametrize("relation", [Relation.OLDER, Relation.UNKNOWN])
def test_a_commit_that_may_be_older_is_refused_unless_that_is_meant(relation: Relation):
    assert "--allow-older" in decisions.commit_refusal(relation, "a" * 40, "b" * 40, allow_older=False)
    assert not decisions.commit_refusal(relation, "a" * 40, "b" * 40, allow_older=True)


@pytest.mark.parametrize("relation", [Relation.FIRST, Relation.SAME, Relation.NEWER, Relation.BESIDE])
def test_what_is_surely_not_older_goes_on(relation: Relation):
    assert not decisions.commit_refusal(relation, "a", "b", allow_older=False)


def test_a_force_push_is_told():
    assert "force-push" in decisions.commit_words(Relation.BESIDE, "a" * 40, "b" * 40)
    assert not decisions.commit_words(Relation.NEWER, "a" * 40, "b" * 40)


def test_one_goes_back_to_the_newest_that_stands():
    found = decisions.last_standing(chain(GOOD, REFUSED, BACK, Verdict.FAILED))
    assert found is not None and found.number == 2
    assert decisions.last_standing(chain(BACK)) is None


def test_undo_takes_the_last_that_was_something_else():
    one, two = record(1), record(2)
    again = record(3, manifests=two.manifests, models=two.models)  # the same delivered twice
    assert decisions.to_undo([one, two, again], None).number == 1
    assert decisions.to_undo([one, record(2, BACK), record(3)], None).number == 1
    assert decisions.to_undo([one, two], 2).number == 2


@pytest.mark.parametrize(
    ("number", "words"), [(None, "no earlier delivery"), (9, "no delivery 9; there are: 1"), (2, "it never stood")]
)
def test_undo_refuses_what_never_stood_and_what_is_not_there(number: int | None, words: str):
    with pytest.raises(ValueError, match=words):
        decisions.to_undo([record(1), record(2, BACK)], number)


def test_a_model_is_trained_only_when_what_it_is_made_from_changed():
    assert decisions.retrain_because(INPUTS, INPUTS, serves=True) == ""
    changed = TrainingInputs(code="c", features="F", spec="s", lock="L")
    assert decisions.retrain_because(INPUTS, changed, serves=True) == "features, lock changed since the last training"
    assert "no version may serve" in decisions.retrain_because(INPUTS, INPUTS, serves=False)
    assert "no delivery recorded" in decisions.retrain_because(None, INPUTS, serves=True)


def test_what_this_very_image_made_needs_no_training_though_no_delivery_recorded_it():
    def made(commit: str) -> Digests:
        return Digests(
            git_commit=commit,
            lock_sha256="l",
            spec_sha256="s",
            holdout_sha256="h",
            table_versions={},
            feature_export="x",
        )

    assert decisions.trained_by_image(made("abc"), "abc", INPUTS) == INPUTS
    for card, revision in ((made("abc"), "abd"), (made("abc-dirty"), "abc-dirty"), (made(""), ""), (None, "abc")):
        assert decisions.trained_by_image(card, revision, INPUTS) is None


def test_features_are_built_again_only_when_what_builds_them_changed():
    assert decisions.features_rebuilt(INPUTS, INPUTS.model_copy(update={"features": "F"}))
    assert not decisions.features_rebuilt(INPUTS, INPUTS.model_copy(update={"spec": "S"}))
    assert not decisions.features_rebuilt(None, INPUTS)


def test_the_last_training_is_found_behind_deliveries_that_recorded_none():
    records = [record(1), record(2, BACK, models={})]
    assert decisions.trained_from(records, "late") == INPUTS
    assert decisions.trained_from(records, "delay") is None


def test_code_alone_is_a_candidate_and_what_serves_or_was_sent_home_is_none():
    champion = release(1, "a")
    assert decisions.rollout_needed(release(1, "b"), champion, None) == "rollout"
    assert decisions.rollout_needed(release(1, "a"), champion, None) == ""
    assert decisions.rollout_needed(release(2, "a"), champion, release(2, "a")) == "refused"
    assert decisions.rollout_needed(release(1), None, None) == "first"


def test_a_newer_version_is_asked_for_and_one_that_was_undone_is_not():
    champion, newest = release(1, "a"), release(2, "b")
    assert decisions.asked_release(None, newest, [], "x@sha256:1") == newest
    assert decisions.asked_release(champion, newest, [champion], newest.image) == newest
    undone = decisions.asked_release(champion, newest, [champion, release(2, "a")], newest.image)
    assert (undone.model.version, undone.image) == ("1", newest.image)


def test_a_roll_back_takes_away_what_only_the_failed_delivery_brought_but_never_data():
    def of(kind: str, name: str) -> dict[str, Any]:
        return {"kind": kind, "metadata": {"name": name, "namespace": "n"}}

    before = [of("Deployment", "a")]
    applied = [*before, of("Deployment", "new"), of("PersistentVolumeClaim", "data"), of("StatefulSet", "store")]
    applied += [of("ModelRollout", "m"), of("Namespace", "n"), of("HTTPRoute", "m")]
    assert decisions.surplus(applied, before) == [of("Deployment", "new")]


def test_only_the_very_commit_that_is_good_in_the_environment_before_is_promoted():
    good = record(1)
    assert decisions.promotable([good], "commit1", "dev") == good
    for records, words in (
        ([], "nothing was ever delivered"), ([good], "dev has commit1, this is other"),
        ([good, record(2, BACK)], "was rolled-back"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            decisions.promotable(records, "other", "dev")


def test_the_three_longest_stages_are_named_with_what_would_shorten_them():
    took = [
        StageTime(name=name, seconds=s) for name, s in (("images", 5), ("training", 60), ("rollout", 200), ("load", 20))
    ]
    lines = decisions.timetable(took)
    assert "285.0 s (4.8 minutes)" in lines[4]
    assert [line.split()[0] for line in lines[6:]] == ["rollout", "training", "load"]
    assert all(": unknown" not in line for line in lines)


def test_every_stage_has_words_for_what_would_shorten_it():
    from flightdeck.delivery import deliver, undo

    assert {*deliver.STAGES, *undo.STAGES} <= {*decisions.SHORTER, "there"}


def test_digests_are_taken_whole_or_not_at_all():
    whole = {"digests": {"flightdeck/a": "r/a@sha256:1", "flightdeck/b": "r/b@sha256:2", "other": "x"}}
    assert set(decisions.digests_in(whole, ["a", "b"])) == {"flightdeck/a", "flightdeck/b"}
    with pytest.raises(ValueError, match="no digest of flightdeck/c"):
        decisions.digests_in(whole, ["a", "c"])
    with pytest.raises(ValueError, match="make images"):
        decisions.digests_in(json.loads("{}"), ["a"])
