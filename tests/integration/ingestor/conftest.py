"""Real parts: two Redis servers, a Feast registry, ingestor processes. What a test kills it started itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from feature_repo.rowwise import ORIGINS
from flightdeck.contracts.clock import ReplayClock
from flightdeck.contracts.events import ACCEPTED_STREAM, EVENT_STREAM, SNAPSHOT_STREAM, AcceptedEvent, FeatureSnapshot
from flightdeck.contracts.layout import StateLayout
from flightdeck.lab.programs import find
from pipelines.clock import set_clock

ROOT = Path(__file__).resolve().parents[3]
WITHIN_S = 240  # on a machine that does nothing else a twentieth of it


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], what: str, within_s: float = WITHIN_S) -> Any:
    """What `condition` gives once it is true."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        try:
            if found := condition():
                return found
        except (redis.RedisError, OSError):
            pass
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


class RedisServer:
    """One append-only Redis that keeps its port and data over a kill."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.client: Any = redis.Redis(port=self.port, socket_timeout=5)
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        kept = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            [str(find("redis-server")), "--port", str(self.port), "--bind", "127.0.0.1", *kept],
            stdout=subprocess.DEVNULL,
        )
        until(self.client.ping, "redis-server answers")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        self.client.close()


class Process:
    """`python -m services.ingestor`."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.port, self.log = int(environment["INGESTOR_PORT"]), log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.ingestor"], cwd=ROOT, env=os.environ | environment,
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def metric(self, name: str) -> float:
        lines = self.page("/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def works(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return self.metric("ingestor_leads") == 1.0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WITHIN_S)


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> StateLayout:
    """A state folder with an applied Feast registry."""
    from pipelines.features import registry

    found = StateLayout(tmp_path_factory.mktemp("ingestor-state"))
    os.environ.pop(registry.CONFIG_ENV, None)
    registry.apply(found)
    return found


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RedisServer, RedisServer]]:
    folder = tmp_path_factory.mktemp("redis")
    servers = RedisServer(folder / "streams"), RedisServer(folder / "online")
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def streams(_servers: tuple[RedisServer, RedisServer]) -> RedisServer:
    """The streams server, empty."""
    _servers[0].client.flushall()
    return _servers[0]


@pytest.fixture
def online(_servers: tuple[RedisServer, RedisServer]) -> RedisServer:
    """The online store, empty."""
    _servers[1].client.flushall()
    return _servers[1]


@pytest.fixture
def start(
    streams: RedisServer, online: RedisServer, layout: StateLayout, tmp_path: Path
) -> Iterator[Callable[..., Process]]:
    """`start(**settings)` starts an ingestor of the two servers."""
    running: list[Process] = []

    def begin(**settings: Any) -> Process:
        environment = {
            "streams_redis_url": streams.url, "online_redis": online.address, "port": free_port(), "lease_s": 2,
            "feature_store": ROOT / "feature_repo" / "feature_store.yaml",
            "feast_registry": f"sqlite:///{layout.feast_registry}", **settings,
        }  # fmt: skip
        process = Process(
            {f"INGESTOR_{name.upper()}": str(value) for name, value in environment.items()}, tmp_path / "ingestor.log"
        )
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()


def replay(streams: RedisServer, clock: ReplayClock) -> None:
    """Everybody's clock."""
    set_clock(streams.client, clock)


def accepted(streams: RedisServer) -> list[AcceptedEvent]:
    """All that the ingestor accepted, in order."""
    decode = msgspec.msgpack.Decoder(list[AcceptedEvent]).decode
    return [event for _, found in streams.client.xrange(ACCEPTED_STREAM) for event in decode(found[b"r"])]


def snapshots(streams: RedisServer) -> list[FeatureSnapshot]:
    """All rows that it made, in order."""
    decode = msgspec.msgpack.Decoder(list[FeatureSnapshot]).decode
    return [row for _, found in streams.client.xrange(SNAPSHOT_STREAM) for row in decode(found[b"r"])]


def is_done(streams: RedisServer) -> bool:
    """Whether no event waits."""
    return streams.client.xlen(EVENT_STREAM) == 0 and bool(streams.client.exists(ACCEPTED_STREAM))


def served(layout: StateLayout, online: RedisServer) -> dict[tuple[str, str], dict[str, Any]]:
    """(view, origin) -> what Feast serves: feature -> (value, event time)."""
    from feature_repo.transforms import BUILDS
    from pipelines.features.consistency import online_rows
    from pipelines.features.registry import open_store

    store, keys = open_store(layout, online.address), [{"origin": origin} for origin in ORIGINS]
    return {
        (view, key["origin"]): row
        for view in ("congestion", "overdue")
        for key, row in zip(keys, online_rows(store, BUILDS[view], keys), strict=True)
    }
