from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import math
import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.feast_rows import float_value, timestamp
from flightdeck.contracts.model_spec import OnMissing
from services.predictor.circuit import Circuit
from services.predictor.features import StoredView
from services.predictor.online_store import (
    OnlineStore,
    StoreUnavailable,
    decode_number,
    decode_timestamp_s,
    entity_key,
    feature_field,
)

NOBODY = "redis://127.0.0.1:1/0"
VIEW = StoredView("weather", ("origin",), ("temp_f",), (0,), 60.0, OnMissing.DEFAULT)


def test_an_entity_key_has_sorted_names_then_values_then_the_project():
    expected = (
        b"\x02\0\0\0"
        b"\x02\0\0\0\x04\0\0\0dest\x02\0\0\0\x06\0\0\0origin"
        b"\x02\0\0\0\x03\0\0\0IAH\x02\0\0\0\x03\0\0\0EWR"
        b"project"
    )
    assert entity_key("project", {"origin": "EWR", "dest": "IAH"}) == expected


def test_a_feature_field_is_four_bytes_of_the_hash_of_view_and_name():
    assert len(feature_field("weather", "temp_f")) == 4
    assert feature_field("weather", "temp_f") != feature_field("weather", "humid_pct")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (float_value(1.5), 1.5),
        (b"\x29" + struct.pack("<d", -2.25), -2.25),  # double_val
        (b"\x20\x07", 7.0),  # int64_val
        (b"\x18" + b"\xff" * 9 + b"\x01", -1.0),  # int32_val -1 is a ten-byte varint
        (b"\x38\x01", 1.0),  # bool_val
    ],
)
def test_every_numeric_value_type_is_read(raw, expected):
    assert decode_number(raw) == expected


@pytest.mark.parametrize("raw", [b"", b"\x98\x01\x00"])
def test_a_null_is_nan(raw):
    assert math.isnan(decode_number(raw))


@pytest.mark.parametrize("raw", [b"\x12\x01a", b"\x35\x00", b"\xff", b"\x0b", b"\x5a\x00"])
def test_what_is_not_a_number_is_refused(raw):
    with pytest.raises(ValueError, match=r"not a number|cut short|wire type"):
        decode_number(raw)


@given(st.binary(max_size=40))
def test_no_bytes_break_the_decoders_in_another_way(raw):
    for decode in (decode_number, decode_timestamp_s):
        with contextlib.suppress(ValueError):
            assert isinstance(decode(raw), float)


def test_timestamps_have_seconds_and_nanoseconds():
    assert decode_timestamp_s(b"\x08\x0a\x10\x80\xca\xb5\xee\x01") == 10.5
    assert decode_timestamp_s(b"") == 0.0


def test_a_refused_connection_opens_the_circuit_and_the_next_lookup_fails_at_once():
    async def twice() -> tuple[str, str, float]:
        store = OnlineStore(NOBODY, "p", [VIEW], timeout_s=0.2, probe_interval_s=5)
        kinds = []
        for _ in range(2):
            started_s = time.perf_counter()
            with pytest.raises(StoreUnavailable) as caught:
                await store.fetch([{"origin": "EWR"}])
            kinds.append(caught.value.kind)
        await store.close()
        return kinds[0], kinds[1], time.perf_counter() - started_s

    first, second, seconds = asyncio.run(twice())
    assert (first, second) == ("connection", "circuit")
    assert seconds < 0.1


def test_a_silent_store_costs_the_deadline_and_no_more():
    async def ask() -> tuple[list[str], list[float]]:
        async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                await reader.read(-1)
            writer.close()

        silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
        port = silent.sockets[0].getsockname()[1]
        store = OnlineStore(f"redis://127.0.0.1:{port}/0", "p", [VIEW], timeout_s=0.1, probe_interval_s=5)
        kinds, seconds = [], []
        for _ in range(4):
            started_s = time.perf_counter()
            with pytest.raises(StoreUnavailable) as caught:
                await store.fetch([{"origin": "EWR"}])
            kinds.append(caught.value.kind)
            seconds.append(time.perf_counter() - started_s)
        await store.close()
        silent.close()
        await asyncio.sleep(0.05)
        return kinds, seconds

    kinds, seconds = asyncio.run(ask())
    assert kinds == ["timeout", "timeout", "timeout", "circuit"]
    assert max(seconds) < 0.3
    assert seconds[3] < 0.05


class ScriptedRedis:
    """Speaks just enough RESP: `answer(entity)` gives the seconds to wait and the raw reply of its HMGET."""

    def __init__(self, answer: Callable[[bytes], tuple[float, bytes]]) -> None:
        self.answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while head := await reader.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int((await reader.readline())[1:])
                    words.append((await reader.readexactly(size + 2))[:-2])
                wait_s, reply = self.answer(words[1]) if words[0] == b"HMGET" else (0.0, b"+OK\r\n")
                await asyncio.sleep(wait_s)
                writer.write(reply)
                await writer.drain()
        writer.close()


def hash_reply(value: float) -> bytes:
    fields = (float_value(value), timestamp(dt.datetime(2013, 7, 4, tzinfo=dt.UTC)))
    return b"*2\r\n" + b"".join(b"$%d\r\n%s\r\n" % (len(field), field) for field in fields)


def asked_in_turn(answer: Callable[[bytes], tuple[float, bytes]], origins: list[str]) -> list[float | str]:
    """The temperature of each origin, or the kind and whether the circuit is open."""

    async def ask() -> list[float | str]:
        server = await asyncio.start_server(ScriptedRedis(answer).serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        store = OnlineStore(f"redis://127.0.0.1:{port}/0", "p", [VIEW], timeout_s=0.1, probe_interval_s=5)
        found: list[float | str] = []
        for origin in origins:
            try:
                ((one,),) = [list(row.values()) for row in await store.fetch([{"origin": origin}])]
                found.append(one.values[0])
            except StoreUnavailable as error:
                found.append(f"{error.kind} {store.circuit.is_open}")
            await asyncio.sleep(0.1)  # a late reply arrives meanwhile
        await store.close()
        server.close()
        return found

    return asyncio.run(ask())


def test_a_reply_that_comes_too_late_is_never_taken_for_the_next_lookups():
    temperatures = {"EWR": (0.15, 1.0), "JFK": (0.0, 2.0), "LGA": (0.0, 3.0)}

    def answer(key: bytes) -> tuple[float, bytes]:
        (wait_s, value) = next(given for origin, given in temperatures.items() if origin.encode() in key)
        return wait_s, hash_reply(value)

    assert asked_in_turn(answer, ["EWR", "JFK", "LGA", "EWR", "LGA"]) == [
        "timeout False",
        2.0,
        3.0,
        "timeout False",
        3.0,
    ]


def test_one_key_that_redis_refuses_to_read_does_not_close_the_store_for_the_others():
    def answer(key: bytes) -> tuple[float, bytes]:
        return 0.0, b"-WRONGTYPE not a hash\r\n" if b"EWR" in key else hash_reply(2.0)

    assert asked_in_turn(answer, ["EWR", "JFK", "EWR", "JFK"]) == ["reply False", 2.0, "reply False", 2.0]


def test_one_slow_answer_does_not_open_the_circuit_but_three_in_a_row_do():
    circuit = Circuit(timeouts_to_open=3)
    circuit.failed("timeout")
    circuit.failed("timeout")
    assert not circuit.is_open
    circuit.succeeded()
    circuit.failed("timeout")
    circuit.failed("timeout")
    assert not circuit.is_open
    circuit.failed("timeout")
    assert circuit.is_open
    circuit.succeeded()
    assert not circuit.is_open


def test_timestamp_helper_and_decoder_agree():
    at = dt.datetime(2013, 7, 4, 12, tzinfo=dt.UTC)
    assert decode_timestamp_s(timestamp(at)) == at.timestamp()
