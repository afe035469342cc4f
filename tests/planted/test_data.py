"""A null column, as a developer would commit it: in the code that reads the source, and in the committed sample."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from tests.planted.checkout import Checkout

pytestmark = pytest.mark.slow


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout.at(tmp_path)


def test_the_shipped_source_and_sample_pass(checkout: Checkout):
    ran = checkout.gate("data")
    assert ran.code == 0, ran.text
    assert ran.outcome is not None and not ran.outcome.not_run
    assert {row[0] for row in ran.outcome.tables["Data checks"]} >= {"the committed sample", "the newest days"}
    assert "drift note, blocks nothing" in ran.text


def test_a_column_that_the_code_no_longer_reads_is_refused_in_the_sample_and_in_the_newest_days(checkout: Checkout):
    checkout.edit("pipelines/flights/source.py", 'temp_f="temp"', "temp_f=pl.lit(None, dtype=pl.Float32)")
    ran = checkout.gate("data")
    assert ran.code == 1
    assert "the committed sample, weather of 2013-02-08" in ran.text
    assert "the newest days, weather of 2013-12-30" in ran.text
    assert "temp_f" in ran.text and "100.0% null" in ran.text
    assert "do: mend what delivers it (pipelines/flights/source.py" in ran.text


def test_a_sample_whose_column_came_empty_is_refused(checkout: Checkout):
    path = checkout.root / "pipelines" / "flights" / "sample" / "flights.csv"
    rows = pl.read_csv(path, infer_schema=False)
    rows.with_columns(carrier=pl.lit("NA")).write_csv(path)
    ran = checkout.gate("data")
    assert ran.code == 1
    assert "the committed sample, flights of 2013-02-08" in ran.text
    assert "carrier" in ran.text
    assert "the newest days, flights" not in ran.text
