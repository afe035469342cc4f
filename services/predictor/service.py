"""Entry point: the BentoML service. `bentoml serve services.predictor.service:Predictor`.

BentoML packs the code, supervises the worker and speaks its configuration; the routes are in app.py. What is switched
off or passed by here is replaced by metrics.py (bounded labels) and the request id, all by public means.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import bentoml
import pydantic

from flightdeck.contracts.artefact import ArtefactError
from services.predictor.app import Routes
from services.predictor.log_guard import OncePerInterval
from services.predictor.runtime import Runtime, load_model
from services.predictor.settings import PredictorSettings, complaint

logger = logging.getLogger("flightdeck.predictor")
logger.setLevel(logging.INFO)
_CANNOT_START = 3  # exit code: settings or artefact are wrong, and starting again will not help


def read_settings() -> PredictorSettings:
    """The environment's settings; ends the process with words when they are incomplete."""
    try:
        return PredictorSettings()  # type: ignore[call-arg]
    except pydantic.ValidationError as error:
        return _give_up(complaint(error))


def _give_up(words: str) -> Any:
    print(f"predictor: {words}", file=sys.stderr, flush=True)
    raise SystemExit(_CANNOT_START) from None


Application = Callable[[Any, Any, Any], Awaitable[None]]


class Parts:
    """What this worker process is made of. Another entry point may put in others before the service starts."""

    runtime: Callable[[PredictorSettings], Runtime] = Runtime
    routes: Callable[..., Application] = Routes


class _Front:
    """HTTP for our routes, lifespan for BentoML's application behind them; the routes are made at the first request."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._routes: Application | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        routes = self._routes
        if routes is None:
            if scope["type"] == "lifespan":  # before the model is loaded: this is what loads it
                await self._app(scope, receive, send)
                return
            routes = self._routes = Parts.routes(self._app, runtime=_Process.runtime())
        await routes(scope, receive, send)


class _FrontedService(bentoml.Service):
    """BentoML's service with our routes before its middleware.

    Given as `service_class`, a parameter of `bentoml.service` made for this; `to_asgi` is its public method. Behind
    BentoML's middleware each request also pays a timer that is never cancelled, a task and a tracing check.
    """

    def to_asgi(self, is_main: bool = True) -> Any:
        """The ASGI application that a worker serves."""
        return _Front(super().to_asgi(is_main=is_main))


class _Process:
    """The one runtime of this worker process."""

    _runtime: Runtime | None = None

    @classmethod
    def load(cls) -> Runtime:
        if cls._runtime is None:
            try:
                cls._runtime = Parts.runtime(read_settings())
            except ArtefactError as error:
                _give_up(str(error))
        return cls.runtime()

    @classmethod
    def runtime(cls) -> Runtime:
        if cls._runtime is None:
            raise RuntimeError("the predictor is asked before its model is loaded")
        return cls._runtime


def prepare() -> None:
    """Fetch, check and try the model now: one that cannot be served ends the process in words, not in a trace."""
    _Process.load()


@bentoml.service(
    name="predictor",
    workers=1,  # one event loop per replica: counters, queue and circuit belong to one process
    metrics={"enabled": False},  # labels the raw path, even of a 404
    logging={"access": {"enabled": False}},  # one line per request floods the log
    service_class=_FrontedService,
)
class Predictor:
    """One model version per process."""

    def __init__(self) -> None:
        self._runtime = _Process.load()

    @bentoml.on_deployment
    def verify() -> None:  # BentoML makes it static
        """Fetch, check and try the model before any worker starts: a wrong digest ends `bentoml serve` at once."""
        try:
            load_model(read_settings())
        except ArtefactError as error:
            _give_up(str(error))

    @bentoml.on_startup
    async def start(self) -> None:
        """Connect, then watch for the signal to stop."""
        logging.getLogger("uvicorn.error").addFilter(OncePerInterval())
        await self._runtime.start()
        _drain_before_exit(self._runtime)

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """After the last request: write the rest of the prediction log."""
        await self._runtime.stop()


def _drain_before_exit(runtime: Runtime) -> None:
    """On SIGTERM say "not ready" first and close `drain_s` later.

    uvicorn closes its listener the moment it is told to stop; a proxy that has not noticed yet would be refused. Its
    own handler is called after the delay, and at once on a second signal.
    """
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        earlier = signal.getsignal(number)
        if not callable(earlier):
            continue

        def drain(signum: int, frame: FrameType | None, earlier: Any = earlier) -> None:
            if runtime.draining or runtime.settings.drain_s == 0:
                runtime.draining = True
                earlier(signum, frame)
                return
            runtime.draining = True
            logger.info("draining for %s s", runtime.settings.drain_s)
            loop.call_soon_threadsafe(loop.call_later, runtime.settings.drain_s, earlier, signum, frame)

        signal.signal(number, drain)
