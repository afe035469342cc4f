"""The pre-test's answer on made-up scores."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from flightdeck.contracts.model_spec import Gates, Task, load_model_spec, specs_folder
from flightdeck.contracts.retrain import Answer
from pipelines.gates.metrics import day_numbers
from pipelines.governor.compare import Scored, answer, nothing_to_beat
from pipelines.governor.pretest import smaller

DAYS, ROWS = 20, 100


@pytest.fixture(scope="module")
def gates() -> Gates:
    return load_model_spec(specs_folder() / "late.yaml").gates


@pytest.fixture(scope="module")
def scored() -> Scored:
    """Both models know half of the truth, with noise of their own."""
    generator = np.random.default_rng(3)
    risk = generator.uniform(0.05, 0.6, DAYS * ROWS)
    label = (generator.random(DAYS * ROWS) < risk).astype(float)
    small, champion = (np.clip(risk + generator.normal(0, 0.1, risk.size), 0, 1) for _ in range(2))
    day = np.repeat(np.datetime64("2013-07-01") + np.arange(DAYS), ROWS)
    return Scored(label, day, small, champion, "v3", "a small model", 5000)


def asked(scored: Scored, gates: Gates, min_gain: float = 0.0):
    return answer(Task.CLASSIFICATION, "probability", scored, gates, min_gain=min_gain)


def test_a_champion_that_lost_its_calibration_would_be_beaten_though_its_order_is_right(scored, gates):
    off = dataclasses.replace(scored, champion=np.clip(scored.small + 0.2, 0, 1))
    found = asked(off, gates)
    assert found.answer is Answer.WOULD_WIN
    assert found.gain is not None
    assert found.gain.low > 0
    assert found.small_rmse < found.champion_rmse
    assert "gain +" in found.reason
    assert "AUC" in found.reason


def test_a_champion_that_is_better_would_not_be_beaten(scored, gates):
    worse = dataclasses.replace(scored, small=np.full(scored.label.size, 0.9))
    assert asked(worse, gates).answer is Answer.WOULD_NOT


def test_a_model_as_good_as_the_champion_does_not_win(scored, gates):
    assert asked(dataclasses.replace(scored, small=scored.champion), gates).answer is Answer.WOULD_NOT


def test_two_of_which_each_has_its_own_bad_days_cannot_be_told_apart(scored, gates):
    odd = (day_numbers(scored.day)[0] % 2).astype(bool)
    off = 0.4 * np.ones(scored.label.size)
    found = asked(dataclasses.replace(scored, small=np.where(odd, off, 0.1), champion=np.where(odd, 0.1, off)), gates)
    assert found.answer is Answer.CANNOT_TELL
    assert found.gain is not None
    assert found.gain.low < 0 < found.gain.high


def test_a_gain_below_the_one_that_pays_does_not_win(scored, gates):
    off = dataclasses.replace(scored, champion=np.clip(scored.small + 0.2, 0, 1))
    assert asked(off, gates, min_gain=0.3).answer is Answer.WOULD_NOT


@pytest.mark.parametrize("change", ["days", "nan", "empty"])
def test_what_cannot_be_computed_cannot_be_told(scored, gates, change):
    rows = {"days": slice(0, 4 * ROWS), "nan": slice(None), "empty": slice(0, 0)}[change]
    names = ("label", "day", "small", "champion")
    part = dataclasses.replace(scored, **{name: getattr(scored, name)[rows].copy() for name in names})
    if change == "nan":
        part.champion[7] = np.nan
    found = asked(part, gates)
    assert found.answer is Answer.CANNOT_TELL
    assert found.gain is None
    assert found.reason


def test_a_regression_is_compared_in_its_unit(scored, gates):
    minutes = dataclasses.replace(
        scored, label=scored.label * 60, small=scored.label * 60 + 5, champion=scored.label * 60 - 20
    )
    found = answer(Task.REGRESSION, "min", minutes, gates, min_gain=1.0)
    assert found.answer is Answer.WOULD_WIN
    assert found.gain.value == pytest.approx(15)
    assert " min at 95%" in found.reason


def test_without_a_champion_there_is_nothing_to_beat():
    assert nothing_to_beat().answer is Answer.WOULD_WIN


def test_a_sample_keeps_the_share_of_rows_in_a_leaf_but_never_too_few():
    params = {"min_samples_leaf": 2000, "learning_rate": 0.1}
    assert smaller(params, 0.2) == {"min_samples_leaf": 400, "learning_rate": 0.1}
    assert smaller(params, 0.001)["min_samples_leaf"] == 20
    assert smaller({"max_iter": 9}, 0.1) == {"max_iter": 9}
