"""Concept drift, feedback and live quality on days with planted outcomes."""

from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
import polars as pl
import pytest

from flightdeck.contracts.alarm import Kind, Remedy, Status
from flightdeck.contracts.model_spec import Task
from pipelines.data.labels import Maturity
from pipelines.monitoring.concept import concept, day_quality, expected, promise
from pipelines.monitoring.feedback import feedback
from pipelines.monitoring.quality import live_quality, newest_answers

FIRST = dt.date(2013, 6, 1)
ROWS = 300


def answers(days, *, seed=0, rows=ROWS, change=None, begins=0) -> pl.DataFrame:
    """Calibrated answers of so many days, each day with its own luck; `change(score, label, generator)` -> label."""
    generator = np.random.default_rng(seed)
    parts = []
    for day in range(days):
        score = generator.beta(2, 5, rows)
        shifted = 1 / (1 + np.exp(-(np.log(score / (1 - score)) + generator.normal(0, 0.3))))
        label = (generator.random(rows) < shifted).astype(float)
        if change and day >= begins:
            label = change(score, label, generator)
        parts.append(
            pl.DataFrame({"score": score, "value": label}).with_columns(
                day_local=pl.lit(FIRST + dt.timedelta(days=day)), maturity=pl.lit(Maturity.MATURED.value)
            )
        )
    return pl.concat(parts)


@pytest.fixture(scope="module")
def promised():
    return promise(day_quality(answers(21, seed=1), Task.CLASSIFICATION), Task.CLASSIFICATION)


def said(promised, rows):
    return concept(promised, day_quality(rows, Task.CLASSIFICATION), unit="probability")


def flipped(_score, label, _generator):
    return 1 - label


def worse(_score, label, generator):
    return np.maximum(label, generator.random(len(label)) < 0.25)


def test_clean_days_keep_the_promise(promised):
    alarms = sum(bool(said(promised, answers(30, seed=seed)).findings) for seed in range(2, 14))
    assert alarms <= 2, "at most a tenth of the months for each of the two figures, by design"


@pytest.mark.parametrize("fault", [flipped, worse])
def test_changed_outcomes_are_named_with_the_day_they_began(promised, fault):
    found = said(promised, answers(25, seed=3, change=fault, begins=20))
    assert [(item.kind, item.remedy) for item in found.findings] == [(Kind.CONCEPT, Remedy.RETRAIN)]
    assert abs((found.findings[0].since - FIRST).days - 20) <= 1


def test_a_day_of_few_rows_does_not_alarm_alone(promised):
    few = answers(1, seed=5, rows=60, change=worse)
    later = few.with_columns(day_local=pl.lit(FIRST + dt.timedelta(days=20)))
    assert not said(promised, pl.concat([answers(20, seed=4), later])).findings


def test_one_day_alone_never_alarms(promised):
    assert not said(promised, answers(1, seed=6, change=worse)).findings


def test_a_loss_of_a_regression_counts_as_well():
    generator = np.random.default_rng(0)

    def days(count, spread):
        return pl.concat(
            [
                pl.DataFrame({"score": generator.normal(10, 5, 200), "noise": generator.normal(0, spread, 200)})
                .with_columns(value=pl.col("score") + pl.col("noise"), day_local=pl.lit(FIRST + dt.timedelta(days=day)))
                for day in range(count)
            ]
        )  # fmt: skip

    promised = promise(day_quality(days(21, 4), Task.REGRESSION), Task.REGRESSION)
    assert not concept(promised, day_quality(days(20, 4), Task.REGRESSION), unit="min").findings
    found = concept(promised, day_quality(days(6, 7), Task.REGRESSION), unit="min")
    assert found.findings[0].sentence.startswith("RMSE")


def test_no_matured_day_is_no_data(promised):
    assert concept(promised, [], unit="").checks[0].status is Status.NO_DATA


def test_a_holdout_of_nine_days_promises_nothing():
    with pytest.raises(ValueError, match="9 days of the holdout"):
        promise(day_quality(answers(9), Task.CLASSIFICATION), Task.CLASSIFICATION)


def test_scores_announce_outcomes_only_while_they_are_calibrated(promised):
    good = day_quality(answers(20, seed=7), Task.CLASSIFICATION)
    score = np.full(100, 0.3)
    assert expected(promised, good, score, Task.CLASSIFICATION).value == pytest.approx(0.3)
    bad = day_quality(answers(20, seed=7, change=worse), Task.CLASSIFICATION)
    assert expected(promised, bad, score, Task.CLASSIFICATION).status is Status.NO_DATA
    assert expected(promised, [], score, Task.CLASSIFICATION).status is Status.NO_DATA


def test_outcomes_that_are_lost_by_score_are_feedback():
    rows = answers(28, seed=8)
    lost = (pl.col("score") > 0.4) & (pl.int_range(pl.len()) % 3 == 0)
    selected = rows.with_columns(
        maturity=pl.when(lost).then(pl.lit(Maturity.LOST.value)).otherwise("maturity"),
        value=pl.when(~lost).then("value"),
    )
    found = feedback(selected, decision_threshold=0.5)
    assert [(item.kind, item.subject) for item in found.findings] == [(Kind.FEEDBACK, "lost outcomes")]


def test_outcomes_lost_by_chance_are_no_feedback():
    rows = answers(28, seed=8)
    lost = pl.int_range(pl.len()).hash(3) % 10 == 0
    thinned = rows.with_columns(maturity=pl.when(lost).then(pl.lit(Maturity.LOST.value)).otherwise("maturity"))
    assert not feedback(thinned, decision_threshold=0.5).findings


def test_decisions_that_are_acted_on_show_as_a_step():
    def acted(score, label, generator):
        return np.where((score >= 0.4) & (generator.random(len(label)) < 0.7), 0, label)

    found = feedback(answers(28, seed=9, change=acted), decision_threshold=0.4)
    assert [(item.kind, item.subject) for item in found.findings] == [(Kind.FEEDBACK, "decisions")]
    assert not feedback(answers(28, seed=9), decision_threshold=0.4).findings
    assert [check.subject for check in feedback(answers(28), decision_threshold=None).checks] == ["lost outcomes"]


def test_a_week_is_too_short_to_see_feedback():
    assert {check.status for check in feedback(answers(7), decision_threshold=0.5).checks} == {Status.NO_DATA}


def asked(rows: pl.DataFrame, **columns) -> pl.DataFrame:
    """With the columns of the prediction log."""
    number = pl.int_range(pl.len())
    return rows.with_columns(
        request_id=pl.format("r{}", number), row=pl.lit(0, dtype=pl.Int32), entity_id=pl.format("e{}", number),
        asked_at_utc=pl.col("day_local").cast(pl.Datetime("us")).dt.replace_time_zone("UTC"),
        version=pl.lit("3"), release=pl.lit("abc"),
        degraded=pl.lit([], dtype=pl.List(pl.String)), yard=pl.when(number % 2 == 0).then(pl.lit("north")), **columns,
    )  # fmt: skip


def test_live_quality_has_intervals_by_day_version_and_slice():
    found = live_quality(asked(answers(10, seed=2)), Task.CLASSIFICATION, slices=["yard"])
    groups = {(item.by, item.value): item for item in found}
    assert groups["all", ""].rows == 10 * ROWS
    assert len([key for key in groups if key[0] == "day_local"]) == 10
    assert {key for key in groups if key[0] == "yard"} == {("yard", "north"), ("yard", "(none)")}
    for item in found:
        assert item.metric.low < item.metric.value < item.metric.high, item
        assert item.error.low < item.error.value < item.error.high, item
    whole, one = groups["all", ""], groups["day_local", str(FIRST)]
    assert one.metric.high - one.metric.low > whole.metric.high - whole.metric.low


def test_live_quality_of_too_little_says_so():
    few = live_quality(asked(answers(1, rows=20)), Task.CLASSIFICATION)
    assert {item.problem for item in few} == {"20 matured answers; 30 are needed"}
    one_class = asked(answers(2).with_columns(value=pl.lit(0.0)))
    assert "both classes" in live_quality(one_class, Task.CLASSIFICATION)[0].problem
    assert live_quality(pl.DataFrame(), Task.CLASSIFICATION)[0].problem == "no answers"


def test_of_two_answers_about_one_entity_the_newest_counts():
    rows = asked(answers(2, rows=2)).with_columns(entity_id=pl.lit("same"))
    assert newest_answers(rows)["request_id"].to_list() == ["r3"]
    twice = rows.with_columns(release=pl.col("request_id"))
    assert newest_answers(twice).height == 4, "another release is another answer"


def test_what_is_not_in_yet_is_counted_and_is_no_negative():
    rows = asked(answers(6, seed=3)).with_columns(
        maturity=pl.when(pl.int_range(pl.len()) % 4 == 0).then(pl.lit(Maturity.WAITING.value)).otherwise("maturity"),
        value=pl.when(pl.int_range(pl.len()) % 4 != 0).then("value"),
    )
    whole = live_quality(rows, Task.CLASSIFICATION)[0]
    assert (whole.rows, whole.waiting) == (6 * ROWS * 3 // 4, 6 * ROWS // 4)
    assert dataclasses.asdict(whole)["problem"] == ""
