"""The monitor on real days: recomputation from the real offline store, labels and reports in a real lake."""

from __future__ import annotations

import datetime as dt
import re

import polars as pl
import pytest

from flightdeck.cli.main import main
from flightdeck.contracts.alarm import Cause, Kind, Status, page_path
from flightdeck.contracts.layout import STATE_ENV
from flightdeck.pages.monitor import monitor_page
from pipelines.data.labels import labelled, labels_of
from pipelines.monitoring.quality import live_quality
from pipelines.monitoring.reports import reports_of, save
from pipelines.monitoring.run import days_to_look_at, monitor_day

from .conftest import SERVED, SPOILT, VERSION, Watched

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def look(watched: Watched, day: dt.date, now: dt.datetime):
    return monitor_day(
        watched.use_case,
        watched.lake,
        watched.layout,
        watched.spec,
        day,
        now_utc=now,
        load=lambda _version: watched.usual,
    )


def command(*words: str) -> int:
    """Exit code of `flightdeck monitor ...`."""
    with pytest.raises(SystemExit) as ended:
        main(["monitor", *words])
    return ended.value.code


@pytest.fixture(autouse=True)
def state(monkeypatch, watched):
    """The commands set it for what they call: put back afterwards."""
    monkeypatch.setenv(STATE_ENV, str(watched.layout.root))


@pytest.fixture(scope="module")
def looked(watched):
    """Each served day, looked at two days later."""
    found = {}
    for day in SERVED:
        now = watched.use_case.day_start_utc(day + dt.timedelta(days=3))
        [found[day]] = look(watched, day, now)
    return found


def of(report, kind):
    return [check for check in report.checks if check.kind is kind]


def test_clean_answers_equal_their_recomputation_from_the_offline_store(looked):
    for day in SERVED[:-1]:
        [check] = of(looked[day], Kind.SKEW)
        assert (check.status, check.value) == (Status.OK, 0.0), f"{day}: {check.reason}"
        assert check.reason.startswith("300 answers recomputed")


def test_swapped_columns_are_named_on_the_day_and_linked_to_a_page(looked):
    alarm = next(item for item in looked[SPOILT].alarms if item.kind is Kind.SKEW)
    assert (alarm.cause, set(alarm.features)) == (Cause.ORDER, {"wind_speed_mph", "humid_pct"})
    assert alarm.since == SPOILT
    assert alarm.page == page_path("late", VERSION, SPOILT)
    assert not [item for item in looked[SPOILT].alarms if item.kind is Kind.DRIFT and "humid_pct" in item.features]


def test_the_page_tells_the_alarm_and_loads_nothing(looked):
    page = monitor_page(looked[SPOILT])
    assert "skew: order" in page
    assert "humid_pct" in page
    assert page.count("<svg") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page


def test_reports_are_kept_and_the_newest_of_a_day_counts(watched, looked):
    kept = reports_of(watched.lake, "late", SERVED[0], SERVED[-1], VERSION)
    assert [item.day for item in kept] == SERVED
    assert kept[-1] == looked[SPOILT]
    later = watched.use_case.day_start_utc(SERVED[-1] + dt.timedelta(days=5))
    save(watched.lake, looked[SPOILT].model_copy(update={"at": later}))
    [newest] = reports_of(watched.lake, "late", SPOILT, SPOILT)
    assert newest.at == later


def test_labels_stand_beside_their_requests_once(watched, looked):
    start, end = (watched.use_case.day_start_utc(day) for day in (SERVED[0], SERVED[-1] + dt.timedelta(days=1)))
    kept = labels_of(watched.lake, "late", start, end)
    assert kept["request_id"].n_unique() == kept.height
    assert kept.height == watched.lake.read("labels").num_rows, "looked at on every day, written once"
    entity = watched.use_case.entity_frame(watched.lake, start, end, end + dt.timedelta(days=3))
    right = entity.select("entity_id", pl.col("label_late").cast(pl.Float64))
    compared = kept.join(right, on="entity_id", how="inner")
    assert compared.height == kept.height
    assert (compared["value"] == compared["label_late"]).all()


def test_live_quality_is_by_slice_and_version(watched, looked):
    start, end = (watched.use_case.day_start_utc(day) for day in (SERVED[0], SERVED[-1]))
    rows = labelled(watched.use_case, watched.lake, watched.spec, start, end, now_utc=end + dt.timedelta(days=2))
    found = {(item.by, item.value): item for item in live_quality(rows, watched.spec.task, slices=watched.spec.slices)}
    assert found["all", ""].metric.value > 0.55
    assert found["version", VERSION].rows == found["all", ""].rows
    assert found["origin", "EWR"].metric.low is not None


def test_a_day_that_is_not_over_is_refused(watched):
    with pytest.raises(ValueError, match="look when it is over"):
        look(watched, SERVED[0], watched.use_case.day_start_utc(SERVED[0]) + dt.timedelta(hours=20))


def test_a_day_without_answers_has_no_report(watched):
    day = SERVED[0] - dt.timedelta(days=20)
    assert look(watched, day, watched.use_case.day_start_utc(SERVED[-1])) == []


def test_days_that_are_due_are_those_without_a_mature_report(watched, looked):
    now = watched.use_case.day_start_utc(SERVED[-1] + dt.timedelta(days=3))
    assert days_to_look_at(watched.use_case, watched.spec, watched.lake, now, back=5) == [
        SERVED[-1] + dt.timedelta(days=1), SERVED[-1] + dt.timedelta(days=2),
    ]  # fmt: skip


def test_the_command_shows_a_kept_report_and_draws_its_page(watched, looked, capsys):
    assert command("report", "late", "--day", str(SPOILT), "--state", str(watched.layout.root)) == 0
    said = capsys.readouterr().out
    assert "ALARM skew (order) of weather" in said
    page = watched.layout.reports / page_path("late", VERSION, SPOILT)
    assert "skew: order" in page.read_text()


def test_the_command_says_what_to_do_where_no_day_was_looked_at(watched, capsys):
    assert command("report", "late", "--day", "2013-01-05", "--state", str(watched.layout.root)) == 5
    assert "run `flightdeck monitor run late`" in capsys.readouterr().err


def test_the_command_shows_live_quality_by_slice(watched, looked, capsys):
    now = (watched.use_case.day_start_utc(SERVED[-1]) + dt.timedelta(days=3)).isoformat()
    days = ["--from", str(SERVED[0]), "--to", str(SERVED[-1]), "--now", now]
    assert command("quality", "late", *days, "--state", str(watched.layout.root)) == 0
    said = capsys.readouterr().out
    assert "AUC" in said
    assert re.search(r"origin +EWR +\d", said)
