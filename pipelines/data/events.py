"""Adapter: what the ingestor accepted and made, from its Redis streams into the lake, each record exactly once.

As predictions.py: a batch is claimed through a consumer group, appended in one Delta commit, and only then acknowledged
and trimmed. A process killed in between finds its records, by their key, already in the lake.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

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
from pipelines.data.lake import Lake, Snapshot

GROUP = "flightdeck-lake"
DEAD_LETTERS_KEPT = 10_000
BATCH = 100  # stream entries per commit; an entry holds one batch of the ingestor

Entries: TypeAlias = Sequence[tuple[bytes | None, Mapping[bytes, bytes] | None]]
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


@dataclasses.dataclass(frozen=True)
class Drained:
    """What one drain did: stream entries taken, records appended, records the lake had already, unreadable entries."""

    entries: int = 0
    written: int = 0
    repeated: int = 0
    unreadable: int = 0


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
    total = Drained()
    for entries in _taken(redis, moved.stream, consumer, batch, claim_idle_ms):
        done = _commit(redis, lake, moved, entries)
        total = Drained(*(a + b for a, b in zip(dataclasses.astuple(total), dataclasses.astuple(done), strict=True)))
    return total


def _taken(redis: Any, stream: str, consumer: str, batch: int, claim_idle_ms: int) -> Iterator[Entries]:
    """What an earlier run of this consumer did not finish, what others left, then what is new."""
    from redis.exceptions import ResponseError

    try:
        redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise
    takes: tuple[Callable[[], Entries], ...] = (
        lambda: _entries(redis.xreadgroup(GROUP, consumer, {stream: "0"}, count=batch)),
        lambda: redis.xautoclaim(stream, GROUP, consumer, claim_idle_ms, "0-0", count=batch)[1],
        lambda: _entries(redis.xreadgroup(GROUP, consumer, {stream: ">"}, count=batch)),
    )
    for take in takes:
        while entries := [entry for entry in take() if entry[0] is not None]:
            yield entries


def _entries(answer: Any) -> Entries:
    """Entries of the one stream we read, from either protocol: a list of pairs (RESP2) or a mapping (RESP3)."""
    if isinstance(answer, Mapping):
        answer = [(None, entries) for parts in answer.values() for entries in parts]
    return [entry for _, entries in answer or [] for entry in entries]


def _commit(redis: Any, lake: Lake, moved: Moved, entries: Entries) -> Drained:
    decode = msgspec.msgpack.Decoder(list[moved.record]).decode  # type: ignore[name-defined]
    rows: list[tuple[Any, ...]] = []
    unreadable = 0
    for key, fields in entries:
        if not fields:
            continue
        assert key is not None
        try:
            rows += [moved.row(record, key.decode()) for record in decode(fields[RECORDS_FIELD.encode()])]
        except (KeyError, msgspec.DecodeError, OverflowError) as error:
            unreadable += 1  # kept aside, and counted: one bad entry must not stop all others
            aside = {b"id": key, b"error": str(error).encode(), **fields}
            redis.xadd(f"{moved.stream}:unreadable", aside, maxlen=DEAD_LETTERS_KEPT, approximate=True)
    frame = pl.DataFrame(rows, schema=dict(moved.schema), orient="row")
    written = 0

    def build(snapshot: Snapshot) -> pl.DataFrame:
        nonlocal written
        found = unseen(frame, snapshot, moved.key)
        written = found.height
        return found

    if frame.height:
        # The days name the transaction: two drains that write one day at once cannot both miss the other's rows.
        days = frame["day"].unique().sort()
        lake.append_once(moved.table, [f"{moved.table}/{day}" for day in days], build, partition_by=["day"])
    keys = [key for key, _ in entries]
    with redis.pipeline(transaction=True) as both:  # acknowledged but not trimmed would stay on the stream for ever
        both.xack(moved.stream, GROUP, *keys)
        both.xdel(moved.stream, *keys)
        both.execute()
    return Drained(len(entries), written, frame.height - written, unreadable)


def unseen(frame: pl.DataFrame, snapshot: Snapshot, key: Sequence[str]) -> pl.DataFrame:
    """Rows whose key is not in the lake on their day, each once."""
    once = frame.unique(subset=list(key), keep="first", maintain_order=True)
    days: list[dt.date] = sorted(set(once["day"].unique()) & set(snapshot.rows_per_day()))
    if not days:
        return once
    return once.join(snapshot.read(list(key), [("day", "in", days)]), on=list(key), how="anti")
