"""One trouble is one alarm: what explains what, and what an alarm is called."""

from __future__ import annotations

import datetime as dt

import pytest

from flightdeck.contracts.alarm import Cause, Check, Kind, MonitorReport, Remedy, Status
from flightdeck.pages.monitor import monitor_page
from pipelines.monitoring.finding import ANSWERS, Finding, explained, no_data, told

DAY = dt.date(2013, 7, 5)


def finding(kind, *features, cause=None) -> Finding:
    return Finding(
        kind=kind, subject="sky", since=DAY, rows=10, value=2.0, threshold=1.0, sentence="it moved", how_sure="very",
        what_to_do="look", remedy=Remedy.LOOK, features=features, cause=cause,
    )  # fmt: skip


def kinds(*findings):
    return [(item.kind, item.features) for item in explained(findings)]


def test_drift_of_a_skewed_feature_is_its_consequence_and_told_with_it():
    [kept] = explained([finding(Kind.DRIFT, "wind"), finding(Kind.SKEW, "wind", "gust", cause=Cause.UNIT)])
    assert (kept.kind, kept.also) == (Kind.SKEW, ("drift of wind",))


def test_drift_of_another_feature_stands_for_itself():
    assert kinds(finding(Kind.DRIFT, "sun"), finding(Kind.SKEW, "wind")) == [
        (Kind.SKEW, ("wind",)), (Kind.DRIFT, ("sun",)),
    ]  # fmt: skip


def test_answers_that_move_while_an_input_does_are_its_consequence():
    assert kinds(finding(Kind.DRIFT, ANSWERS), finding(Kind.UNSEEN, "code")) == [(Kind.UNSEEN, ("code",))]
    assert kinds(finding(Kind.DRIFT, ANSWERS)) == [(Kind.DRIFT, (ANSWERS,))]


def test_changed_outcomes_are_never_explained_away():
    assert kinds(finding(Kind.CONCEPT), finding(Kind.SKEW, "wind")) == [(Kind.SKEW, ("wind",)), (Kind.CONCEPT, ())]


def test_an_alarm_is_called_the_same_on_the_next_day():
    item = finding(Kind.SKEW, "wind", cause=Cause.UNIT)
    days = [told(item, model="late", version="3", release="abc", day=DAY + dt.timedelta(days=ago)) for ago in (0, 1)]
    assert days[0].key == days[1].key == "late/3/skew/unit/sky"
    assert days[0].page != days[1].page


def report(*checks, alarms=()) -> MonitorReport:
    return MonitorReport(
        model="late", version="3", release="abc", day=DAY, at=dt.datetime(2013, 7, 7, tzinfo=dt.UTC), rows=5,
        metric="AUC", checks=checks, alarms=alarms,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "whole"),
    [
        ((Status.NO_DATA, Status.NO_DATA), Status.NO_DATA),
        ((Status.OK, Status.NO_DATA), Status.OK),
        ((), Status.NO_DATA),
    ],
)
def test_a_day_of_which_nothing_could_be_computed_is_not_ok(statuses, whole):
    check = Check(kind=Kind.DRIFT, subject="inputs", status=Status.OK, value=None, threshold=None, reason="")
    assert report(*(check.model_copy(update={"status": status}) for status in statuses)).status is whole


def test_a_page_of_a_day_without_figures_can_be_read():
    page = monitor_page(report(*no_data(Kind.DRIFT, "inputs", "5 rows; at least 25 are needed").checks))
    assert "5 rows; at least 25 are needed" in page
    assert "<svg" not in page


def test_what_comes_from_outside_is_escaped_on_the_page():
    alarm = told(finding(Kind.DRIFT, "<b>"), model="late", version="3", release="<i>", day=DAY)
    page = monitor_page(report(alarms=(alarm,)))
    assert "Features: &lt;b&gt;" in page
