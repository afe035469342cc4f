import msgspec
import polars as pl
import pytest
import redis

from flightdeck.contracts.events import ACCEPTED_STREAM, SNAPSHOT_STREAM, AcceptedEvent, Effect, FeatureSnapshot
from pipelines.data.draining import GROUP
from pipelines.data.events import EVENTS, SNAPSHOTS, drain
from pipelines.data.lake import Lake

DAY_US = 86_400_000_000
NOW_US = 15_887 * DAY_US  # 1 July 2013


def event(name: str, at_us: int = NOW_US, told_us: int = NOW_US, effect: Effect = Effect.APPLIED) -> AcceptedEvent:
    return AcceptedEvent(name, "left", at_us, told_us, at_us + 5, False, effect, f'{{"id": "{name}"}}')


def row(at_us: int = NOW_US, revision: int = 0, stop: str = "A") -> FeatureSnapshot:
    return FeatureSnapshot("waiting", {"stop": stop}, {"people": 3.0, "age_min": None}, at_us, revision, at_us + 5)


def publish(streams: redis.Redis, stream: str, *records: object) -> None:
    streams.xadd(stream, {"r": msgspec.msgpack.encode(list(records))})


@pytest.fixture
def lake(tmp_path) -> Lake:
    return Lake(tmp_path / "lake")


def test_events_reach_the_lake_and_the_stream_is_trimmed(streams, lake):
    publish(streams, ACCEPTED_STREAM, event("a"), event("b", NOW_US + DAY_US, NOW_US + DAY_US))
    publish(streams, ACCEPTED_STREAM, event("c", effect=Effect.EXPIRED))
    done = drain(streams, lake, EVENTS, consumer="c1")
    assert (done.entries, done.written, done.repeated, done.unreadable) == (2, 3, 0, 0)
    assert streams.xlen(ACCEPTED_STREAM) == 0
    assert streams.xpending(ACCEPTED_STREAM, GROUP)["pending"] == 0
    found = pl.from_arrow(lake.read("events")).sort("id").to_dicts()
    assert [(item["id"], str(item["day"]), item["effect"]) for item in found] == [
        ("a", "2013-07-01", "applied"), ("b", "2013-07-02", "applied"), ("c", "2013-07-01", "expired"),
    ]  # fmt: skip
    assert found[0]["body"] == '{"id": "a"}'
    assert (found[0]["ingested_at"] - found[0]["at_utc"]).microseconds == 5


def test_rows_of_features_reach_the_lake_with_their_revisions(streams, lake):
    publish(streams, SNAPSHOT_STREAM, row(), row(stop="B"))
    publish(streams, SNAPSHOT_STREAM, row(revision=1))
    assert drain(streams, lake, SNAPSHOTS, consumer="c1").written == 3
    found = pl.from_arrow(lake.read("streamed_features")).sort("keys", "revision").to_dicts()
    assert [(item["keys"], item["revision"]) for item in found] == [
        ('{"stop": "A"}', 0), ('{"stop": "A"}', 1), ('{"stop": "B"}', 0),
    ]  # fmt: skip
    assert dict(zip(found[0]["names"], found[0]["values"], strict=True)) == {"people": 3.0, "age_min": None}


def test_an_event_accepted_twice_is_kept_once(streams, lake):
    publish(streams, ACCEPTED_STREAM, event("a"), event("a"))
    first = drain(streams, lake, EVENTS, consumer="c1")
    publish(streams, ACCEPTED_STREAM, event("a", NOW_US + 9 * DAY_US, NOW_US), event("b"))  # clamped elsewhere
    second = drain(streams, lake, EVENTS, consumer="c1")
    assert (first.written, first.repeated, second.written, second.repeated) == (1, 1, 1, 1)
    assert lake.read("events").num_rows == 2


@pytest.mark.parametrize("moved", [EVENTS, SNAPSHOTS], ids=lambda moved: moved.table)
def test_a_drain_killed_between_commit_and_acknowledgement_loses_and_repeats_nothing(streams, lake, redis_port, moved):
    class DiesBeforeAck(redis.Redis):
        def pipeline(self, *_, **__):
            raise KeyboardInterrupt

    publish(streams, moved.stream, *([event("a"), event("b")] if moved is EVENTS else [row(), row(stop="B")]))
    with DiesBeforeAck(port=redis_port) as dying, pytest.raises(KeyboardInterrupt):
        drain(dying, lake, moved, consumer="c1")
    assert streams.xlen(moved.stream) == 1, "trimmed before it was acknowledged"
    done = drain(streams, lake, moved, consumer="c1")
    assert (done.entries, done.written, done.repeated) == (1, 0, 2)
    assert lake.read(moved.table).num_rows == 2
    assert streams.xlen(moved.stream) == 0


def test_a_batch_that_another_consumer_left_is_taken_over(streams, lake):
    publish(streams, ACCEPTED_STREAM, event("a"))
    streams.xgroup_create(ACCEPTED_STREAM, GROUP, id="0")
    streams.xreadgroup(GROUP, "dead", {ACCEPTED_STREAM: ">"})
    assert drain(streams, lake, EVENTS, consumer="c1", claim_idle_ms=60_000).entries == 0
    assert drain(streams, lake, EVENTS, consumer="c1", claim_idle_ms=0).written == 1


def test_a_lake_that_takes_nothing_keeps_the_entries(streams, lake, monkeypatch):
    publish(streams, ACCEPTED_STREAM, event("a"))

    def full(*_, **__):
        raise OSError("no space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(lake, "append_once", full)
        with pytest.raises(OSError, match="no space"):
            drain(streams, lake, EVENTS, consumer="c1")
    assert streams.xlen(ACCEPTED_STREAM) == 1
    assert drain(streams, lake, EVENTS, consumer="c1").written == 1


def test_an_unreadable_entry_is_kept_aside_and_the_rest_goes_on(streams, lake, redis_port):
    streams.xadd(ACCEPTED_STREAM, {"r": b"\xc1 not msgpack"})
    streams.xadd(ACCEPTED_STREAM, {"other": b"field"})
    publish(streams, ACCEPTED_STREAM, event("a"))
    with redis.Redis(port=redis_port, protocol=3) as newer:
        done = drain(newer, lake, EVENTS, consumer="c1")
    assert (done.written, done.unreadable) == (1, 2)
    assert streams.xlen(f"{ACCEPTED_STREAM}:unreadable") == 2
    assert streams.xlen(ACCEPTED_STREAM) == 0


def test_an_empty_stream_is_drained_without_a_table(streams, lake):
    assert drain(streams, lake, EVENTS, consumer="c1").entries == 0
    assert not lake.exists("events")


def test_the_command_moves_both_streams_and_says_how_much(streams, tmp_path):
    from typer.testing import CliRunner

    from flightdeck.cli.data import app

    publish(streams, ACCEPTED_STREAM, event("a"), event("b"))
    publish(streams, SNAPSHOT_STREAM, row())
    port = streams.connection_pool.connection_kwargs["port"]
    words = ["events", "--redis", f"redis://127.0.0.1:{port}/0", "--state", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "events: 2 rows written, 0 already there" in done.output
    assert "streamed_features: 1 rows written" in done.output
    assert Lake(tmp_path / "lake").read("events").num_rows == 2
