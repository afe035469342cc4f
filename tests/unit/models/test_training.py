"""Split, missing values, baseline, fit and export on frames small enough to check."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import numpy as np
import onnx
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightdeck.contracts.model_spec import Baseline, ModelSpec, Split, Task
from pipelines.registry.runtime import OnnxModel
from pipelines.training.dataset import (
    TooLittleData,
    baseline_scores,
    blinded,
    filled,
    matrix,
    medians,
    split_rows,
    window,
)
from pipelines.training.export import float32_threshold, to_onnx
from pipelines.training.fit import estimator_of, fit, predict, stop_early

NEW_YORK = zoneinfo.ZoneInfo("America/New_York")
DAY = dt.timedelta(days=1)


def utc(*when: int) -> dt.datetime:
    return dt.datetime(*when, tzinfo=dt.UTC)  # type: ignore[arg-type]


def test_the_holdout_ends_before_outcomes_that_may_still_be_open_and_starts_at_local_midnight():
    times = window(utc(2013, 7, 1), Split(train_days=100, holdout_days=14, maturity=DAY), NEW_YORK)
    assert times.holdout_until == utc(2013, 6, 29, 4)  # a day before July 1st 00:00Z it is June 29th in New York
    assert times.holdout_from == utc(2013, 6, 15, 4)
    assert times.train_from == utc(2013, 3, 7, 5)  # winter time


def rows(count: int = 30) -> pl.DataFrame:
    when = [utc(2013, 6, 1) + number * DAY for number in range(count)]
    return pl.DataFrame(
        {
            "row_id": range(count),
            "event_timestamp": when,
            "label_late": [number % 2 for number in range(count)],
            "label_known_at_utc": [time + dt.timedelta(hours=5) for time in when],
        }
    )


def test_a_training_row_whose_outcome_came_after_the_holdout_began_is_left_out():
    times = window(utc(2013, 7, 1), Split(train_days=28, holdout_days=14, maturity=DAY), NEW_YORK)
    slow = rows().with_columns(
        label_known_at_utc=pl.when(pl.col("row_id") == 3).then(utc(2013, 6, 20)).otherwise("label_known_at_utc")
    )
    train, holdout = split_rows(slow, times, "label_late")
    assert 3 not in train["row_id"].to_list()
    assert train["event_timestamp"].max() < times.holdout_from <= holdout["event_timestamp"].min()
    assert holdout["event_timestamp"].max() < times.holdout_until


def test_rows_without_a_label_are_in_neither_part():
    times = window(utc(2013, 7, 1), Split(train_days=28, holdout_days=14, maturity=DAY), NEW_YORK)
    open_rows = rows().with_columns(
        label_late=pl.when(pl.col("row_id").is_in([2, 20])).then(None).otherwise("label_late")
    )
    train, holdout = split_rows(open_rows, times, "label_late")
    assert not {2, 20} & {*train["row_id"], *holdout["row_id"]}


def test_an_empty_part_is_told_with_what_was_found():
    times = window(utc(2014, 7, 1), Split(train_days=28, holdout_days=14, maturity=DAY), NEW_YORK)
    with pytest.raises(TooLittleData, match="found 30 rows from 2013-06-01"):
        split_rows(rows(), times, "label_late")


def test_missing_values_become_the_training_median_everywhere():
    frame = pl.DataFrame({"a": [1.0, None, 3.0], "b": [float("nan"), 4.0, 4.0]})
    values = matrix(frame, ["a", "b"])
    defaults = medians(values, ["a", "b"])
    assert defaults.tolist() == [2.0, 4.0]
    assert filled(values, defaults).tolist() == [[1, 4], [2, 4], [3, 4]]


def test_a_feature_that_is_absent_infinite_or_always_empty_is_named():
    with pytest.raises(ValueError, match="lacks the features b"):
        matrix(pl.DataFrame({"a": [1.0]}), ["a", "b"])
    with pytest.raises(ValueError, match="infinite values in a"):
        matrix(pl.DataFrame({"a": [float("inf")]}), ["a"])
    with pytest.raises(ValueError, match="no training row has a value of a"):
        medians(np.array([[np.nan]], dtype=np.float32), ["a"])


def test_an_ignored_feature_cannot_move_the_score_and_must_exist(noisy):
    values, target = np.nan_to_num(noisy[0]), noisy[1]
    names, defaults = list("abcde"), medians(values, list("abcde"))
    blind = blinded(values, defaults, names, ["a"])
    model = fit(Task.CLASSIFICATION, {"max_iter": 5}, blind, target).estimator
    moved = values.copy()
    moved[:, 0] += 3
    assert np.array_equal(predict(Task.CLASSIFICATION, model, values), predict(Task.CLASSIFICATION, model, moved))
    with pytest.raises(ValueError, match="names z"):
        blinded(values, defaults, names, ["z"])


def test_the_baseline_is_the_group_mean_drawn_to_the_overall_mean():
    train = pl.DataFrame({"g": ["x"] * 8 + ["y"] * 2, "t": [1] * 8 + [0] * 2})  # overall mean 0.8
    asked = pl.DataFrame({"g": ["y", "x", "new"]})
    found = baseline_scores(train, asked, "t", Baseline(description="", columns=["g"], prior_rows=2))
    assert found == pytest.approx([1.6 / 4, 9.6 / 10, 0.8])


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e6, 1e6), st.integers(-2, 2))
def test_a_float32_threshold_sends_every_float32_to_the_same_side(threshold: float, steps: int):
    cut = float32_threshold(np.array([threshold]))[0]
    value = np.float32(threshold)
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.inf if steps > 0 else -np.inf))
    assert (float(value) <= threshold) == bool(value <= cut)


@pytest.fixture(scope="module")
def noisy() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    values = (generator.integers(0, 40, (3000, 5)) / np.float32(7)).astype(np.float32)
    values[generator.random(values.shape) < 0.15] = np.nan
    target = (np.nan_to_num(values[:, 0], nan=4) + generator.normal(size=3000) > 3).astype(float)
    return values, target


@pytest.mark.parametrize("task", list(Task))
def test_onnx_equals_scikit_learn_with_and_without_missing_values(noisy, task: Task):
    values, target = noisy
    target = target if task is Task.CLASSIFICATION else target * 40 - 5
    for trained_on in (values, np.nan_to_num(values)):  # one model saw missing values, the other never did
        model = estimator_of(task, {"max_iter": 30}).fit(trained_on, target)
        served = OnnxModel(to_onnx(model, task, 5))
        assert served.n_features == 5
        for asked in (values, np.nan_to_num(values), np.full((1, 5), np.nan, dtype=np.float32)):
            expected = predict(task, model, asked)
            assert served.score(asked) == pytest.approx(expected, abs=1e-6 if task is Task.CLASSIFICATION else 1e-4)


def test_the_graph_has_one_input_one_output_and_is_the_same_twice(noisy):
    values, target = noisy
    first, second = (
        to_onnx(fit(Task.CLASSIFICATION, {"max_iter": 5}, values, target).estimator, Task.CLASSIFICATION, 5)
        for _ in range(2)
    )
    assert first == second
    graph = onnx.load_from_string(first).graph
    assert ([item.name for item in graph.input], [item.name for item in graph.output]) == (["features"], ["score"])


def test_early_stopping_looks_at_the_newest_rows_only():
    """The newest rows follow another rule: more trees of the old rule make them worse, so few are kept."""
    generator = np.random.default_rng(0)
    values = generator.normal(size=(4000, 1)).astype(np.float32)
    steady = (values[:, 0] + generator.normal(size=4000) > 0).astype(float)
    turned = steady.copy()
    turned[3400:] = 1 - turned[3400:]
    kept = {
        name: stop_early(Task.CLASSIFICATION, {"max_iter": 60}, values, target)[0]
        for name, target in (("steady", steady), ("turned", turned))
    }
    assert kept["turned"] < kept["steady"]


def test_a_spec_without_baseline_is_refused(spec: ModelSpec):
    content = spec.model_dump(mode="json")
    del content["baseline"]
    with pytest.raises(ValueError, match="baseline"):
        ModelSpec.model_validate(content)
