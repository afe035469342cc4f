"""Adapter: records from a Redis stream into a lake table, each exactly once, whatever they are.

A batch is claimed through a consumer group, appended in one Delta commit, and only then acknowledged and trimmed. A
process killed between commit and acknowledgement leaves the batch pending: the next run claims it again and finds its
records, by their key, already in the lake.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import polars as pl

from pipelines.data.lake import Lake, Snapshot

GROUP = "flightdeck-lake"
DEAD_LETTERS_KEPT = 10_000

Entries: TypeAlias = Sequence[tuple[bytes, Mapping[bytes, bytes] | None]]  # None: trimmed while it was pending


@dataclasses.dataclass(frozen=True)
class Drained:
    """What one drain did: stream entries taken, records appended, records the lake had already, unreadable entries."""

    entries: int = 0
    written: int = 0
    repeated: int = 0
    unreadable: int = 0


def drain_stream(
    redis: Any, stream: str, commit: Callable[[Entries], Drained], *, consumer: str, batch: int, claim_idle_ms: int
) -> Drained:
    """Hand every entry that is on the stream now to `commit`, which settles it; returns when the stream is empty.

    Args:
        redis: a `redis.Redis` with bytes responses, on the streams server.
        consumer: this process's name within the group; keep it stable so that a restart resumes its own batch.
        batch: entries per commit.
        claim_idle_ms: batches that another consumer took and did not finish for so long are taken over.
    Raises:
        redis.RedisError: the server is away; nothing is lost, run it again.
    """
    _ensure_group(redis, stream)
    takes: tuple[Callable[[], Any], ...] = (
        # What an earlier run of this consumer took and did not acknowledge, what others left, then what is new.
        lambda: _entries(redis.xreadgroup(GROUP, consumer, {stream: "0"}, count=batch)),
        lambda: redis.xautoclaim(stream, GROUP, consumer, claim_idle_ms, "0-0", count=batch)[1],
        lambda: _entries(redis.xreadgroup(GROUP, consumer, {stream: ">"}, count=batch)),
    )
    total = Drained()
    for take in takes:
        while entries := [entry for entry in take() if entry[0] is not None]:
            done = commit(entries)
            total = Drained(
                *(a + b for a, b in zip(dataclasses.astuple(total), dataclasses.astuple(done), strict=True))
            )
    return total


def set_aside(redis: Any, dead_letters: str, entry: bytes, fields: Mapping[bytes, bytes], error: Exception) -> None:
    """Keep an entry that is no record as it came: one bad entry must not stop all others."""
    aside = {b"id": entry, b"error": str(error).encode(), **fields}
    redis.xadd(dead_letters, aside, maxlen=DEAD_LETTERS_KEPT, approximate=True)


def append_unseen(lake: Lake, table: str, frame: pl.DataFrame, key: Sequence[str]) -> int:
    """Append the rows that the table lacks, in one commit; returns how many.

    Args:
        frame: with `day`, the partition; all records of one key have one `day`.
        key: columns that name a record.
    Raises:
        LakeError: the lake took nothing.
    """
    written = 0

    def build(snapshot: Snapshot) -> pl.DataFrame:
        nonlocal written
        found = _unseen(frame, snapshot, list(key))
        written = found.height
        return found

    if frame.height:
        # The days name the transaction: two drains that write one day at once cannot both miss the other's rows.
        days = frame["day"].unique().sort()
        lake.append_once(table, [f"{table}/{day}" for day in days], build, partition_by=["day"])
    return written


def settle(redis: Any, stream: str, entries: Entries) -> None:
    """Acknowledge and trim what the lake has."""
    keys = [key for key, _ in entries]
    with redis.pipeline(transaction=True) as both:  # acknowledged but not trimmed would stay on the stream for ever
        both.xack(stream, GROUP, *keys)
        both.xdel(stream, *keys)
        both.execute()


def _ensure_group(redis: Any, stream: str) -> None:
    from redis.exceptions import ResponseError

    try:
        redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
    except ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise


def _entries(answer: Any) -> list[Any]:
    """Entries of the one stream we read, from either protocol: a list of pairs (RESP2) or a mapping (RESP3)."""
    if isinstance(answer, Mapping):
        batches = [entries for parts in answer.values() for entries in parts]
    else:
        batches = [entries for _, entries in answer or []]
    return [entry for entries in batches for entry in entries]


def _unseen(frame: pl.DataFrame, snapshot: Snapshot, key: list[str]) -> pl.DataFrame:
    """Rows whose key is not in the lake on their day, each once."""
    once = frame.unique(subset=key, keep="first", maintain_order=True)
    days: list[dt.date] = sorted(set(once["day"].unique()) & set(snapshot.rows_per_day()))
    if not days:
        return once
    return once.join(snapshot.read(key, [("day", "in", days)]), on=key, how="anti")
