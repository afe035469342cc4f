"""Rows in the online store as Feast writes them, for measuring and for tests that need no Feast.

That Feast writes just these bytes is held by tests/contract/predictor.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Mapping

import redis

from benchmarks.linear_artefact import FEATURES, JOIN_KEYS, PROJECT
from services.predictor.online_store import entity_key, feature_field, timestamp_field


def float_value(value: float) -> bytes:
    """Feast's `Value` with `float_val` (field 6, 32 bit), serialized."""
    return b"\x35" + struct.pack("<f", value)


def timestamp(at: dt.datetime) -> bytes:
    """protobuf's `Timestamp` at whole seconds, serialized."""
    seconds, out = int(at.timestamp()), bytearray(b"\x08")
    while seconds >= 0x80:
        out.append(seconds & 0x7F | 0x80)
        seconds >>= 7
    out.append(seconds)
    return bytes(out)


def write_rows(
    client: redis.Redis,
    keys: Mapping[str, str],
    at: dt.datetime,
    *,
    views: Mapping[str, list[str]] = FEATURES,
    value: float = 1.0,
    project: str = PROJECT,
) -> None:
    """Write every feature of `views` for one set of entity keys with event time `at`."""
    for view, names in views.items():
        row = {feature_field(view, name): float_value(value) for name in names} | {timestamp_field(view): timestamp(at)}
        client.hset(entity_key(project, {key: keys[key] for key in JOIN_KEYS[view]}), mapping=row)
