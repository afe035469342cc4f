import datetime as dt

import pandas as pd
import pytest
import redis

from feature_repo.transforms import BUILDS, CONGESTION_FEATURES
from flightdeck.contracts.online import registry_version_key
from pipelines.data.leakage import LeakError
from pipelines.features.build import build_features
from pipelines.features.consistency import check, online_rows
from pipelines.features.export import export
from pipelines.features.materialize import OnlineStoreUnavailable, materialize, write_online
from pipelines.features.registry import RegistryError, open_store
from pipelines.features.registry_version import version_of
from pipelines.features.truncation import assert_no_future

pytestmark = pytest.mark.xdist_group("feast")  # its import and the state folder cost seconds, once

NOW = dt.datetime(2013, 1, 10, 14, 10, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


def congestion_row(at: dt.datetime, value: float | None = 1.5, origin: str = "EWR") -> dict:
    return {"origin": origin, "event_timestamp": at, **dict.fromkeys(CONGESTION_FEATURES, value)}


def served(store, origin: str = "EWR"):
    return online_rows(store, BUILDS["congestion"], [{"origin": origin}])[0]["departures_1h"]


def test_served_features_equal_a_recomputation_from_the_sources(empty_online, layout, lake, store, use_case):
    materialize(layout, NOW, full=True, store=store)
    result = check(use_case, lake, store, NOW, sample=60)
    assert result.equal, result.mismatches[:3]
    assert set(result.compared) == set(BUILDS)


def test_a_wrong_value_is_reported_with_view_feature_and_entity(empty_online, layout, lake, store, use_case):
    materialize(layout, NOW, full=True, store=store)
    write_online(store, "congestion", [congestion_row(NOW, origin="JFK")], now_utc=NOW)
    result = check(use_case, lake, store, NOW, views=["congestion"])
    assert not result.equal
    assert {(item.view, item.entity) for item in result.mismatches} == {("congestion", "origin=JFK")}
    assert {item.feature for item in result.mismatches} == set(CONGESTION_FEATURES)


def test_an_online_store_that_lags_behind_is_a_mismatch(empty_online, layout, lake, store, use_case):
    materialize(layout, NOW - 3 * HOUR, full=True, store=store)
    assert not check(use_case, lake, store, NOW, views=["weather"]).equal


def test_a_materialization_tells_readers_the_registry_it_was_made_with(empty_online, layout, store):
    materialize(layout, NOW, views=["weather"], full=True, store=store)
    told = empty_online.get(registry_version_key(store.project))
    assert told.decode() == version_of(store)


def test_materializing_goes_on_where_it_ended(empty_online, layout, store):
    materialize(layout, NOW, full=True, store=store)
    again = materialize(layout, NOW, store=store)
    assert {item.rows for item in again} == {0}
    [later] = materialize(layout, NOW + HOUR, views=["weather"], store=store)
    assert (later.from_utc, later.rows) == (NOW.replace(minute=0), 3)


def test_rows_that_the_export_lacked_as_yet_are_not_passed_over(empty_online, layout, lake, store, use_case):
    end = dt.datetime(2013, 1, 12, tzinfo=dt.UTC)  # of the export
    [before] = materialize(layout, end + 3 * HOUR, views=["weather"], full=True, store=store)
    assert before.rows == 3
    build_features(use_case, lake, end, end + 2 * HOUR, views=["weather"])
    export(lake, layout)
    [after] = materialize(layout, end + 3 * HOUR, views=["weather"], store=store)
    assert (after.from_utc, after.rows) == (end, 3)


def test_a_row_dated_in_the_future_is_set_back_to_now_and_does_not_block_its_key(empty_online, store):
    written = write_online(store, "congestion", [congestion_row(NOW + 5 * HOUR, 7.0)], now_utc=NOW)
    assert written.clamped == 1
    assert served(store) == (7.0, NOW)
    write_online(store, "congestion", [congestion_row(NOW + HOUR, 8.0)], now_utc=NOW + HOUR)
    assert served(store) == (8.0, NOW + HOUR)


def test_an_older_row_never_replaces_a_newer_one(empty_online, store):
    write_online(store, "congestion", [congestion_row(NOW, 2.0)], now_utc=NOW)
    write_online(store, "congestion", [congestion_row(NOW - HOUR, 1.0)], now_utc=NOW)
    assert served(store) == (2.0, NOW)


def test_a_direct_write_is_stored_as_feasts_push_stores_it(empty_online, store):
    row = congestion_row(NOW, 2.25)
    store.push("congestion_push", pd.DataFrame([{**row, "created_timestamp": NOW}]))
    pushed = {key: empty_online.hgetall(key) for key in empty_online.scan_iter()}
    empty_online.flushall()
    write_online(store, "congestion", [row], now_utc=NOW)
    assert {key: empty_online.hgetall(key) for key in empty_online.scan_iter()} == pushed != {}


def test_a_missing_value_is_served_as_missing(empty_online, store):
    write_online(store, "congestion", [congestion_row(NOW, None)], now_utc=NOW)
    assert served(store)[0] is None


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (congestion_row(NOW, float("nan")), "departures_1h is nan"),
        (congestion_row(NOW, float("inf")), "departures_1h is inf"),
        ({"origin": "EWR", "event_timestamp": NOW}, "needs departures_1h"),
        (congestion_row(NOW.replace(tzinfo=None)), "needs a time zone"),
        ({**congestion_row(NOW), "origin": None}, "a value for every key"),
    ],
    ids=["nan", "inf", "missing feature", "naive time", "null key"],
)
def test_a_bad_row_is_refused_with_the_reason(empty_online, store, row, words):
    with pytest.raises(ValueError, match=words):
        write_online(store, "congestion", [row], now_utc=NOW)
    assert empty_online.dbsize() == 0


def test_an_unknown_view_is_refused(store):
    with pytest.raises(RegistryError, match="nonsense"):
        write_online(store, "nonsense", [], now_utc=NOW)


def test_an_online_store_that_is_down_is_told_and_not_recorded_as_done(layout, store):
    down = open_store(layout, "127.0.0.1:1")
    before = store.get_feature_view("weather").most_recent_end_time
    with pytest.raises(OnlineStoreUnavailable, match="online store at 127"):
        materialize(layout, NOW + 20 * HOUR, views=["weather"], full=True, store=down)
    assert store.get_feature_view("weather").most_recent_end_time == before


def test_no_feature_of_a_real_day_knows_the_future(use_case, lake):
    compared = assert_no_future(use_case, lake, NOW, views=["carrier_history", "weather", "congestion"])
    assert min(compared.values()) > 0


def test_reading_from_an_online_store_that_is_down_is_told_too(store, monkeypatch):
    def away(**_):  # a real one is tried again for many seconds by Feast's client
        raise redis.ConnectionError("refused")

    monkeypatch.setattr(store, "get_online_features", away)
    with pytest.raises(OnlineStoreUnavailable, match=r"does not answer \(refused\)"):
        served(store)


def test_a_view_that_does_not_exist_is_named(use_case, lake):
    with pytest.raises(ValueError, match="no view 'nonsense'; there are: carrier_history"):
        assert_no_future(use_case, lake, NOW, views=["nonsense"])


def test_at_the_end_of_the_data_nothing_can_be_told_about_the_future(use_case, lake):
    with pytest.raises((ValueError, LeakError), match="nothing can be told"):
        assert_no_future(use_case, lake, dt.datetime(2013, 3, 1, tzinfo=dt.UTC), views=["congestion"])
