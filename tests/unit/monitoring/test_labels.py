"""Which predictions have an outcome that counts: maturity, whole days, corrections, doubles."""

from __future__ import annotations

import datetime as dt
import zoneinfo

import polars as pl
import pytest

from flightdeck.contracts.model_spec import load_model_spec, specs_folder
from pipelines.data.labels import Maturity, labels_of, newest_labels, record_labels, with_labels
from pipelines.data.lake import Lake

UTC = dt.UTC
ZONE = zoneinfo.ZoneInfo("America/New_York")
ASKED = dt.datetime(2013, 7, 1, 12, tzinfo=UTC)
TIME = pl.Datetime("us", "UTC")


def asked(*rows) -> pl.DataFrame:
    """Rows (entity, asked at)."""
    return pl.DataFrame(
        {
            "request_id": [f"r{number}" for number in range(len(rows))], "row": [0] * len(rows),
            "release": ["abc"] * len(rows),
            "model": ["late"] * len(rows), "version": ["3"] * len(rows), "entity_id": [entity for entity, _ in rows],
            "asked_at_utc": [time for _, time in rows],
        },
        schema_overrides={"row": pl.Int32, "asked_at_utc": TIME},
    ).with_columns(day=pl.col("asked_at_utc").dt.date())  # fmt: skip


def outcomes(*rows) -> pl.DataFrame:
    """Rows (entity, label, known at)."""
    return pl.DataFrame(
        dict(zip(("entity_id", "label_late", "label_known_at_utc"), map(list, zip(*rows, strict=True)), strict=False)),
        schema={"entity_id": pl.String, "label_late": pl.Int8, "label_known_at_utc": TIME},
    ).with_columns(yard=pl.lit("north"))  # fmt: skip


def joined(predictions, entity, now, *, maturity=dt.timedelta(days=1)):
    found = with_labels(
        predictions, entity, label="label_late", maturity=maturity, now_utc=now, time_zone=ZONE, keep=["yard"]
    )
    return dict(zip(found["entity_id"], zip(found["maturity"], found["value"], strict=True), strict=True))


def hours(count) -> dt.datetime:
    return ASKED + dt.timedelta(hours=count)


def test_a_label_that_is_not_in_yet_is_not_a_negative():
    found = joined(asked(("a", ASKED), ("b", ASKED)), outcomes(("a", 0, hours(3))), hours(4))
    assert found == {"a": (Maturity.WAITING, 0.0), "b": (Maturity.WAITING, None)}, "the quick ones alone do not count"


def test_when_the_maturity_has_passed_what_is_known_counts_and_the_rest_is_lost():
    found = joined(asked(("a", ASKED), ("b", ASKED)), outcomes(("a", 1, hours(3))), hours(25))
    assert found == {"a": (Maturity.MATURED, 1.0), "b": (Maturity.LOST, None)}


def test_a_day_whose_outcomes_are_all_in_counts_at_once_when_it_is_over():
    rows = outcomes(("a", 1, hours(3)), ("b", 0, hours(5)))
    week = dt.timedelta(days=7)
    assert joined(asked(("a", ASKED), ("b", ASKED)), rows, hours(6), maturity=week)["a"][0] == Maturity.WAITING
    found = joined(asked(("a", ASKED), ("b", ASKED)), rows, hours(17), maturity=week)
    assert {item[0] for item in found.values()} == {Maturity.MATURED}


def test_the_same_entity_may_be_asked_for_twice():
    found = with_labels(
        asked(("a", ASKED), ("a", hours(1))), outcomes(("a", 1, hours(3))), label="label_late",
        maturity=dt.timedelta(days=1), now_utc=hours(26), time_zone=ZONE,
    )  # fmt: skip
    assert found["value"].to_list() == [1.0, 1.0]
    assert found["request_id"].to_list() == ["r0", "r1"]


def test_an_outcome_that_the_rule_gives_no_label_is_excluded_and_no_negative():
    found = joined(asked(("a", ASKED), ("b", ASKED)), outcomes(("a", None, hours(3)), ("b", 0, hours(3))), hours(30))
    assert found == {"a": (Maturity.EXCLUDED, None), "b": (Maturity.MATURED, 0.0)}


def test_the_newest_known_label_wins_in_any_order():
    rows = [("a", 0, hours(3)), ("a", 1, hours(9)), ("a", 0, hours(5))]
    for order in (rows, rows[::-1], [rows[1], rows[0], rows[2]]):
        assert joined(asked(("a", ASKED)), outcomes(*order), hours(30))["a"] == (Maturity.MATURED, 1.0)
    assert joined(asked(("a", ASKED)), outcomes(*rows), hours(8), maturity=dt.timedelta(hours=2))["a"][1] == 0.0


def test_two_labels_of_one_moment_are_settled_the_same_way_in_any_order():
    rows = [("a", 0, hours(3)), ("a", 1, hours(3))]
    assert newest_labels(outcomes(*rows), "label_late", hours(9))["value"].to_list() == [1.0]
    assert newest_labels(outcomes(*rows[::-1]), "label_late", hours(9))["value"].to_list() == [1.0]


def test_what_becomes_known_later_does_not_exist_yet():
    found = joined(asked(("a", ASKED)), outcomes(("a", 1, hours(40))), hours(30))
    assert found == {"a": (Maturity.LOST, None)}


def test_a_clock_without_zone_is_refused():
    with pytest.raises(ValueError, match="timezone-aware"):
        joined(asked(("a", ASKED)), outcomes(), dt.datetime(2013, 7, 2))


def test_an_entity_frame_without_the_label_is_refused():
    with pytest.raises(ValueError, match="no column label_late"):
        joined(asked(("a", ASKED)), outcomes().drop("label_late"), hours(30))


def test_labels_are_written_once_and_corrections_once_more(tmp_path):
    lake, spec = Lake(tmp_path), load_model_spec(specs_folder() / "late.yaml")
    predictions = asked(("a", ASKED), ("b", ASKED))

    def record(now, *rows):
        labelled = with_labels(
            predictions, outcomes(*rows), label="label_late", maturity=spec.split.maturity, now_utc=now, time_zone=ZONE
        )
        return record_labels(lake, spec, labelled, now)

    first = [("a", 1, hours(3)), ("b", 0, hours(4))]
    assert record(hours(10), *first) == 0, "the day is not over"
    assert record(hours(30), *first) == 2
    assert record(hours(31), *first) == 0, "delivered twice"
    assert record(hours(60), *first, ("b", 1, hours(50))) == 1, "corrected"
    kept = labels_of(lake, "late", ASKED, ASKED)
    assert dict(zip(kept["entity_id"], kept["value"], strict=True)) == {"a": 1.0, "b": 1.0}
    assert lake.read("labels").num_rows == 3, "what was known before stays"
    assert labels_of(lake, "delay", ASKED, ASKED).is_empty()
