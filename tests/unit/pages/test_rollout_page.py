"""What the evidence page marks in its plots."""

from __future__ import annotations

from flightdeck.pages.rollout import changes
from services.rollout_operator.remembered import Look
from services.rollout_operator.state import Phase
from services.rollout_operator.verdict import Judgement, Verdict


def look(at_s: float, phase: Phase, weight: int) -> Look:
    return Look(1000.0 + at_s, 1000.0, phase, 0, weight, Judgement(Verdict.WATCHING, "", ()))


def test_words_of_changes_do_not_lie_upon_each_other():
    shadow, canary = Phase.SHADOW, Phase.CANARY
    looks = [look(0, shadow, 0), look(30, shadow, 0), look(37, canary, 0), look(38, canary, 10), look(80, canary, 50)]
    looks += [look(100, Phase.PROMOTING, 50)]
    assert changes(looks) == [(38.0, "10 %"), (80.0, "50 %"), (100.0, "promoting")]


def test_a_rollout_of_one_look_changes_nothing():
    assert changes([look(0, Phase.SHADOW, 0)]) == []
