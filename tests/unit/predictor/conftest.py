"""The predictor's routes in this process: no server, no Redis; what stands behind the addresses refuses at once."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.linear_artefact import write_linear_artefact
from flightdeck.contracts.model_spec import OnMissing
from services.predictor.app import Routes
from services.predictor.runtime import Runtime
from services.predictor.settings import PredictorSettings

NOBODY = "redis://127.0.0.1:1/0"
FLIGHT = {"carrier": "UA", "flight": 1545, "origin": "EWR", "dest": "IAH", "sched_dep_utc": "2013-07-04T21:15:00Z"}


@dataclasses.dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class InProcess:
    """Speaks ASGI to the routes."""

    def __init__(self, runner: asyncio.Runner, runtime: Runtime) -> None:
        self.runner, self.runtime = runner, runtime
        self.routes = Routes(None, runtime=runtime)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, content, {"content-type": "application/json", **headers})

    def get(self, path: str) -> Answer:
        return self.ask("GET", path, b"", {})

    def ask(self, method: str, path: str, content: bytes, headers: dict[str, str], chunk: int = 1 << 20) -> Answer:
        chunks = [content[at : at + chunk] for at in range(0, len(content), chunk)] or [b""]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

        return self._call(method, path, headers, receive)

    def stall(self, path: str, first: bytes | None) -> Answer:
        """A caller that sends the head and perhaps a first piece, then nothing more."""
        pieces = [] if first is None else [first]

        async def receive() -> dict[str, Any]:
            if not pieces:
                await asyncio.sleep(30)
            return {"type": "http.request", "body": pieces.pop(), "more_body": True}

        return self._call("POST", path, {"content-type": "application/json"}, receive)

    def _call(self, method: str, path: str, headers: dict[str, str], receive: Callable[[], Any]) -> Answer:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        self.runner.run(self.routes(scope, receive, send))
        start, body = sent
        found = {name.decode(): value.decode() for name, value in start["headers"]}
        assert int(found["content-length"]) == len(body["body"]) or method == "HEAD"
        return Answer(start["status"], found, body["body"])


def settings_for(folder: Path, sha256: str, **more: Any) -> PredictorSettings:
    return PredictorSettings(
        model_name="late",
        model_version="1",
        model_sha256=sha256,
        artefacts=folder,
        **{"online_redis_url": NOBODY, "streams_redis_url": NOBODY, "log_flush_timeout_s": 0.0, **more},
    )


@pytest.fixture(scope="session")
def predictor_with(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., InProcess]]:
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:

        def start(on_missing: Mapping[str, OnMissing] | None = None, **more: Any) -> InProcess:
            folder = tmp_path_factory.mktemp("artefacts")
            runtime = Runtime(settings_for(folder, write_linear_artefact(folder, on_missing=on_missing), **more))
            runner.run(runtime.start())
            stack.callback(lambda: runner.run(runtime.stop()))
            return InProcess(runner, runtime)

        yield start


@pytest.fixture(scope="session")
def predictor(predictor_with: Callable[..., InProcess]) -> InProcess:
    return predictor_with()


@pytest.fixture
def flight() -> dict[str, Any]:
    return dict(FLIGHT)


@pytest.fixture
def vector(predictor: InProcess) -> dict[str, float]:
    return dict.fromkeys(predictor.runtime.plan.names, 1.0)
