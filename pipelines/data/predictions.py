"""Adapter: the prediction log, from the Redis stream into the lake table `predictions`, each record exactly once.

A batch is claimed through a consumer group, appended in one Delta commit, and only then acknowledged and trimmed. A
process killed between commit and acknowledgement leaves the batch pending: the next run claims it again and finds its
records, by (request_id, row, release), already in the lake. The release belongs to the key: in a rollout's shadow two
releases answer one request.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
import polars as pl

from flightdeck.contracts.prediction import PREDICTION_STREAM, PredictionRecord
from pipelines.data.lake import Lake, Snapshot

TABLE = "predictions"
GROUP = "flightdeck-lake"
FIELD = b"r"
DEAD_LETTERS = f"{PREDICTION_STREAM}:unreadable"  # entries that are no records, kept as they came
DEAD_LETTERS_KEPT = 10_000
BATCH = 2_000  # stream entries per commit

Entries: TypeAlias = Sequence[tuple[bytes, Mapping[bytes, bytes] | None]]  # None: trimmed while it was pending

KEY = ["request_id", "row", "release"]

SCHEMA: dict[str, Any] = {
    "request_id": pl.String,
    "row": pl.Int32,
    "entity_id": pl.String,
    "day": pl.Date,  # of asked_at_utc, UTC: the partition
    "asked_at_utc": pl.Datetime("us", "UTC"),
    "model": pl.String,
    "version": pl.String,
    "sha256": pl.String,
    "feature_service": pl.String,
    "features": pl.List(pl.Float32),
    "feature_hash": pl.String,
    "score": pl.Float64,
    "decision": pl.String,
    "degraded": pl.List(pl.String),
    "age_views": pl.List(pl.String),
    "ages_s": pl.List(pl.Float64),  # in the order of age_views
    "latency_us": pl.Int64,
    "replica": pl.String,
    "release": pl.String,
    "ingested_at": pl.Datetime("us", "UTC"),
    "stream_id": pl.String,
}


@dataclasses.dataclass(frozen=True)
class Drained:
    """What one drain did: stream entries taken, records appended, records the lake had already, unreadable entries."""

    entries: int = 0
    written: int = 0
    repeated: int = 0
    unreadable: int = 0


def drain(
    redis: Any,
    lake: Lake,
    *,
    now: Callable[[], dt.datetime],
    consumer: str,
    batch: int = BATCH,
    claim_idle_ms: int = 60_000,
) -> Drained:
    """Move all entries that are on the stream now into the lake; returns when it is empty.

    Args:
        redis: a `redis.Redis` with bytes responses, on the streams server.
        lake: gets the table `predictions`.
        now: the clock, for `ingested_at`.
        consumer: this process's name within the group; keep it stable so that a restart resumes its own batch.
        batch: stream entries per commit; an entry holds the records of one flush of a replica.
        claim_idle_ms: batches that another consumer took and did not finish for so long are taken over.
    Raises:
        redis.RedisError: the server is away; nothing is lost, run it again.
    """
    _ensure_group(redis)
    takes: tuple[Callable[[], Entries], ...] = (
        # What an earlier run of this consumer took and did not acknowledge, what others left, then what is new.
        lambda: _entries(redis.xreadgroup(GROUP, consumer, {PREDICTION_STREAM: "0"}, count=batch)),
        lambda: redis.xautoclaim(PREDICTION_STREAM, GROUP, consumer, claim_idle_ms, "0-0", count=batch)[1],
        lambda: _entries(redis.xreadgroup(GROUP, consumer, {PREDICTION_STREAM: ">"}, count=batch)),
    )
    total = Drained()
    for take in takes:
        while entries := take():
            done = _commit(redis, lake, entries, now())
            total = Drained(
                *(a + b for a, b in zip(dataclasses.astuple(total), dataclasses.astuple(done), strict=True))
            )
    return total


def _ensure_group(redis: Any) -> None:
    from redis.exceptions import ResponseError

    try:
        redis.xgroup_create(PREDICTION_STREAM, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def _entries(answer: Any) -> Entries:
    """Entries of the one stream we read, from either protocol: a list of pairs (RESP2) or a mapping (RESP3)."""
    if isinstance(answer, Mapping):
        batches = [entries for parts in answer.values() for entries in parts]
    else:
        batches = [entries for _, entries in answer or []]
    return [entry for entries in batches for entry in entries]


def _commit(redis: Any, lake: Lake, entries: Entries, now_utc: dt.datetime) -> Drained:
    records: list[tuple[str, PredictionRecord]] = []
    unreadable = 0
    for key, fields in entries:
        if not fields:
            continue
        try:
            decoded = _DECODER.decode(fields[FIELD])
        except (KeyError, msgspec.DecodeError, msgspec.ValidationError) as error:
            # One bad entry must not stop the log for ever: it is kept aside, and counted.
            unreadable += 1
            aside = {b"id": key, b"error": str(error).encode(), **fields}
            redis.xadd(DEAD_LETTERS, aside, maxlen=DEAD_LETTERS_KEPT, approximate=True)
            continue
        records += [(key.decode(), record) for record in decoded]
    frame = to_frame(records, now_utc)
    written: list[int] = [0]

    def build(snapshot: Snapshot) -> pl.DataFrame:
        rows = unseen(frame, snapshot)
        written[0] = rows.height
        return rows

    if frame.height:
        # The days name the transaction: two drains that write one day at once cannot both miss the other's rows.
        days = frame["day"].unique().sort()
        lake.append_once(TABLE, [f"predictions/{day}" for day in days], build, partition_by=["day"])
    keys = [key for key, _ in entries]
    with redis.pipeline(transaction=True) as both:  # acknowledged but not trimmed would stay on the stream for ever
        both.xack(PREDICTION_STREAM, GROUP, *keys)
        both.xdel(PREDICTION_STREAM, *keys)
        both.execute()
    return Drained(len(entries), written[0], len(records) - written[0], unreadable)


def unseen(frame: pl.DataFrame, snapshot: Snapshot) -> pl.DataFrame:
    """Rows whose `KEY` is not in the lake on their day, each once."""
    once = frame.unique(subset=KEY, keep="first", maintain_order=True)
    days = sorted(set(once["day"].unique()) & set(snapshot.rows_per_day()))
    if not days:
        return once
    known = snapshot.read(KEY, [("day", "in", days)])
    return once.join(known, on=KEY, how="anti")


def to_frame(records: Sequence[tuple[str, PredictionRecord]], now_utc: dt.datetime) -> pl.DataFrame:
    """Records with their stream ids as the lake's columns `SCHEMA`."""
    rows = [record for _, record in records]
    columns: dict[str, Any] = {
        name: [getattr(record, name) for record in rows]
        for name in (
            "request_id", "row", "entity_id", "model", "version", "sha256", "feature_service", "features",
            "feature_hash", "score", "decision", "degraded", "latency_us", "replica", "release",
        )
    }  # fmt: skip
    columns["asked_at_us"] = [record.asked_at_us for record in rows]
    columns["age_views"] = [list(record.ages_s) for record in rows]
    columns["ages_s"] = [list(record.ages_s.values()) for record in rows]
    columns["stream_id"] = [key for key, _ in records]
    types = {name: dtype for name, dtype in SCHEMA.items() if name in columns} | {"asked_at_us": pl.Int64}
    asked = pl.col("asked_at_us").cast(pl.Datetime("us", "UTC"))
    return (
        pl.DataFrame(columns, schema_overrides=types)
        .with_columns(asked_at_utc=asked, day=asked.dt.date(), ingested_at=pl.lit(now_utc).cast(SCHEMA["ingested_at"]))
        .select(list(SCHEMA))
    )


_DECODER = msgspec.msgpack.Decoder(list[PredictionRecord])
