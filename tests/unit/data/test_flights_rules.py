"""The stated rules for cancelled, diverted and overnight flights, on rows small enough to check by hand."""

import datetime as dt

import polars as pl
import pytest

from pipelines.data.checks import check_rows, pandera_schema
from pipelines.data.lake import Lake
from pipelines.data.leakage import LeakError, assert_known_before, assert_no_outcome_columns
from pipelines.flights import schema, source
from pipelines.flights.entities import entity_frame

ZONES = {
    "LAX": "America/Los_Angeles",
    "HNL": "Pacific/Honolulu",
    "SJU": "America/Puerto_Rico",
    "BOS": "America/New_York",
}
EVERYTHING = (dt.datetime(2012, 1, 1, tzinfo=dt.UTC), dt.datetime(2014, 1, 1, tzinfo=dt.UTC))


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def raw(number: int, dest: str, sched: str, dep, sched_arr, arr, delays, **more):  # noqa: PLR0917  a line of a table
    """A line of flights.csv: `sched` on New York's winter clock (UTC-5), `delays` of departure and arrival, minutes."""
    local = dt.datetime.fromisoformat(sched)
    hour = (local + dt.timedelta(hours=5)).replace(minute=0)
    return {
        "year": local.year, "month": local.month, "day": local.day, "dep_time": dep,
        "sched_dep_time": local.hour * 100 + local.minute, "dep_delay": delays[0], "arr_time": arr,
        "sched_arr_time": sched_arr, "arr_delay": delays[1], "carrier": "UA", "flight": number, "tailnum": "N1UA",
        "origin": "EWR", "dest": dest, "air_time": None, "distance": 500.0, "hour": local.hour, "minute": local.minute,
        "time_hour": hour.strftime("%Y-%m-%dT%H:%M:%SZ"),
    } | more  # fmt: skip


LINES = [
    raw(1, "BOS", "2013-01-15 10:00", 1005, 1100, 1115, (5.0, 15.0)),
    raw(2, "BOS", "2013-01-15 11:00", 1100, 1200, 1214, (0.0, 14.0)),
    raw(3, "BOS", "2013-01-15 12:00", None, 1300, None, (None, None), tailnum=None),  # cancelled
    raw(1, "BOS", "2013-01-16 10:00", None, 1100, None, (None, None), tailnum=None),  # cancelled, flew the day before
    raw(4, "LAX", "2013-01-15 13:00", 1300, 1600, 2030, (0.0, None)),  # diverted, arrived 20:30 in Los Angeles
    raw(5, "LAX", "2013-01-15 14:00", 1410, 1700, None, (10.0, None)),  # diverted, never arrived
    raw(6, "LAX", "2013-01-15 22:30", 2300, 130, 145, (30.0, 15.0)),  # overnight
    raw(7, "HNL", "2013-01-15 09:00", 900, 1500, 1450, (0.0, -10.0)),
    raw(8, "SJU", "2013-01-15 08:00", 800, 1230, 1230, (0.0, 0.0)),
]


@pytest.fixture(scope="module")
def flights() -> pl.DataFrame:
    return source.lake_flights(pl.DataFrame(LINES, schema=source.FLIGHT_COLUMNS), ZONES)


@pytest.fixture
def filled(tmp_path, flights) -> Lake:
    lake = Lake(tmp_path)
    lake.append("flights", flights, partition_by=["day"])
    return lake


def of(frame: pl.DataFrame, number: int, day: str = "2013-01-15", key: str = "flight_id") -> dict:
    return frame.filter(pl.col(key) == f"{day}-UA{number}-EWR").row(0, named=True)


def test_the_hand_made_flights_obey_the_rules_of_the_lake(flights):
    failures = check_rows(flights, schema.FLIGHTS, pandera_schema(schema.FLIGHTS), ["flight_id"])
    assert failures == []


def test_departure_landing_and_knowledge_are_instants(flights):
    flight = of(flights, 1)
    assert flight["sched_dep_utc"] == utc("2013-01-15 15:00")
    assert flight["departed_at_utc"] == utc("2013-01-15 15:05")
    assert flight["landed_at_utc"] == flight["known_at_utc"] == flight["ingested_at"] == utc("2013-01-15 16:15")
    assert flight["event_time"] == flight["sched_dep_utc"]


def test_an_overnight_flight_lands_the_next_day(flights):
    flight = of(flights, 6)
    assert flight["day"] == dt.date(2013, 1, 15)
    assert flight["sched_arr_utc"] == utc("2013-01-16 09:30")
    assert flight["landed_at_utc"] == utc("2013-01-16 09:45")


def test_hawaii_and_puerto_rico_are_read_on_their_own_clocks(flights):
    assert of(flights, 7)["landed_at_utc"] == utc("2013-01-16 00:50")
    assert of(flights, 8)["landed_at_utc"] == utc("2013-01-15 16:30")


def test_a_cancellation_is_known_an_hour_after_schedule_and_has_no_times(flights):
    flight = of(flights, 3)
    assert flight["cancelled"] and not flight["diverted"]
    assert flight["departed_at_utc"] is None and flight["landed_at_utc"] is None
    assert flight["known_at_utc"] == utc("2013-01-15 18:00")


def test_a_diverted_flight_that_arrived_is_known_when_it_did(flights):
    flight = of(flights, 4)
    assert flight["diverted"] and not flight["cancelled"]
    assert flight["landed_at_utc"] == flight["known_at_utc"] == utc("2013-01-16 04:30")


def test_a_diverted_flight_that_never_arrived_is_known_three_hours_after_it_should_have_been_there(flights):
    flight = of(flights, 5)
    assert flight["landed_at_utc"] is None
    assert flight["known_at_utc"] == utc("2013-01-15 19:10") + dt.timedelta(hours=6) + dt.timedelta(hours=3)


def test_a_missing_tail_number_tells_nothing_the_plan_names_the_plane_seen_before(flights):
    cancelled = of(flights, 1, "2013-01-16")
    assert cancelled["tailnum"] is None
    assert cancelled["planned_tailnum"] == "N1UA"


def test_an_unknown_destination_stops_the_source_with_its_name():
    with pytest.raises(source.SourceError, match="SJU"):
        source.lake_flights(pl.DataFrame(LINES, schema=source.FLIGHT_COLUMNS), {"LAX": "x", "HNL": "x", "BOS": "x"})


def test_late_is_fifteen_minutes_or_more_or_cancelled_or_diverted(filled):
    frame = entity_frame(filled, *EVERYTHING, EVERYTHING[1])
    late = {number: of(frame, number, key="entity_id")["label_late"] for number in range(1, 9)}
    assert late == {1: 1, 2: 0, 3: 1, 4: 1, 5: 1, 6: 1, 7: 0, 8: 0}


def test_a_cancelled_flight_has_no_delay_label(filled):
    frame = entity_frame(filled, *EVERYTHING, EVERYTHING[1])
    assert of(frame, 3, key="entity_id")["label_dep_delay_min"] is None
    assert of(frame, 5, key="entity_id")["label_dep_delay_min"] == 10.0


def test_prediction_time_is_two_hours_before_departure_and_bounds_the_window(filled):
    at = utc("2013-01-15 13:00")  # of flight 1
    inside = entity_frame(filled, at, at + dt.timedelta(minutes=1), EVERYTHING[1])
    assert inside["entity_id"].to_list() == ["2013-01-15-UA1-EWR"]
    assert inside["event_timestamp"].to_list() == [at]
    assert entity_frame(filled, at - dt.timedelta(minutes=1), at, EVERYTHING[1]).height == 0


def test_only_outcomes_known_by_then_are_labels(filled):
    known_by = utc("2013-01-15 16:15")
    frame = entity_frame(filled, *EVERYTHING, known_by)
    assert frame["entity_id"].to_list() == ["2013-01-15-UA1-EWR"]
    assert entity_frame(filled, *EVERYTHING, known_by - dt.timedelta(microseconds=1)).height == 0


def test_a_correction_that_came_later_does_not_change_what_was_known(filled, flights):
    worse = flights.filter(pl.col("flight_id") == "2013-01-15-UA2-EWR").with_columns(
        arr_delay_min=pl.lit(99.0, pl.Float32),
        ingested_at=pl.lit(utc("2013-02-01 00:00")).cast(pl.Datetime("us", "UTC")),
    )
    filled.append("flights", worse)
    before = entity_frame(filled, *EVERYTHING, utc("2013-01-31 00:00"))
    after = entity_frame(filled, *EVERYTHING, utc("2013-02-02 00:00"))
    assert of(before, 2, key="entity_id")["label_late"] == 0
    corrected = of(after, 2, key="entity_id")
    assert (corrected["label_late"], corrected["label_known_at_utc"]) == (1, utc("2013-02-01 00:00"))
    assert before.height == after.height == len(LINES)


def test_row_ids_are_unique_and_the_frame_is_ordered_by_time(filled):
    frame = entity_frame(filled, *EVERYTHING, EVERYTHING[1])
    assert frame["row_id"].to_list() == list(range(len(LINES)))
    assert frame["row_id"].dtype == pl.Int64
    assert frame["event_timestamp"].is_sorted()


def test_the_entity_frame_holds_no_outcome_but_labels(filled):
    outcomes = ["cancelled", "diverted", "dep_delay_min", "arr_delay_min", "departed_at_utc", "landed_at_utc",
                "known_at_utc", "ingested_at"]  # fmt: skip
    frame = entity_frame(filled, *EVERYTHING, EVERYTHING[1])
    assert_no_outcome_columns(frame, outcomes)
    with pytest.raises(LeakError, match="arr_delay_min"):
        assert_no_outcome_columns(frame.with_columns(arr_delay_min=0.0), outcomes)


def test_a_planted_leak_is_caught_by_column_and_row(filled):
    frame = entity_frame(filled, *EVERYTHING, EVERYTHING[1])
    honest = frame.with_columns(weather_known_at=pl.col("event_timestamp"))
    assert_known_before(honest, ["weather_known_at"])
    leaking = honest.with_columns(
        weather_known_at=pl.when(pl.col("entity_id") == "2013-01-15-UA6-EWR")
        .then(pl.col("event_timestamp") + dt.timedelta(minutes=7))
        .otherwise("weather_known_at")
    )
    with pytest.raises(LeakError, match=r"weather_known_at: 1 of 9 rows .* up to 7 min; first 2013-01-15-UA6-EWR"):
        assert_known_before(leaking, ["weather_known_at"])


def test_the_outcome_itself_is_always_from_the_future(filled):
    frame = entity_frame(filled, *EVERYTHING, EVERYTHING[1])
    with pytest.raises(LeakError, match="label_known_at_utc: 9 of 9"):
        assert_known_before(frame, ["label_known_at_utc"])


@pytest.mark.parametrize(
    ("columns", "change"),
    [
        ([], {}),
        (["absent"], {}),
        (["entity_id"], {}),
        (["naive"], {"naive": pl.col("event_timestamp").dt.replace_time_zone(None)}),
    ],
)
def test_a_leak_check_that_cannot_tell_refuses(filled, columns, change):
    frame = entity_frame(filled, *EVERYTHING, EVERYTHING[1]).with_columns(**change)
    with pytest.raises(ValueError, match="assert_known_before"):
        assert_known_before(frame, columns)


def test_the_entity_frame_wants_time_zones(filled):
    with pytest.raises(ValueError, match="known_by_utc needs a time zone"):
        entity_frame(filled, *EVERYTHING, dt.datetime(2013, 1, 1))
