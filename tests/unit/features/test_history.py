"""History snapshots, small enough to count by hand. The snapshot of a day is at 09:00 UTC."""

import datetime as dt

import polars as pl
import pytest

from feature_repo.transforms import BUILDS
from pipelines.features.build import build_view

NINE = dt.datetime(2013, 5, 20, 9, tzinfo=dt.UTC)
DAY = dt.timedelta(days=1)
HOUR = dt.timedelta(hours=1)


def snapshot(table, at=NINE, view="carrier_history", **tables):
    rows = pl.from_arrow(build_view(BUILDS[view], {"flights": table, **tables}, at, at))
    return rows.to_dicts()


def test_shares_and_means_by_hand(flights):
    table = flights(
        {"sched_dep_utc": NINE - 5 * HOUR, "dep_delay_min": 10.0, "arr_delay_min": 20.0},
        {"sched_dep_utc": NINE - 6 * HOUR, "dep_delay_min": -2.0, "arr_delay_min": -5.0},
        {"sched_dep_utc": NINE - 7 * HOUR, "cancelled": True},
        {"sched_dep_utc": NINE - 10 * DAY, "dep_delay_min": 4.0, "arr_delay_min": 14.0},
    )
    [row] = snapshot(table)
    assert row["carrier"] == "UA"
    assert row["carrier_flights_7d"] == 3
    assert row["carrier_flights_30d"] == 4
    assert row["carrier_late_share_7d"] == pytest.approx(2 / 3)  # one late, one cancelled
    assert row["carrier_late_share_30d"] == 0.5
    assert row["carrier_cancelled_share_7d"] == pytest.approx(1 / 3)
    assert row["carrier_mean_dep_delay_min_7d"] == 4.0  # of the two that flew
    assert row["carrier_mean_dep_delay_min_30d"] == 4.0


def test_the_window_is_open_at_its_start_and_closed_at_the_snapshot(flights):
    at_start = {"sched_dep_utc": NINE - 7 * DAY - 2 * HOUR}  # lands exactly 7 days before the snapshot
    at_end = {"sched_dep_utc": NINE - 2 * HOUR}  # lands exactly at the snapshot
    after = {"sched_dep_utc": NINE - 2 * HOUR + dt.timedelta(microseconds=1)}
    [row] = snapshot(flights(at_start, at_end, after))
    assert row["carrier_flights_7d"] == 1
    assert row["carrier_flights_30d"] == 2


def test_an_outcome_delivered_after_the_snapshot_is_not_in_it_and_is_in_the_next(flights):
    table = flights(
        {"sched_dep_utc": NINE - 5 * HOUR},
        {"sched_dep_utc": NINE - 5 * HOUR, "ingested_at": NINE + HOUR},
    )
    assert snapshot(table)[0]["carrier_flights_7d"] == 1
    assert snapshot(table, NINE + DAY)[0]["carrier_flights_7d"] == 2


def test_a_correction_counts_from_its_delivery_on_and_replaces_the_first_version(flights):
    first = {"flight_id": "x", "sched_dep_utc": NINE - 5 * HOUR, "arr_delay_min": 0.0}
    corrected = {**first, "arr_delay_min": 60.0, "known_at_utc": NINE - 3 * HOUR, "ingested_at": NINE + 5 * HOUR}
    table = flights(first, corrected)
    assert snapshot(table)[0]["carrier_late_share_7d"] == 0
    [later] = snapshot(table, NINE + DAY)
    assert later["carrier_late_share_7d"] == 1
    assert later["carrier_flights_7d"] == 1


def test_without_a_flight_for_thirty_days_there_is_no_row(flights):
    table = flights({"sched_dep_utc": NINE - 20 * DAY})
    assert len(snapshot(table)) == 1
    assert snapshot(table, NINE + 11 * DAY) == []


def test_without_a_flight_for_seven_days_the_longer_window_stands_in(flights):
    [row] = snapshot(flights({"sched_dep_utc": NINE - 20 * DAY, "arr_delay_min": 60.0, "dep_delay_min": 50.0}))
    assert row["carrier_flights_7d"] == 0
    assert row["carrier_late_share_7d"] == row["carrier_late_share_30d"] == 1
    assert row["carrier_mean_dep_delay_min_7d"] == 50


def test_routes_are_kept_apart_and_carry_their_distance(flights):
    table = flights(
        {"sched_dep_utc": NINE - 5 * HOUR},
        {"sched_dep_utc": NINE - 5 * HOUR, "dest": "BOS", "distance_mi": 200.0, "cancelled": True},
    )
    rows = {row["dest"]: row for row in snapshot(table, view="route_history")}
    assert rows["IAH"]["route_cancelled_share_7d"] == 0
    assert rows["BOS"]["route_cancelled_share_7d"] == 1
    assert rows["BOS"]["route_distance_mi"] == 200


def test_a_plane_outside_the_register_has_history_but_neither_age_nor_seats(flights):
    planes = pl.DataFrame({"tailnum": ["N1"], "year": [2003], "seats": [150]}).to_arrow()
    table = flights(
        {"sched_dep_utc": NINE - 5 * HOUR},
        {"sched_dep_utc": NINE - 5 * HOUR, "tailnum": "N2"},
        {"sched_dep_utc": NINE - 5 * HOUR, "tailnum": None, "cancelled": True},
    )
    rows = {row["tailnum"]: row for row in snapshot(table, view="plane_history", planes=planes)}
    assert set(rows) == {"N1", "N2"}
    assert (rows["N1"]["plane_age_years"], rows["N1"]["plane_seats"]) == (10, 150)
    assert (rows["N2"]["plane_age_years"], rows["N2"]["plane_seats"]) == (None, None)
    assert rows["N2"]["plane_flights_7d"] == 1


def test_a_range_in_pieces_gives_the_rows_of_the_whole(flights):
    table = flights(*({"sched_dep_utc": NINE - n * 9 * HOUR, "dep_delay_min": float(n)} for n in range(60)))
    build = BUILDS["carrier_history"]
    whole = pl.from_arrow(build_view(build, {"flights": table}, NINE - 3 * DAY, NINE))
    pieces = [
        pl.from_arrow(build_view(build, {"flights": table}, NINE - n * DAY, NINE - n * DAY)) for n in (3, 2, 1, 0)
    ]
    assert whole.equals(pl.concat(pieces))


def test_timestamps_without_zone_are_refused(flights):
    naive = pl.from_arrow(flights({"sched_dep_utc": NINE})).with_columns(
        pl.col("ingested_at").dt.replace_time_zone(None)
    )
    with pytest.raises(ValueError, match="ingested_at must hold UTC"):
        snapshot(naive.to_arrow())
