"""The thin reader gives what Feast's own `get_online_features` gives, from a real Redis that Feast has written."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import math
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from benchmarks.feast_rows import float_value, timestamp
from flightdeck.contracts.model_spec import OnMissing
from services.predictor.features import StoredView
from services.predictor.online_store import OnlineStore, entity_key, feature_field, timestamp_field

pytestmark = pytest.mark.xdist_group("feast_layout")  # Feast is imported and the store written once
PROJECT = "layout_test"
VIEWS = {
    "route": (("dest", "origin"), ("late_share", "flights")),
    "weather": (("origin",), ("temp_f", "gust_mph")),
    "congestion": (("origin",), ("departures_1h", "seen", "wide")),
}
AT = dt.datetime(2013, 7, 4, 12, 0, 0, 250_000, tzinfo=dt.UTC)
ROWS = [
    {"origin": "EWR", "dest": "IAH"},
    {"origin": "EWR", "dest": "SFO"},
    {"origin": "ÅÄÖ", "dest": "IAH"},  # keys are bytes, not ASCII
    {"origin": "LGA", "dest": "NOBODY"},
]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = shutil.which("redis-server") or str(Path(sys.executable).parent / "redis-server")
    folder = tmp_path_factory.mktemp("redis")
    quiet = ["--save", "", "--bind", "127.0.0.1", "--dir", str(folder)]
    process = subprocess.Popen([program, "--port", str(port), *quiet], stdout=subprocess.DEVNULL)
    client = redis.Redis(port=port)
    for _ in range(100):
        with contextlib.suppress(redis.RedisError):
            if client.ping():
                break
        time.sleep(0.05)
    yield f"127.0.0.1:{port}"
    client.close()
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def feast_store(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A Feast repository of three views, written through Feast."""
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Bool, Float32, Float64, Int64, String

    folder = tmp_path_factory.mktemp("feast")
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "redis", "connection_string": redis_url},
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    types = {"flights": Int64, "seen": Bool, "wide": Float64}
    objects: list[Any] = []
    entities = {key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in ("origin", "dest")}
    objects += entities.values()
    for view, (keys, names) in VIEWS.items():
        source = FileSource(
            name=f"{view}_source", path=str(folder / f"{view}.parquet"), timestamp_field="event_timestamp"
        )
        schema = [Field(name=key, dtype=String) for key in keys]
        schema += [Field(name=name, dtype=types.get(name, Float32)) for name in names]
        row = {key: ["x"] for key in keys} | {name: [1.0] for name in names} | {"event_timestamp": [AT]}
        pd.DataFrame(row).to_parquet(folder / f"{view}.parquet")
        objects.append(
            FeatureView(name=view, entities=[entities[key] for key in keys], schema=schema, source=source, online=True)
        )
    store.apply(objects)

    def write(view: str, **columns: list[Any]) -> None:
        count = len(next(iter(columns.values())))
        frame = pd.DataFrame(columns | {"event_timestamp": [AT] * count})
        store.write_to_online_store(view, frame)

    write("route", origin=["EWR", "ÅÄÖ"], dest=["IAH", "IAH"], late_share=[0.25, 0.0], flights=[7, -3])
    write("weather", origin=["EWR", "ÅÄÖ"], temp_f=[71.5, -3.25], gust_mph=[None, 0.0])
    write("congestion", origin=["EWR"], departures_1h=[12.0], seen=[True], wide=[1e-300])
    return store


def ours(redis_url: str, rows: list[dict[str, str]]) -> list[dict[str, Any]]:
    views = [
        StoredView(name, keys, names, tuple(range(len(names))), 1e9, OnMissing.DEFAULT)
        for name, (keys, names) in VIEWS.items()
    ]

    async def fetch() -> list[dict[str, Any]]:
        store = OnlineStore(f"redis://{redis_url}/0", PROJECT, views, timeout_s=5.0)
        try:
            return await store.fetch(rows)
        finally:
            await store.close()

    return asyncio.run(fetch())


def test_values_nulls_and_absences_are_those_of_get_online_features(feast_store, redis_url):
    names = [f"{view}:{name}" for view, (_, features) in VIEWS.items() for name in features]
    theirs = feast_store.get_online_features(features=names, entity_rows=ROWS, full_feature_names=True).to_dict()
    found = ours(redis_url, ROWS)
    compared = 0
    for at in range(len(ROWS)):
        for view, (_, features) in VIEWS.items():
            stored = found[at][view]
            for position, name in enumerate(features):
                expected = theirs[f"{view}__{name}"][at]
                value = None if stored is None else stored.values[position]
                if expected is None or (isinstance(expected, float) and math.isnan(expected)):
                    assert value is None or math.isnan(value), (ROWS[at], view, name)
                else:
                    assert value == float(expected), (ROWS[at], view, name)
                    compared += 1
    assert compared == 14  # 6 + 4 + 4 values that are there
    assert found[3] == {"route": None, "weather": None, "congestion": None}


def test_event_times_are_feasts_to_the_microsecond(feast_store, redis_url):
    (one, *_) = ours(redis_url, ROWS)
    assert {values.event_time_s for values in one.values()} == {AT.timestamp()}


def test_a_stored_null_is_told_from_an_absent_entity(feast_store, redis_url):
    first, second, third, _ = ours(redis_url, ROWS)
    assert math.isnan(first["weather"].values[1])
    assert second["route"] is None
    assert third["congestion"] is None


def test_the_benchmarks_rows_are_what_feast_writes(feast_store, redis_url):
    client = redis.Redis.from_url(f"redis://{redis_url}/0")
    key = entity_key(PROJECT, {"origin": "EWR"})
    assert client.hget(key, feature_field("weather", "temp_f")) == float_value(71.5)
    whole_second = timestamp(AT.replace(microsecond=0))
    assert client.hget(key, timestamp_field("weather"))[: len(whole_second)] == whole_second
    client.close()
