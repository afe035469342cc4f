"""What the gate `data` refuses, and the drift note."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from flightdeck.delivery import data, drift
from pipelines.data.ingest import DayResult, Status
from pipelines.use_case import load_use_case

DAY = dt.date(2013, 12, 30)


def day(status: Status, table: str = "weather", back: int = 0, reason: str = "") -> DayResult:
    return DayResult(table, DAY - dt.timedelta(back), status, delivered=70, reason=reason)


def test_a_day_that_the_lake_would_quarantine_is_refused_with_its_reason():
    results = [day(Status.WRITTEN), day(Status.QUARANTINED, back=1, reason="temp_f: 100.0% null")]
    (found,) = data.refused("the newest days", results)
    assert "weather of 2013-12-29 (70 rows): temp_f: 100.0% null" in found.what
    assert "schema.py" in found.do


def test_one_day_that_the_source_lacks_is_told_but_a_table_without_any_row_is_refused():
    one = [day(Status.WRITTEN), day(Status.MISSING, back=1)]
    assert data.refused("x", one) == []
    assert data.remarks("x", one)[1] == "x: the source has no weather of 2013-12-29"
    (found,) = data.refused("x", [day(Status.MISSING), day(Status.MISSING, back=1), day(Status.WRITTEN, "flights")])
    assert "no rows of weather at all" in found.what


def test_source_code_that_breaks_is_a_refusal_and_not_a_crash():
    def broken(_: dt.date) -> pl.DataFrame:
        raise pl.exceptions.ColumnNotFoundError("tmep")

    import dataclasses

    use_case = load_use_case()
    tables = tuple(dataclasses.replace(table, read_day=broken) for table in use_case.tables)
    found = data.check(dataclasses.replace(use_case, tables=tables, sample=None))
    assert [it.what for it in found.findings] == ["the newest days cannot be read: ColumnNotFoundError: tmep"]
    assert any("commits none" in it for it in found.not_run)
    assert any("drift note" in it for it in found.not_run)


def test_equal_columns_do_not_move_and_a_shifted_one_does():
    values = np.random.default_rng(1).normal(size=4000)
    before = pl.DataFrame({"same": values, "moved": values, "emptied": values, "text": ["a"] * 4000})
    after = pl.DataFrame({"same": values[::-1], "moved": values + 2, "emptied": [None] * 4000, "text": ["b"] * 4000})
    found = drift.moves(before, after.cast({"emptied": pl.Float64}))
    assert list(found) == ["emptied", "moved", "same"]
    assert found["same"] == pytest.approx(0) and found["moved"] > drift.MOVED


def test_psi_by_hand():
    before, after = pl.Series([False] * 50 + [True] * 50), pl.Series([False] * 25 + [True] * 75)
    assert drift.psi(before, after) == pytest.approx((0.25 - 0.5) * np.log(0.5) + (0.75 - 0.5) * np.log(1.5))
    assert drift.psi(before, after.clear()) is None


def test_the_same_season_is_taken_where_the_source_has_it():
    first = dt.date(2012, 1, 1)
    season = drift.spans(first, dt.date(2013, 12, 31))
    assert season is not None and season.season and season.reference[1] == dt.date(2013, 1, 1)
    year = drift.spans(dt.date(2013, 1, 1), dt.date(2013, 12, 31))
    assert year is not None and not year.season
    assert year.reference == (dt.date(2013, 11, 6), dt.date(2013, 12, 3))
    assert drift.spans(dt.date(2013, 12, 1), dt.date(2013, 12, 31)) is None
