"""Adapter: what the ingestor accepted and made, from its Redis streams into the lake, each record exactly once.

How: draining.py. Here is what a record becomes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import polars as pl

from flightdeck.contracts.events import (
    ACCEPTED_STREAM,
    RECORDS_FIELD,
    SNAPSHOT_STREAM,
    AcceptedEvent,
    FeatureSnapshot,
    time_of,
)
from pipelines.data.draining import Drained, Entries, append_unseen, drain_stream, set_aside, settle
from pipelines.data.lake import Lake

BATCH = 100  # stream entries per commit; an entry holds one batch of the ingestor
UTC = pl.Datetime("us", "UTC")


@dataclasses.dataclass(frozen=True)
class Moved:
    """One stream and the lake table it becomes.

    Args:
        record: the type of its records.
        key: columns that name a record; all records of one key have one `day`.
        row: a record and its stream id as the columns of `schema`.
    """

    stream: str
    table: str
    record: type
    key: tuple[str, ...]
    schema: Mapping[str, Any]
    row: Callable[[Any, str], tuple[Any, ...]]


def _event_row(event: AcceptedEvent, stream_id: str) -> tuple[Any, ...]:
    at, told = time_of(event.at_us), time_of(event.told_us)
    known = time_of(event.ingested_at_us)
    return (event.id, told.date(), event.kind, at, told, event.late, event.effect.value, event.body, known, stream_id)


def _snapshot_row(row: FeatureSnapshot, stream_id: str) -> tuple[Any, ...]:
    at, names = time_of(row.at_us), list(row.features)
    made, keys = time_of(row.made_at_us), json.dumps(row.keys, sort_keys=True)
    return (row.view, keys, at.date(), at, row.revision, names, list(row.features.values()), made, stream_id)


EVENTS = Moved(
    ACCEPTED_STREAM,
    "events",
    AcceptedEvent,
    ("id", "told_utc"),  # one that comes again when it is long forgotten is accepted again
    {
        "id": pl.String,
        "day": pl.Date,  # of told_utc, UTC: the partition
        "kind": pl.String,
        "at_utc": UTC,
        "told_utc": UTC,
        "late": pl.Boolean,
        "effect": pl.String,
        "body": pl.String,
        "ingested_at": UTC,
        "stream_id": pl.String,
    },
    _event_row,
)
SNAPSHOTS = Moved(
    SNAPSHOT_STREAM,
    "streamed_features",
    FeatureSnapshot,
    ("view", "keys", "event_timestamp", "revision"),
    {
        "view": pl.String,
        "keys": pl.String,  # a JSON object
        "day": pl.Date,  # of event_timestamp, UTC: the partition
        "event_timestamp": UTC,
        "revision": pl.Int32,
        "names": pl.List(pl.String),
        "values": pl.List(pl.Float64),  # in the order of names
        "ingested_at": UTC,
        "stream_id": pl.String,
    },
    _snapshot_row,
)


def drain(
    redis: Any, lake: Lake, moved: Moved, *, consumer: str, batch: int = BATCH, claim_idle_ms: int = 60_000
) -> Drained:
    """Move all entries that are on a stream now into its table; returns when the stream is empty.

    Args:
        redis: a `redis.Redis` with bytes responses, on the streams server.
        lake: gets the table.
        moved: `EVENTS` or `SNAPSHOTS`.
        consumer: this process's name within the group; keep it stable so that a restart resumes its own batch.
        batch: stream entries per commit.
        claim_idle_ms: batches that another consumer took and did not finish for so long are taken over.
    Raises:
        redis.RedisError: the server is away; nothing is lost, run it again.
        LakeError: the lake took nothing; nothing is lost either.
    """
    return drain_stream(
        redis, moved.stream, lambda entries: _commit(redis, lake, moved, entries), consumer=consumer, batch=batch,
        claim_idle_ms=claim_idle_ms,
    )  # fmt: skip


def _commit(redis: Any, lake: Lake, moved: Moved, entries: Entries) -> Drained:
    decode = msgspec.msgpack.Decoder(list[moved.record]).decode  # type: ignore[name-defined]
    rows: list[tuple[Any, ...]] = []
    unreadable = 0
    for key, fields in entries:
        if not fields:
            continue
        try:
            rows += [moved.row(record, key.decode()) for record in decode(fields[RECORDS_FIELD.encode()])]
        except (KeyError, msgspec.DecodeError, OverflowError) as error:
            unreadable += 1
            set_aside(redis, f"{moved.stream}:unreadable", key, fields, error)
    frame = pl.DataFrame(rows, schema=dict(moved.schema), orient="row")
    written = append_unseen(lake, moved.table, frame, moved.key)
    settle(redis, moved.stream, entries)
    return Drained(len(entries), written, frame.height - written, unreadable)
