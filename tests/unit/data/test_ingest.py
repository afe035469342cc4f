import datetime as dt
from pathlib import Path

import polars as pl
import pytest

from pipelines.data import faults, quarantine
from pipelines.data.ingest import Status, ingest_day, ingest_days

DAY = dt.date(2020, 1, 5)
NOON_NEXT = dt.datetime(2020, 1, 6, 12, tzinfo=dt.UTC)


def rows(lake, table="buses") -> pl.DataFrame:
    return pl.from_arrow(lake.read(table)).sort("day", "bus", "ingested_at")


def states(results) -> list[str]:
    return [str(item.status) for item in results]


def test_a_day_ingested_twice_changes_nothing(lake, quarantine_root, buses):
    [first] = ingest_day(buses(), lake, quarantine_root, DAY)
    version, content = lake.version("buses"), rows(lake)
    [second] = ingest_day(buses(), lake, quarantine_root, DAY)
    assert (first.status, first.written) == (Status.WRITTEN, 10)
    assert (second.status, second.written, second.skipped) == (Status.UNCHANGED, 0, 10)
    assert lake.version("buses") == version
    assert rows(lake).equals(content)


@pytest.mark.parametrize("days_per_commit", [1, 4, 100])
def test_the_lake_holds_the_same_rows_however_days_share_commits(lake, quarantine_root, buses, days_per_commit):
    results = list(ingest_days(buses(), lake, quarantine_root, days_per_commit=days_per_commit))
    assert [item.day for item in results] == list(buses().days())
    assert rows(lake).height == 20 * 10
    assert lake.version("buses") == -(-20 // days_per_commit), "version 0 is the table without rows"


def test_a_corrected_record_is_appended_and_each_time_sees_its_own_version(lake, quarantine_root, buses, bus_frame):
    ingest_day(buses(), lake, quarantine_root, DAY)
    fixed = bus_frame(DAY).with_columns(
        riders=pl.when(pl.col("bus") == "b3").then(77).otherwise("riders").cast(pl.Int32)
    )
    [result] = ingest_day(buses(lambda day: fixed), lake, quarantine_root, DAY, now_utc=NOON_NEXT)
    assert (result.written, result.corrected, result.skipped) == (1, 1, 9)
    history = rows(lake).filter(pl.col("bus") == "b3")
    assert history["riders"].to_list() == [10, 77]
    assert history["ingested_at"].to_list()[1] == NOON_NEXT, "the source did not stamp it: known from the clock on"
    before = pl.from_arrow(lake.as_of("buses", NOON_NEXT - dt.timedelta(seconds=1), ["bus", "day"]))
    after = pl.from_arrow(lake.as_of("buses", NOON_NEXT, ["bus", "day"]))
    assert before.height == after.height == 10
    assert before.filter(pl.col("bus") == "b3")["riders"].item() == 10
    assert after.filter(pl.col("bus") == "b3")["riders"].item() == 77


def test_a_correction_in_a_backfill_is_newer_than_what_it_corrects(lake, quarantine_root, buses, bus_frame):
    ingest_day(buses(), lake, quarantine_root, DAY)
    ingest_day(buses(lambda day: bus_frame(day, riders=11)), lake, quarantine_root, DAY)
    history = rows(lake).filter(pl.col("bus") == "b0")
    assert history["riders"].to_list() == [10, 11]
    assert history["ingested_at"].diff().to_list()[1] == dt.timedelta(microseconds=1)


def test_a_correction_back_to_the_first_content_is_a_correction_again(lake, quarantine_root, buses, bus_frame):
    for riders in (10, 11, 10):
        ingest_day(buses(lambda day, riders=riders: bus_frame(day, riders=riders)), lake, quarantine_root, DAY)
    assert rows(lake).filter(pl.col("bus") == "b0")["riders"].to_list() == [10, 11, 10]
    assert pl.from_arrow(lake.as_of("buses", NOON_NEXT, ["bus", "day"]))["riders"].unique().to_list() == [10]


def test_records_that_the_source_delivers_later_come_with_a_later_run(lake, quarantine_root, buses):
    half = dt.datetime(2020, 1, 5, 11, 4, tzinfo=dt.UTC)  # b0..b4 are reported by 11:04
    [pending] = ingest_day(buses(), lake, quarantine_root, DAY, now_utc=dt.datetime(2020, 1, 5, 9, tzinfo=dt.UTC))
    [some] = ingest_day(buses(), lake, quarantine_root, DAY, now_utc=half)
    [rest] = ingest_day(buses(), lake, quarantine_root, DAY, now_utc=NOON_NEXT)
    assert pending.status is Status.PENDING
    assert (some.written, rest.written, rest.skipped, rest.corrected) == (5, 5, 5, 0)
    assert rows(lake)["ingested_at"].max() == dt.datetime(2020, 1, 5, 11, 9, tzinfo=dt.UTC), "the source's own time"


def test_a_bad_day_is_kept_whole_in_quarantine_and_the_others_go_on(lake, quarantine_root, buses):
    planted = {("buses", DAY): faults.scaled("riders", 100)}
    results = list(ingest_days(buses(), lake, quarantine_root, faults=planted))
    assert states(results).count("written") == 19
    [bad] = [item for item in results if item.status is Status.QUARANTINED]
    assert bad.day == DAY and "riders" in bad.reason and "0 to 90" in bad.reason and "1000" in bad.reason
    assert DAY not in rows(lake)["day"].to_list()
    [item] = quarantine.find(quarantine_root)
    assert pl.read_parquet(Path(item.folder, quarantine.ROWS)).height == 10
    assert "0 to 90" in Path(item.folder, quarantine.TEXT).read_text()
    assert "<td>riders</td>" in Path(item.folder, quarantine.PAGE).read_text()


def test_a_later_good_delivery_heals_the_day_and_counts_as_known_from_then(lake, quarantine_root, buses):
    ingest_day(buses(), lake, quarantine_root, DAY, faults={"buses": faults.nulled("bus")})
    assert quarantine.find(quarantine_root)[0].resolved is None
    [good] = ingest_day(buses(), lake, quarantine_root, DAY, now_utc=NOON_NEXT)
    assert (good.status, good.healed, good.written) == (Status.WRITTEN, 1, 10)
    assert quarantine.find(quarantine_root)[0].resolved is not None
    assert lake.as_of("buses", NOON_NEXT - dt.timedelta(seconds=1), ["bus", "day"]).num_rows == 0
    assert lake.as_of("buses", NOON_NEXT, ["bus", "day"]).num_rows == 10


def test_a_healed_day_ingested_again_is_not_stamped_again(lake, quarantine_root, buses):
    ingest_day(buses(), lake, quarantine_root, DAY, faults={"buses": faults.nulled("bus")})
    ingest_day(buses(), lake, quarantine_root, DAY, now_utc=NOON_NEXT)
    [again] = ingest_day(buses(), lake, quarantine_root, DAY, now_utc=NOON_NEXT + dt.timedelta(days=1))
    assert (again.status, again.healed) == (Status.UNCHANGED, 0)


def test_the_same_bad_delivery_is_quarantined_once(lake, quarantine_root, buses):
    for _ in range(2):
        ingest_day(buses(), lake, quarantine_root, DAY, faults={"buses": faults.dropped("riders")})
    assert len(quarantine.find(quarantine_root)) == 1
    assert not list(quarantine_root.rglob(".staged-*"))


def test_a_day_that_the_source_lacks_is_missing_not_bad(lake, quarantine_root, buses, bus_frame):
    gap = buses(lambda day: bus_frame(day, buses=0 if day == DAY else 10))
    results = list(ingest_days(gap, lake, quarantine_root))
    assert [item.day for item in results if item.status is Status.MISSING] == [DAY]
    assert not quarantine.find(quarantine_root)


def test_a_fault_that_empties_a_day_is_bad_not_missing(lake, quarantine_root, buses):
    [result] = ingest_day(buses(), lake, quarantine_root, DAY, faults={"buses": faults.truncated(0)})
    assert result.status is Status.QUARANTINED and "0 rows" in result.reason


def test_two_bad_days_with_different_columns_leave_the_good_days_of_their_commit(lake, quarantine_root, buses):
    planted = {
        ("buses", dt.date(2020, 1, 2)): faults.dropped("riders"),
        ("buses", dt.date(2020, 1, 4)): faults.retyped("riders"),
    }
    results = list(ingest_days(buses(), lake, quarantine_root, last=dt.date(2020, 1, 7), faults=planted))
    assert states(results) == ["written", "quarantined", "written", "quarantined", "written", "written", "written"]


def test_ingest_outside_the_source_days_says_what_there_is(lake, quarantine_root, buses):
    with pytest.raises(ValueError, match="2020-01-01 to 2020-01-20"):
        list(ingest_days(buses(), lake, quarantine_root, first=dt.date(2021, 1, 1)))


def test_ingest_wants_a_clock_with_a_time_zone(lake, quarantine_root, buses):
    with pytest.raises(ValueError, match="timezone-aware"):
        ingest_day(buses(), lake, quarantine_root, DAY, now_utc=dt.datetime(2020, 1, 6))


def test_progress_sees_every_result(lake, quarantine_root, buses):
    seen = []
    results = list(ingest_days(buses(), lake, quarantine_root, progress=seen.append))
    assert seen == results
