"""The command as a user types it, on the tiny busline."""

import re
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from flightdeck.cli.data import app
from flightdeck.contracts.clock import CLOCK_KEY
from flightdeck.contracts.prediction import PREDICTION_STREAM, PredictionRecord


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("FLIGHTDECK_USE_CASE", "busline:USE_CASE")
    monkeypatch.setenv("FLIGHTDECK_STATE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "120")

    def invoke(*args: str):
        return CliRunner().invoke(app, args)

    return invoke


def test_ingest_says_what_became_of_the_days_and_goes_on_past_a_bad_one(run):
    result = run("ingest", "--from", "2020-01-05", "--to", "2020-01-10")
    assert result.exit_code == 0, result.output
    assert "rides 2020-01-07 quarantined: range of riders: expected 0 to 90, found 999" in result.output
    assert "rides: 250 rows; days: 5 written, 1 quarantined" in result.output
    assert re.search(r"250 rows in .* s, [\d,]+ rows/s", result.output)
    again = run("ingest", "--from", "2020-01-05", "--to", "2020-01-10")
    assert "rides: 0 rows; days: 5 unchanged, 1 quarantined" in again.output


def test_ingest_by_a_clock_leaves_the_rest_for_later(run):
    result = run("ingest", "--to", "2020-01-02", "--now", "2020-01-01T10:09Z")
    assert "rides: 10 rows; days: 1 written, 1 pending" in result.output
    assert run("ingest", "--now", "yesterday").exit_code == 2


def test_ingest_outside_the_source_is_refused_with_what_there_is(run):
    result = run("ingest", "--from", "2031-01-01")
    assert result.exit_code == 2
    assert "2020-01-01 to 2020-01-30" in result.output


def test_ingest_of_an_unknown_table_names_the_known_ones(run):
    result = run("ingest", "--table", "trams")
    assert result.exit_code == 2
    assert "rides" in result.output


def test_status_of_an_empty_lake_says_what_to_do(run):
    result = run("status")
    assert result.exit_code == 1
    assert "flightdeck data ingest" in result.output


def test_status_shows_version_rows_days_and_open_quarantine(run):
    run("ingest", "--from", "2020-01-05", "--to", "2020-01-10")
    result = run("status")
    assert result.exit_code == 0
    assert re.search(r"rides\W+1\W+250\W+5\W+2020-01-05\W+2020-01-10\W+1\W", result.output), result.output


def test_quarantine_lists_days_shows_one_and_fails_while_one_is_open(run):
    assert run("quarantine").exit_code == 0
    run("ingest", "--from", "2020-01-06", "--to", "2020-01-08")
    listed, shown = run("quarantine"), run("quarantine", "--day", "2020-01-07")
    assert (listed.exit_code, shown.exit_code) == (1, 1)
    assert "rides 2020-01-07 open: 50 rows; range of riders" in listed.output
    assert "3 2020-01-07" in shown.output, "the bad row is named"


def test_predictions_move_by_the_clock_on_redis(run, streams, redis_port):
    streams.hset(
        CLOCK_KEY,
        mapping={
            "virtual_start": "2013-07-01T00:00:00+00:00",
            "real_start_s": "0.0",
            "speed": "0.0",
            "virtual_end": "",
        },
    )
    record = PredictionRecord(
        "a",
        0,
        "flight",
        1_372_636_800_000_000,
        "late",
        "1",
        "f" * 64,
        "late_v1",
        [1.0],
        "h",
        0.5,
        "late",
        [],
        {},
        1,
        "r1",
    )
    streams.xadd(PREDICTION_STREAM, {"r": msgspec.msgpack.encode([record])})
    result = run("predictions", "--redis", f"redis://127.0.0.1:{redis_port}/0")
    assert result.exit_code == 0, result.output
    assert "1 entries: 1 records written" in result.output


def test_predictions_without_redis_says_that_nothing_is_lost(run):
    result = run("predictions", "--redis", "redis://127.0.0.1:1/0")
    assert result.exit_code == 1
    assert "nothing is lost" in result.output


def test_a_place_that_cannot_be_written_or_reached_is_told_in_one_line(run, tmp_path):
    (tmp_path / "file").touch()
    for command in (("ingest", "--to", "2020-01-01"), ("predictions", "--redis", "redis://127.0.0.1:1/0")):
        result = run(*command, "--state", str(tmp_path / "file"))
        assert (result.exit_code, type(result.exception)) == (1, SystemExit), result.output
    assert run("predictions", "--redis", "nonsense").exit_code == 2


def test_a_broken_table_is_told_in_one_line(run, tmp_path):
    run("ingest", "--to", "2020-01-01")
    for file in (tmp_path / "lake" / "rides" / "_delta_log").iterdir():
        file.write_text("{broken")
    for command in (["status"], ["ingest", "--to", "2020-01-02"]):
        result = run(*command)
        assert (result.exit_code, type(result.exception)) == (1, SystemExit), result.output
        assert "rides: the newest version cannot be read" in result.output


def test_a_table_that_is_in_quarantine_alone_is_shown(run):
    run("ingest", "--from", "2020-01-07", "--to", "2020-01-07")
    result = run("status")
    assert result.exit_code == 0
    assert re.search(r"rides\W+0\W+1\W", result.output), result.output


def test_quarantine_of_an_unknown_table_is_not_called_empty(run):
    result = run("quarantine", "--table", "trams")
    assert result.exit_code == 2
    assert "rides" in result.output
