"""Real processes: two Redis servers and `bentoml serve`. What a test kills it started itself."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from benchmarks.linear_artefact import write_linear_artefact

ROOT = Path(__file__).resolve().parents[3]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `condition` gives once it is true."""
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        with contextlib.suppress(redis.RedisError, httpx.HTTPError):
            if found := condition():
                return found
        time.sleep(0.05)
    raise AssertionError(f"not true within {seconds} s: {condition}")


class RedisServer:
    """One append-only Redis that keeps its port and data over a kill."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.port = folder, free_port()
        self.client = redis.Redis(port=self.port)
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = shutil.which("redis-server") or str(Path(sys.executable).parent / "redis-server")
        kept = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", *kept], stdout=subprocess.DEVNULL
        )
        until(self.client.ping)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.kill()
        self.client.close()


SUPERVISED = ("bentoml", "serve", "services.predictor.service:Predictor")


class Server:
    """The predictor, under `bentoml serve` or as in the image."""

    def __init__(self, folder: Path, program: tuple[str, ...] = SUPERVISED, **settings: Any) -> None:
        self.port = free_port()
        self.log = folder / f"serve-{self.port}.log"
        self.env = os.environ | {
            "BENTOML_HOME": str(folder / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
            **{f"PREDICTOR_{name.upper()}": str(value) for name, value in settings.items()},
        }
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *program, "--host", "127.0.0.1", "--port", str(self.port)],
                cwd=ROOT,
                env=self.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=5, trust_env=False)

    def wait_ready(self) -> Server:
        until(lambda: self.process.poll() is not None or self.client.get("/readyz").status_code == 200, 60)
        assert self.process.poll() is None, self.log.read_text()
        return self

    def predict(self, *rows: dict[str, Any]) -> httpx.Response:
        return self.client.post("/v1/predict", json={"rows": list(rows)})

    def metric(self, name: str) -> float:
        lines = self.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    def stop(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)  # the session this test started


@pytest.fixture(scope="session")
def online(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis") / "online")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis") / "streams")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def serve(
    tmp_path_factory: pytest.TempPathFactory, online: RedisServer, streams: RedisServer
) -> Iterator[Callable[..., Server]]:
    folder = tmp_path_factory.mktemp("predictor")
    sha256 = write_linear_artefact(folder / "artefacts")
    with contextlib.ExitStack() as stack:

        def start(program: tuple[str, ...] = SUPERVISED, **settings: Any) -> Server:
            server = Server(
                folder,
                program,
                **{
                    "model_name": "late",
                    "model_version": "1",
                    "model_sha256": sha256,
                    "artefacts": folder / "artefacts",
                    "online_redis_url": online.url,
                    "streams_redis_url": streams.url,
                    "log_interval_s": 0.05,
                    **settings,
                },
            )
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="session")
def server(serve: Callable[..., Server]) -> Server:
    return serve(replica="first").wait_ready()
