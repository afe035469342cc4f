"""What is said of a day's inputs: clean days, each fault by its name, and days of which nothing can be said."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from flightdeck.contracts.alarm import Kind, Remedy, Status
from pipelines.monitoring.finding import explained
from pipelines.monitoring.inputs import inputs
from pipelines.monitoring.profile import Vectors
from pipelines.monitoring.volume import volume
from pipelines.monitoring.watch import watch

from .conftest import DAYS, FIRST, NAMES, VIEWS, joined, rows_of

START = FIRST + 7 * 20


def days(count, change=None, *, since=0, rows=180, seed=8) -> list[Vectors]:
    """Days after the training window with the season of its middle; `change` by column name from day `since`."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        one = rows_of(FIRST + DAYS // 2, generator, rows)
        values = one.values.copy()
        values[:, NAMES.index("blind")] = number
        if change and number >= since:
            for name, function in change.items():
                at = NAMES.index(name)
                values[:, at] = function(values[:, at])
        found.append(Vectors(NAMES, values, np.full(rows, START + number), one.hour))
    return found


def said(usual, served):
    profiles = [usual.reference.profile(item) for item in served]
    return inputs(usual, served[-1], profiles)


def test_clean_days_bring_no_alarm(usual):
    served = days(28)
    for count in range(1, 29):
        found = said(usual, served[:count])
        assert not found.findings, [item.sentence for item in found.findings]


def test_what_moves_with_the_season_is_measured_as_such(usual):
    assert usual.season == {"season", "blind"}


def test_a_season_bound_input_is_reported_and_does_not_alarm(usual):
    found = said(usual, days(7, {"season": lambda column: column + 25}))
    assert not found.findings
    drift = [check for check in found.checks if check.kind is Kind.DRIFT]
    assert any(check.status is Status.REPORTED and "season" in check.reason for check in drift)


def test_a_declared_season_needs_a_feature_of_that_name(training):
    with pytest.raises(ValueError, match="no feature: moon"):
        watch(joined(training), VIEWS, {}, declared_season=["moon"])


def test_a_declared_season_does_not_alarm(training):
    declared = watch(joined(training), VIEWS, {}, declared_season=["share"])
    assert not said(declared, days(7, {"share": lambda column: column * 1.6})).findings


def test_a_moved_input_is_named_with_the_day_it_began(usual):
    found = said(usual, days(10, {"share": lambda column: column * 1.8}, since=6))
    finding = next(item for item in found.findings if item.kind is Kind.DRIFT)
    assert finding.features[0] == "share"
    assert finding.subject == "yard"
    assert abs(finding.since.toordinal() - (START + 6)) <= 1
    assert finding.value > finding.threshold >= 1.1
    assert "higher" in finding.sentence


def test_an_input_that_stands_still_is_a_constant_and_its_drift_the_consequence(usual):
    found = said(usual, days(3, {"queue": lambda column: np.full_like(column, 4)}, since=2))
    kept = explained(found.findings)
    assert [(item.kind, item.features, item.remedy) for item in kept] == [(Kind.CONSTANT, ("queue",), Remedy.INCIDENT)]
    assert kept[0].since == dt.date.fromordinal(START + 2)


def test_a_category_that_training_never_saw_is_named(usual):
    flood = said(usual, days(1, {"code": lambda column: np.where(np.arange(len(column)) % 5 == 0, 9, column)}))
    finding = next(item for item in flood.findings if item.kind is Kind.UNSEEN)
    assert (finding.features, finding.rows, finding.remedy) == (("code",), 36, Remedy.INCIDENT)
    assert "at 9" in finding.sentence


def test_a_placeholder_in_a_few_rows_is_an_outlier(usual):
    found = said(usual, days(1, {"wind": lambda column: np.where(np.arange(len(column)) < 4, -999, column)}))
    assert [(item.kind, item.features, item.rows) for item in found.findings] == [(Kind.OUTLIERS, ("wind",), 4)]


def test_a_day_that_lies_beyond_the_training_range_is_told_at_once(usual):
    found = said(usual, days(1, {"wind": lambda column: column + 22}))
    [finding] = [item for item in found.findings if item.kind is Kind.OUTLIERS]
    assert finding.features == ("wind",)
    assert finding.rows > 90
    assert "beyond the range" in finding.how_sure


def test_a_season_may_leave_its_range(usual):
    found = said(usual, days(1, {"season": lambda column: column + 30}))
    assert not [item for item in found.findings if item.kind is Kind.OUTLIERS]


def test_one_rare_row_is_no_alarm(usual):
    found = said(usual, days(1, {"wind": lambda column: np.where(np.arange(len(column)) < 1, -999, column)}))
    assert not found.findings


def test_few_rows_are_no_data_and_not_ok(usual):
    found = said(usual, days(1, rows=10))
    assert {check.status for check in found.checks} == {Status.NO_DATA}
    assert not found.findings


def test_a_tenth_of_the_rows_is_no_drift(usual):
    served = days(14, seed=9) + days(1, rows=30)
    served[-1] = Vectors(NAMES, served[-1].values, np.full(30, START + 14), served[-1].hour)
    assert not said(usual, served).findings


def test_a_tenth_of_the_rows_is_told_as_volume(usual):
    before = {START + day: 180 for day in range(14)}
    found = volume(usual, START + 14, before | {START + 14: 18})
    assert [(item.kind, item.rows) for item in found.findings] == [(Kind.VOLUME, 18)]
    assert not volume(usual, START + 14, before | {START + 14: 170}).findings


def test_the_first_week_cannot_say_what_volume_is_usual(usual):
    found = volume(usual, START + 3, {START + day: 180 for day in range(4)})
    assert found.checks[0].status is Status.NO_DATA


def test_fewer_than_twenty_training_days_cannot_say_what_is_usual(training):
    with pytest.raises(ValueError, match="19 training days; limits need at least 20"):
        watch(joined(training[:19]), VIEWS, {})
