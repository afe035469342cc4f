"""Adapter: reads Feast's online store in Redis without Feast, in one round trip and within a deadline.

The key layout is Feast's own (feast/infra/online_stores/redis.py and key_encoding_utils.py, entity key serialization
version 3, as of Feast 0.67): one hash per set of entity keys, named by the serialized keys and the project; one field
per feature, named by the murmur3 hash of `view:feature`; the event time in the field `_ts:<view>`. Importing Feast
costs 6 s and 180 MB; a contract test holds this module to `get_online_features`.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import mmh3
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from flightdeck.contracts.online import registry_version_key
from services.predictor.circuit import Circuit
from services.predictor.features import NAN, StoredValues, StoredView

_STRING = 2  # feast.types ValueType.STRING
_VARINT, _FIXED64, _FIXED32 = 0, 1, 5  # protobuf wire types
# Field numbers of feast.types.Value.
_FLOATS = {(6, _FIXED32): "<f", (5, _FIXED64): "<d"}  # float_val, double_val
_INTEGERS = {3, 4, 7, 8}  # int32_val, int64_val, bool_val, unix_timestamp_val
_NULL_VAL = 19


class StoreUnavailable(Exception):
    """The online store did not answer; `kind` is `timeout`, `connection`, `circuit` or `reply`."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind = kind


def entity_key(project: str, keys: Mapping[str, str]) -> bytes:
    """The Redis key of one entity: sorted join keys, then their values, then the project."""
    names = sorted(keys)
    parts = [struct.pack("<I", len(names))]
    for name in names:
        encoded = name.encode()
        parts.append(struct.pack("<II", _STRING, len(encoded)) + encoded)
    for name in names:
        value = keys[name].encode()
        parts.append(struct.pack("<II", _STRING, len(value)) + value)
    return b"".join(parts) + project.encode()


def feature_field(view: str, feature: str) -> bytes:
    """The hash field of one feature: murmur3 (32 bit, unsigned) of `view:feature`, little-endian."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def timestamp_field(view: str) -> bytes:
    """The hash field that holds a view's event time."""
    return f"_ts:{view}".encode()


def decode_number(raw: bytes) -> float:
    """A serialized Feast `Value` as a number; NaN for a null.

    Raises:
        ValueError: the value is not a number (string, list, ...) or the bytes are no `Value`.
    """
    if len(raw) == 5 and raw[0] == 0x35:  # float_val, the type of every feature of ours
        return float(struct.unpack_from("<f", raw, 1)[0])
    if not raw:
        return NAN
    number, wire, payload, _ = _field(raw, 0)
    if (number, wire) in _FLOATS:
        return float(struct.unpack(_FLOATS[number, wire], payload)[0])
    if number in _INTEGERS and wire == _VARINT:
        return float(_signed(payload))
    if number == _NULL_VAL:
        return NAN
    raise ValueError(f"not a number: field {number} of Feast's Value, {len(raw)} bytes")


def decode_timestamp_s(raw: bytes) -> float:
    """A serialized protobuf `Timestamp` as seconds since 1970.

    Raises:
        ValueError: the bytes are no `Timestamp`.
    """
    seconds = nanos = 0
    at = 0
    while at < len(raw):
        number, wire, payload, at = _field(raw, at)
        if wire == _VARINT and number == 1:
            seconds = _signed(payload)
        elif wire == _VARINT and number == 2:
            nanos = _signed(payload)
    return seconds + nanos / 1e9


def _field(raw: bytes, at: int) -> tuple[int, int, bytes, int]:
    """One protobuf field: number, wire type, payload (a varint as 8 little-endian bytes), where the next one begins."""
    tag, at = _varint(raw, at)
    number, wire = tag >> 3, tag & 7
    if wire == _VARINT:
        value, at = _varint(raw, at)
        return number, wire, (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little"), at
    if wire in (_FIXED64, _FIXED32):
        size = 8 if wire == _FIXED64 else 4
    elif wire == 2:
        size, at = _varint(raw, at)
    else:
        raise ValueError(f"protobuf wire type {wire} is not used by Feast")
    if at + size > len(raw):
        raise ValueError("protobuf message is cut short")
    return number, wire, raw[at : at + size], at + size


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(raw) and shift < 70:
        byte = raw[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ValueError("protobuf varint is cut short")


def _signed(payload: bytes) -> int:
    return int.from_bytes(payload, "little", signed=True)


class _Group:
    """Views that share join keys live in one hash: one HMGET reads them all."""

    def __init__(self, project: str, join_keys: tuple[str, ...], views: Sequence[StoredView]) -> None:
        self.join_keys = join_keys
        self._project = project
        self.fields: list[bytes] = []
        self._slices: list[tuple[str, int, int]] = []
        for view in views:
            start = len(self.fields)
            self.fields += [feature_field(view.name, feature) for feature in view.features]
            self.fields.append(timestamp_field(view.name))
            self._slices.append((view.name, start, len(self.fields) - 1))

    def key(self, keys: Mapping[str, str]) -> bytes:
        return entity_key(self._project, {name: keys[name] for name in self.join_keys})

    def decode(self, reply: Sequence[bytes | None]) -> dict[str, StoredValues | None]:
        found: dict[str, StoredValues | None] = {}
        for view, start, stamp in self._slices:
            raw_stamp = reply[stamp]
            if raw_stamp is None:
                found[view] = None
                continue
            values = tuple(None if raw is None else decode_number(raw) for raw in reply[start:stamp])
            found[view] = StoredValues(values, decode_timestamp_s(raw_stamp))
        return found


class OnlineStore:
    """Reads stored views. After failures the circuit opens: callers fail at once, a background ping closes it again."""

    def __init__(
        self, url: str, project: str, views: Sequence[StoredView], *, timeout_s: float, probe_interval_s: float = 0.25
    ) -> None:
        self._timeout_s = timeout_s
        self._registry_key = registry_version_key(project)
        self._probe_interval_s = probe_interval_s
        self.circuit = Circuit()
        by_keys: dict[tuple[str, ...], list[StoredView]] = {}
        for view in views:
            by_keys.setdefault(view.join_keys, []).append(view)
        self._groups = [_Group(project, keys, members) for keys, members in by_keys.items()]
        self._probe: asyncio.Task[None] | None = None
        # One retry without delay: a pooled connection that died with the last server is replaced within the deadline.
        self._client: Any = redis.asyncio.Redis.from_pool(  # which closes the pool with the client
            redis.asyncio.BlockingConnectionPool.from_url(
                url,
                max_connections=64,
                timeout=timeout_s,
                socket_timeout=None,  # the deadline of `fetch` covers all of it; one more timer per reply costs a fifth
                socket_connect_timeout=timeout_s,
                retry=Retry(NoBackoff(), 1),
                client_name="flightdeck-predictor",
            )
        )

    @property
    def join_keys(self) -> set[str]:
        """Every entity key that a lookup needs."""
        return {key for group in self._groups for key in group.join_keys}

    async def fetch(self, rows: Sequence[Mapping[str, str]]) -> list[dict[str, StoredValues | None]]:
        """Stored values of each row, in one pipelined round trip; equal entities are read once.

        Args:
            rows: entity keys of each row.
        Raises:
            StoreUnavailable: no complete answer within the deadline, or the circuit is open.
        """
        if not self._groups:
            return [{} for _ in rows]
        if self.circuit.is_open:
            raise StoreUnavailable("circuit", "store unreachable")
        wanted: dict[bytes, tuple[_Group, int]] = {}
        per_row: list[list[bytes]] = []
        for keys in rows:
            names = []
            for group in self._groups:
                name = group.key(keys)
                if name not in wanted:
                    wanted[name] = (group, len(wanted))
                names.append(name)
            per_row.append(names)
        try:
            async with asyncio.timeout(self._timeout_s):
                pipe = self._client.pipeline(transaction=False)
                for name, (group, _) in wanted.items():
                    pipe.hmget(name, group.fields)
                replies = await pipe.execute()
            found = [group.decode(replies[at]) for group, at in wanted.values()]
        except TimeoutError as error:
            self._failed("timeout")
            raise StoreUnavailable("timeout", f"store did not answer within {self._timeout_s} s") from error
        except ResponseError as error:
            # It is there and refuses this command, e.g. a key that is no hash: other entities can still be read.
            raise StoreUnavailable("reply", "store refused the lookup") from error
        except (RedisError, OSError) as error:
            self._failed("connection")
            raise StoreUnavailable("connection", "store unreachable") from error
        except (ValueError, TypeError, struct.error) as error:
            # The store answered, but not with numbers in Feast's layout: no reason to stop asking.
            raise StoreUnavailable("reply", f"store answer unreadable ({error})") from error
        self.circuit.succeeded()
        return [
            {view: values for name in names for view, values in found[wanted[name][1]].items()} for names in per_row
        ]

    async def ping(self) -> bool:
        """Whether the store answers now."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return bool(await self._client.ping())
        except (TimeoutError, RedisError, OSError):
            return False

    async def seen(self) -> tuple[bool, str | None]:
        """Whether the store answers now, and the version of the feature registry it was filled with, if it says."""
        try:
            async with asyncio.timeout(self._timeout_s):
                version = await self._client.get(self._registry_key)
        except ResponseError:  # it is there and lets us read no such key
            return True, None
        except (TimeoutError, RedisError, OSError):
            return False, None
        return True, None if version is None else version.decode(errors="replace")

    async def close(self) -> None:
        """Stop probing and close the connections."""
        if self._probe is not None:
            self._probe.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probe
        await self._client.aclose()

    def _failed(self, kind: str) -> None:
        self.circuit.failed(kind)
        if self.circuit.is_open and (self._probe is None or self._probe.done()):
            self._probe = asyncio.create_task(self._probe_until_it_answers())

    async def _probe_until_it_answers(self) -> None:
        while self.circuit.is_open:
            await asyncio.sleep(self._probe_interval_s)
            if await self.ping():
                self.circuit.succeeded()
