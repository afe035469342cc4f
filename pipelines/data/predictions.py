"""Adapter: the prediction log, from the Redis stream into the lake table `predictions`, each record exactly once.

How: draining.py. The release belongs to a record's key: in a rollout's shadow two releases answer one request.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import polars as pl

from flightdeck.contracts.prediction import PREDICTION_STREAM, PredictionRecord
from pipelines.data.draining import Drained, Entries, append_unseen, drain_stream, set_aside, settle
from pipelines.data.lake import Lake

TABLE = "predictions"
FIELD = b"r"
DEAD_LETTERS = f"{PREDICTION_STREAM}:unreadable"  # entries that are no records, kept as they came
BATCH = 2_000  # stream entries per commit

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
    return drain_stream(
        redis, PREDICTION_STREAM, lambda entries: _commit(redis, lake, entries, now()), consumer=consumer, batch=batch,
        claim_idle_ms=claim_idle_ms,
    )  # fmt: skip


def _commit(redis: Any, lake: Lake, entries: Entries, now_utc: dt.datetime) -> Drained:
    records: list[tuple[str, PredictionRecord]] = []
    unreadable = 0
    for key, fields in entries:
        if not fields:
            continue
        try:
            decoded = _DECODER.decode(fields[FIELD])
        except (KeyError, msgspec.DecodeError, msgspec.ValidationError) as error:
            unreadable += 1
            set_aside(redis, DEAD_LETTERS, key, fields, error)
            continue
        records += [(key.decode(), record) for record in decoded]
    written = append_unseen(lake, TABLE, to_frame(records, now_utc), KEY)
    settle(redis, PREDICTION_STREAM, entries)
    return Drained(len(entries), written, len(records) - written, unreadable)


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
