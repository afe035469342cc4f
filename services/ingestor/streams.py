"""Adapter: the streams server. Reads events, and writes all that a batch changes in one transaction.

The features' state lies beside the events: what a batch adds to it, its snapshots, its dead letters and its
acknowledgement happen together or not at all. A lease lets one ingestor work at a time: its transaction fails when
another has taken over.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError, WatchError
from redis.retry import Retry

from flightdeck.contracts.clock import CLOCK_KEY, Clock, clock_from_mapping
from flightdeck.contracts.events import (
    ACCEPTED_STREAM,
    DEAD_LETTER_STREAM,
    EVENT_STREAM,
    RECORDS_FIELD,
    SNAPSHOT_STREAM,
)
from services.ingestor.intake import DeadLetter, Entries, Kept, Remembered, Taken

GROUP = "flightdeck-ingestor"
KEPT_KEY = "flightdeck:ingestor:kept"
REMEMBERED_KEY = "flightdeck:ingestor:remembered"
LEASE_KEY = "flightdeck:ingestor:lease"
_TIMEOUT_S = 5.0


class LeaseLost(RuntimeError):
    """Another ingestor works now, or the connection broke while it could not be told: begin from what is kept."""


class Streams:
    """See the module. Every method raises `redis.RedisError` while the server is away."""

    def __init__(self, url: str, *, consumer: str, lease_s: float, dead_letters_kept: int) -> None:
        # No silent second try: a transaction whose answer is lost may have happened.
        self._redis: Any = Redis.from_url(
            url, socket_timeout=_TIMEOUT_S, socket_connect_timeout=_TIMEOUT_S, retry=Retry(NoBackoff(), 0),
            client_name="flightdeck-ingestor",
        )  # fmt: skip
        self._consumer, self._token = consumer, f"{consumer}:{secrets.token_hex(8)}".encode()
        self._lease_ms, self._dead_letters_kept = int(lease_s * 1000), dead_letters_kept
        self._encode = msgspec.msgpack.Encoder().encode

    def clock(self) -> Clock:
        """Everybody's clock.

        Raises:
            ValueError: it is unreadable.
        """
        found = self._redis.hgetall(CLOCK_KEY)
        return clock_from_mapping({name.decode(): value.decode() for name, value in found.items()})

    def acquire(self) -> bool:
        """Whether this ingestor is the one that works now."""
        if self._redis.set(LEASE_KEY, self._token, nx=True, px=self._lease_ms):
            return True
        return bool(self._redis.get(LEASE_KEY) == self._token)

    def release(self) -> None:
        """Let another one work at once."""
        with self._redis.pipeline() as pipe:
            pipe.watch(LEASE_KEY)
            if pipe.get(LEASE_KEY) == self._token:
                pipe.multi()
                pipe.delete(LEASE_KEY)
                pipe.execute()

    def load(self) -> tuple[Kept, dict[str, Remembered]]:
        """What the last transaction left; nothing at first.

        Raises:
            ValueError: it was written by other code.
        """
        try:
            self._redis.xgroup_create(EVENT_STREAM, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        with self._redis.pipeline(transaction=True) as both:
            kept, remembered = both.get(KEPT_KEY).hgetall(REMEMBERED_KEY).execute()
        try:
            decode = msgspec.msgpack.Decoder(Remembered).decode
            found = {name.decode(): decode(content) for name, content in remembered.items()}
            return msgspec.msgpack.decode(kept, type=Kept) if kept else Kept(), found
        except msgspec.DecodeError as error:
            raise ValueError(f"{KEPT_KEY} or {REMEMBERED_KEY} is unreadable: {error}") from error

    def claim(self, count: int, idle_s: float) -> Entries:
        """Up to `count` entries that somebody took `idle_s` ago or earlier and did not finish."""
        found: Entries = []
        start = b"0-0"
        while not found:
            start, claimed, *_ = self._redis.xautoclaim(
                EVENT_STREAM, GROUP, self._consumer, int(idle_s * 1000), start, count=count
            )
            found = [(entry, fields) for entry, fields in claimed if entry is not None]
            if start == b"0-0":
                break
        return found

    def read(self, count: int, block_s: float) -> Entries:
        """Up to `count` new entries; waits for the first one at most `block_s`."""
        answer = self._redis.xreadgroup(
            GROUP, self._consumer, {EVENT_STREAM: ">"}, count=count, block=max(1, int(block_s * 1000))
        )
        if isinstance(answer, Mapping):  # RESP3
            answer = [(name, entries) for name, parts in answer.items() for entries in parts]
        return [entry for _, entries in answer or [] for entry in entries]

    def backlog(self) -> int:
        """Entries that are not done: a finished one is deleted."""
        return int(self._redis.xlen(EVENT_STREAM))

    def commit(self, taken: Taken, kept: Kept) -> None:
        """Write all of it or nothing, and keep the lease.

        Raises:
            LeaseLost: nothing was written, or the answer was lost.
        """
        try:
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.watch(LEASE_KEY)
                if pipe.get(LEASE_KEY) != self._token:
                    raise LeaseLost("another ingestor has taken over")
                pipe.multi()
                pipe.set(LEASE_KEY, self._token, px=self._lease_ms)
                if taken.changes:
                    self._write(pipe, taken, kept)
                pipe.execute()
        except WatchError as error:
            raise LeaseLost(str(error)) from error

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def _write(self, pipe: Any, taken: Taken, kept: Kept) -> None:
        encode = self._encode
        pipe.set(KEPT_KEY, encode(kept))
        if taken.forgotten:
            pipe.hdel(REMEMBERED_KEY, *taken.forgotten)
        if taken.remembered:
            pipe.hset(REMEMBERED_KEY, mapping={name: encode(item) for name, item in taken.remembered.items()})
        for stream, records in ((ACCEPTED_STREAM, taken.accepted), (SNAPSHOT_STREAM, taken.snapshots)):
            if records:
                pipe.xadd(stream, {RECORDS_FIELD: encode(records)})
        for letter in taken.dead:
            pipe.xadd(DEAD_LETTER_STREAM, _letter(letter), maxlen=self._dead_letters_kept, approximate=True)
        if taken.entries:
            pipe.xack(EVENT_STREAM, GROUP, *taken.entries)
            pipe.xdel(EVENT_STREAM, *taken.entries)


def _letter(letter: DeadLetter) -> dict[bytes, bytes]:
    told = {b"entry": letter.entry, b"reason": letter.reason.encode(), b"error": letter.error.encode()}
    return told | {b"original:" + name: value for name, value in letter.fields.items()}


def added_s(entry: bytes) -> float:
    """Unix time, seconds, at which an entry came onto its stream: the server gives ids by its own clock."""
    return int(entry.partition(b"-")[0]) / 1e3
