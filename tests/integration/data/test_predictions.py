import datetime as dt

import msgspec
import polars as pl
import pytest
import redis

from flightdeck.contracts.prediction import PREDICTION_STREAM, PredictionRecord
from pipelines.data import draining, predictions
from pipelines.data.lake import Lake
from pipelines.data.predictions import drain

NOW = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)


def record(request_id: str, row: int = 0, at: dt.datetime = NOW, release: str = "") -> PredictionRecord:
    return PredictionRecord(
        request_id=request_id, row=row, entity_id="2013-07-01-UA1-EWR", asked_at_us=int(at.timestamp() * 1_000_000),
        model="late", version="3", sha256="a" * 64, feature_service="late_v1", features=[1.5, None], feature_hash="f0",
        score=0.25, decision="on_time", degraded=["weather: stale"], ages_s={"weather": 60.0, "plane_history": None},
        latency_us=900, replica="r1", release=release,
    )  # fmt: skip


def publish(streams: redis.Redis, *records: PredictionRecord) -> None:
    streams.xadd(PREDICTION_STREAM, {"r": msgspec.msgpack.encode(list(records))})


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake")


def run(streams, lake, **more):
    return drain(streams, lake, now=lambda: NOW, consumer="c1", **more)


def test_records_reach_the_lake_and_the_stream_is_trimmed(streams, lake):
    publish(streams, record("a", 0), record("a", 1))
    publish(streams, record("b"))
    done = run(streams, lake)
    assert (done.entries, done.written, done.repeated, done.unreadable) == (2, 3, 0, 0)
    assert streams.xlen(PREDICTION_STREAM) == 0
    assert streams.xpending(PREDICTION_STREAM, draining.GROUP)["pending"] == 0
    row = pl.from_arrow(lake.read("predictions")).sort("request_id", "row").row(1, named=True)
    assert (row["request_id"], row["row"], row["day"], row["asked_at_utc"]) == ("a", 1, NOW.date(), NOW)
    assert (row["features"], row["degraded"], row["score"]) == ([1.5, None], ["weather: stale"], 0.25)
    assert dict(zip(row["age_views"], row["ages_s"], strict=True)) == {"weather": 60.0, "plane_history": None}
    assert row["ingested_at"] == NOW


def test_an_empty_stream_is_drained_without_a_table(streams, lake):
    assert run(streams, lake).entries == 0
    assert not lake.exists("predictions")


def test_a_record_logged_twice_is_kept_once(streams, lake):
    publish(streams, record("a"), record("a"))
    publish(streams, record("a"))
    first = run(streams, lake)
    publish(streams, record("a"), record("b"))
    second = run(streams, lake)
    assert (first.written, first.repeated, second.written, second.repeated) == (1, 2, 1, 1)
    assert lake.read("predictions").num_rows == 2


def test_both_answers_to_a_mirrored_request_are_kept(streams, lake):
    publish(streams, record("a", release="1111aaaa"), record("a", release="2222bbbb"))
    done = run(streams, lake)
    assert (done.written, done.repeated) == (2, 0)


def test_a_drain_killed_between_commit_and_acknowledgement_loses_and_repeats_nothing(streams, lake, redis_port):
    class DiesBeforeAck(redis.Redis):
        def pipeline(self, *_, **__):
            raise KeyboardInterrupt

    publish(streams, record("a"), record("b"))
    with DiesBeforeAck(port=redis_port) as dying, pytest.raises(KeyboardInterrupt):
        run(dying, lake)
    assert streams.xlen(PREDICTION_STREAM) == 1, "trimmed before it was acknowledged"
    done = run(streams, lake)
    assert (done.entries, done.written, done.repeated) == (1, 0, 2)
    assert lake.read("predictions").num_rows == 2
    assert streams.xlen(PREDICTION_STREAM) == 0


def test_a_drain_whose_commit_fails_keeps_the_entries(streams, lake, monkeypatch):
    publish(streams, record("a"))

    def full(*_, **__):
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(lake, "append_once", full)
        with pytest.raises(OSError, match="no space"):
            run(streams, lake)
    assert streams.xlen(PREDICTION_STREAM) == 1
    assert run(streams, lake).written == 1


def test_a_batch_that_another_consumer_left_is_taken_over(streams, lake):
    publish(streams, record("a"))
    streams.xgroup_create(PREDICTION_STREAM, draining.GROUP, id="0")
    streams.xreadgroup(draining.GROUP, "dead", {PREDICTION_STREAM: ">"})
    assert run(streams, lake, claim_idle_ms=60_000).entries == 0
    assert run(streams, lake, claim_idle_ms=0).written == 1


def test_an_unreadable_entry_is_kept_aside_and_the_rest_goes_on(streams, lake):
    streams.xadd(PREDICTION_STREAM, {"r": b"\xc1 not msgpack"})
    streams.xadd(PREDICTION_STREAM, {"other": b"field"})
    publish(streams, record("a"))
    done = run(streams, lake)
    assert (done.written, done.unreadable) == (1, 2)
    assert streams.xlen(predictions.DEAD_LETTERS) == 2
    assert streams.xlen(PREDICTION_STREAM) == 0


def test_both_redis_protocols_are_read(streams, lake, redis_port):
    publish(streams, record("a"))
    with redis.Redis(port=redis_port, protocol=3) as newer:
        assert run(newer, lake).written == 1


def test_many_batches_over_two_days_all_arrive(streams, lake):
    for number in range(50):
        publish(streams, record(f"r{number}", at=NOW + dt.timedelta(hours=number)))
    done = run(streams, lake, batch=7)
    assert (done.entries, done.written) == (50, 50)
    assert len(lake.snapshot("predictions").rows_per_day()) == 3
