"""What a push may do, what reaches its commands, why it was red, and where its time went."""

import pytest

from flightdeck.delivery.remote.environment import clean
from flightdeck.delivery.remote.gate import key_of, labels
from flightdeck.delivery.remote.keeper import ASKER_GONE, NOT_STARTED, TOO_LONG
from flightdeck.delivery.remote.leadtime import Stage, gates, shortens, table
from flightdeck.delivery.remote.refusal import enough, why
from flightdeck.delivery.remote.updates import MOST_CHECKED, Found, Kind, Update, parse, rule, too_many

OLD, NEW, ZERO = "1" * 40, "2" * 40, "0" * 40
GOOD = Found(NEW, "3" * 40)
RED = {"gate": "check", "took_s": 3, "findings": [{"what": "lint", "do": "make format"}]}


@pytest.mark.parametrize(
    ("ref", "kind", "name"),
    [
        ("refs/heads/main", Kind.MAIN, "main"),
        ("refs/heads/main/x", Kind.BRANCH, "main/x"),
        ("refs/heads/refs/tags/x", Kind.BRANCH, "refs/tags/x"),
        ("refs/tags/main", Kind.TAG, "main"),
        ("refs/notes/x", Kind.OTHER, "refs/notes/x"),
        ("HEAD", Kind.OTHER, "HEAD"),
    ],
)
def test_a_ref_is_what_its_folder_says(ref, kind, name):
    update = Update(OLD, NEW, ref)
    assert (update.kind, update.name) == (kind, name) or (kind is Kind.BRANCH and update.kind is kind)


def test_a_ref_may_hold_what_is_no_space():
    assert parse([f"{ZERO} {NEW} refs/heads/$(x);y\n"]) == (Update(ZERO, NEW, "refs/heads/$(x);y"),)
    with pytest.raises(ValueError, match="not `old new ref`"):
        parse(["nonsense\n"])


def test_main_only_moves():
    assert "cannot be deleted" in rule(Update(OLD, ZERO, "refs/heads/main"), Found(None, None)).refused
    assert not rule(Update(OLD, ZERO, "refs/heads/x"), Found(None, None)).checks
    assert rule(Update(OLD, NEW, "refs/heads/main"), GOOD).checks


def test_whatever_comes_is_checked_and_nothing_else_comes():
    for ref in ("refs/heads/main", "refs/heads/x", "refs/tags/x"):
        assert rule(Update(ZERO, NEW, ref), GOOD).checks
        assert rule(Update(ZERO, NEW, ref), Found(None, None)).refused
    assert rule(Update(ZERO, NEW, "refs/notes/x"), GOOD).refused
    assert ".venv" in rule(Update(ZERO, NEW, "refs/heads/x"), Found(NEW, "3" * 40, tracks=(".venv",))).refused


def test_what_leaves_a_branch_is_told():
    assert "forced: 2 commit(s) leave main" in rule(Update(OLD, NEW, "refs/heads/main"), Found(NEW, "3", 2)).says[0]


def test_one_push_asks_for_a_bounded_ci():
    assert not too_many(["a"] * MOST_CHECKED)
    assert str(MOST_CHECKED) in too_many(["a"] * (MOST_CHECKED + 1))


def test_only_the_pushers_own_variables_reach_a_command():
    found = clean(
        {"GIT_DIR": ".", "GIT_QUARANTINE_PATH": "q", "MAKEFLAGS": "j", "VENV": "/x", "PATH": "p", "GITHUB": "g"}, A="b"
    )
    assert found == {"PATH": "p", "GITHUB": "g", "A": "b", "PYTHONUNBUFFERED": "1"}


def test_labels_come_with_the_push():
    given = {
        "GIT_PUSH_OPTION_COUNT": "3",
        "GIT_PUSH_OPTION_0": "label=b",
        "GIT_PUSH_OPTION_1": "x",
        "GIT_PUSH_OPTION_2": "label=a",
    }
    assert labels(given) == ("a", "b")
    assert labels({}) == ()


def test_a_tree_is_judged_beside_a_card_and_labels(tmp_path, monkeypatch):
    monkeypatch.delenv("FLIGHTDECK_CHAMPION_CARD", raising=False)
    card = tmp_path / "card"
    none = key_of("t", card, ())
    card.write_text("1")
    keys = {none, key_of("t", card, ()), key_of("t", card, ("a",)), key_of("u", card, ())}
    monkeypatch.setenv("FLIGHTDECK_CHAMPION_CARD", "other")
    assert len(keys | {key_of("t", card, ())}) == 5


def test_only_the_first_gate_ends_ci_early():
    assert enough([RED])
    assert not enough([{**RED, "findings": []}, {**RED, "gate": "models"}])


def said(code, last="", outcomes=()):
    return "\n".join(why(code=code, took_s=5, outcomes=outcomes, last=last, limit_s=60))


def test_a_refusal_names_the_gate_and_what_to_do():
    assert "gate check is red after 3 s\n  lint\n    do: make format" in said(1, outcomes=[RED])
    assert "did not run" in said(ASKER_GONE, outcomes=[RED])
    assert "within 1 minutes" in said(TOO_LONG)
    assert "install make" in said(NOT_STARTED)
    assert "no target `ci`" in said(2, "make: *** No rule to make target 'ci'.  Stop.")


def test_a_refusal_without_an_outcome_shows_the_end_of_the_log_and_the_innermost_target():
    last = "x.py:1: E501\nmake[1]: *** [Makefile:88: lint] Error 1\nmake: *** [Makefile:9: ci] Error 2\n"
    assert said(2, last).startswith("`make lint` failed (exit code 2)")
    assert "x.py:1: E501" in said(2, last)
    assert said(2, "make: *** [Makefile:46: /x/.venv/.dev] Error 1\n").startswith("CI failed (exit code 2)")


def test_what_the_gates_do_not_account_for_is_a_stage():
    assert gates([{"gate": "check", "took_s": 4}], 10) == [Stage("CI: check", 4), Stage("CI: all else", 6)]
    assert gates([{"gate": "check", "took_s": 4}], 4) == [Stage("CI: check", 4)]
    assert gates([], 3) == [Stage("CI", 3)]


def test_the_three_longest_come_with_what_would_shorten_them():
    stages = [Stage("a", 1), Stage("CD: training", 300), Stage("CI: check", 100), Stage("CD: rollout", 200)]
    lines = table(stages, 601)
    assert [line.split(";")[0] for line in lines[-3:]] == [
        "1. longest: CD: training",
        "2. longest: CD: rollout",
        "3. longest: CI: check",
    ]
    assert "10 min 01 s" in lines[4]
    assert "fewer trials" in lines[-3]
    assert shortens("something else")
