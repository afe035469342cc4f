"""The measures against scikit-learn or a figure worked out by hand."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_squared_error, roc_auc_score

from flightdeck.contracts.model_spec import Task
from pipelines.gates.metrics import (
    NotComputable,
    calibration_of,
    interval,
    measure_of,
    point,
    resample,
    separation,
    z_of,
)

CLASSIFY, REGRESS = Task.CLASSIFICATION, Task.REGRESSION


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 9))
def test_auc_by_days_is_the_auc_of_the_rows_for_any_draw_of_days(seed: int, days: int, levels: int):
    generator = np.random.default_rng(seed)
    day = generator.integers(0, days, 200)
    day[:days] = np.arange(days)
    label = (generator.random(200) < 0.4).astype(float)
    label[:2] = [0, 1]
    score = generator.integers(0, levels, 200) / levels  # ties on purpose
    counts = generator.integers(0, 3, days)
    drawn = np.repeat(np.arange(200), counts[day])
    if len(np.unique(label[drawn])) < 2:
        return
    measure = measure_of(CLASSIFY, label, score, day)
    assert point(measure, days) == pytest.approx(roc_auc_score(label, score))
    assert measure.value(counts[None].astype(float))[0] == pytest.approx(roc_auc_score(label[drawn], score[drawn]))


def test_rmse_by_days_is_the_rmse_of_the_rows():
    generator = np.random.default_rng(0)
    label, score, day = generator.normal(size=300), generator.normal(size=300), generator.integers(0, 7, 300)
    assert point(measure_of(REGRESS, label, score, day), 7) == pytest.approx(mean_squared_error(label, score) ** 0.5)


def test_calibration_error_worked_out_by_hand():
    score = np.repeat([0.1, 0.5], 10)
    label = np.array([1] * 2 + [0] * 8 + [1] * 4 + [0] * 6, dtype=float)  # 0.2 and 0.4: off by 0.1 in both halves
    assert point(calibration_of(CLASSIFY, label, score, np.zeros(20, int)), 1) == pytest.approx(0.1)


def test_the_calibration_of_a_regression_is_its_absolute_bias():
    label, score = np.array([0.0, 10.0, 20.0]), np.array([5.0, 5.0, 5.0])
    assert point(calibration_of(REGRESS, label, score, np.zeros(3, int)), 1) == pytest.approx(5)


def test_days_that_differ_widen_the_interval():
    generator = np.random.default_rng(0)
    day = np.repeat(np.arange(20), 100)
    independent = generator.normal(size=2000)
    shared = generator.normal(size=20)[day] + independent
    widths = []
    for error in (independent, shared):
        measure = calibration_of(REGRESS, np.zeros(2000), error + 3, day)
        found = interval(point(measure, 20), measure.value(resample(20, 400)), 0.95)
        widths.append(found.high - found.low)
    assert widths[1] > 3 * widths[0]


def test_two_hundred_rounds_on_twenty_thousand_rows_take_less_than_three_seconds():
    generator = np.random.default_rng(0)
    label, score, day = generator.integers(0, 2, 20_000), generator.random(20_000), generator.integers(0, 28, 20_000)
    started = time.perf_counter()
    measure_of(CLASSIFY, label, score, day).value(resample(28, 200))
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    ("label", "score"),
    [([], []), ([1.0, 0.0], [0.5]), ([1.0, 0.0], [0.5, np.nan]), ([1.0, np.nan], [0.5, 0.5]), ([1.0, 1.0], [0.5, 0.4])],
)
def test_what_cannot_be_measured_is_refused(label: list[float], score: list[float]):
    with pytest.raises(NotComputable):
        measure_of(CLASSIFY, np.array(label), np.array(score), np.zeros(len(label), int))


def test_few_days_give_no_interval():
    with pytest.raises(NotComputable, match="at least 5"):
        resample(4, 100)


def test_an_interval_without_usable_rounds_is_refused():
    with pytest.raises(NotComputable):
        interval(0.5, np.full(100, np.nan), 0.95)


def test_more_comparisons_ask_for_more():
    assert z_of(0.95) == pytest.approx(1.96, abs=0.01)
    assert z_of(0.95, 30) > 3


def test_separation_is_the_auc_of_one_column_and_mirrors():
    generator = np.random.default_rng(0)
    positive, feature = generator.random(500) < 0.3, generator.integers(0, 20, 500).astype(float)
    feature = feature - positive * 5
    expected = 1 - roc_auc_score(positive, feature)
    assert separation(feature, positive) == pytest.approx(expected)
    assert separation(np.ones(500), positive) == 0.5
    feature[:100] = np.nan
    assert separation(feature, positive) == pytest.approx(1 - roc_auc_score(positive[100:], feature[100:]))
