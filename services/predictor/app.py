"""Entry point for HTTP: all routes, as plain ASGI in front of BentoML's application.

BentoML's own `/readyz` and `/healthz` always say yes and its index page loads a tracker from the network: every HTTP
path is answered here, and only lifespan goes on to BentoML.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from feature_repo import request as use_case
from services.predictor import openapi, schema
from services.predictor.errors import ApiError
from services.predictor.runtime import Runtime

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

logger = logging.getLogger("flightdeck.predictor")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")
_JSON, _TEXT, _HTML = b"application/json", b"text/plain; version=0.0.4; charset=utf-8", b"text/html; charset=utf-8"
_COMPLAINT_INTERVAL_S = 10.0


class Routes:
    """Answers all of HTTP for one runtime; passes lifespan on to BentoML."""

    def __init__(self, app: Any, *, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime
        settings, manifest = runtime.settings, runtime.manifest
        row, self._vector = schema.score_row_type(runtime.plan.names)
        self._predict_body: schema.Decoder[use_case.Request] = schema.Decoder(
            schema.body_type(use_case.Request, "PredictRequest", settings.max_rows)
        )
        self._score_body: schema.Decoder[Any] = schema.Decoder(schema.body_type(row, "ScoreRequest", settings.max_rows))
        self._encode = msgspec.json.Encoder().encode
        self._info = msgspec.Raw(self._encode(runtime.info))
        self._horizon_min = manifest.horizon_min
        document = openapi.document(runtime, row)
        self._openapi = self._encode(document)
        self._docs = openapi.page(document, openapi.inputs(manifest)).encode()
        self._last_complaint_s = -_COMPLAINT_INTERVAL_S
        self._routes: dict[str, tuple[bytes, Callable[..., Awaitable[tuple[int, bytes, bytes]]]]] = {
            "/v1/predict": (b"POST", self._predict),
            "/v1/score": (b"POST", self._score),
            "/healthz": (b"GET", self._healthz),
            "/readyz": (b"GET", self._readyz),
            "/v1/model": (b"GET", self._model),
            "/v1/manifest": (b"GET", self._manifest),
            "/metrics": (b"GET", self._metrics),
            "/openapi.json": (b"GET", self._document),
            "/docs": (b"GET", self._page),
            "/": (b"GET", self._page),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1003})
            return
        started_s = time.perf_counter()
        metrics = self._runtime.metrics
        metrics.in_flight += 1
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given.decode() if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        path: str = scope["path"]
        route = "(none)"
        try:
            found = self._routes.get(path)
            if found is None:
                raise ApiError(404, "not_found", "no such path; see /docs")
            route = path
            method, handler = found
            asked = scope["method"]
            if asked != method.decode() and not (method == b"GET" and asked == "HEAD"):
                raise ApiError(405, "method_not_allowed", f"{path} takes {method.decode()}")
            status, kind, content = await handler(headers, receive, request_id, started_s)
        except ApiError as error:
            metrics.errors[route, error.code] += 1
            status, kind, content = error.status, _JSON, self._error(error, request_id)
        except Exception:
            # A fault of ours. The caller gets the stable body, the log one trace now and then instead of one a request.
            metrics.errors[route, "internal"] += 1
            if started_s - self._last_complaint_s >= _COMPLAINT_INTERVAL_S:
                self._last_complaint_s = started_s
                logger.exception("request %s to %s failed", request_id, route)
            fault = ApiError(500, "internal", "the predictor failed; its log has the request id")
            status, kind, content = 500, _JSON, self._error(fault, request_id)
        finally:
            metrics.in_flight -= 1
        answer = [
            (b"content-type", kind),
            (b"content-length", b"%d" % len(content)),
            (b"x-request-id", request_id.encode()),
        ]
        if status == 405:
            answer.append(
                (b"allow", b"POST" if self._routes[route][0] == b"POST" else b"GET, HEAD")
            )  # RFC 9110, 15.5.6
        if self._runtime.draining:
            answer.append((b"connection", b"close"))  # so that kept-alive clients go elsewhere
        metrics.observe(route, status, time.perf_counter() - started_s)
        await send({"type": "http.response.start", "status": status, "headers": answer})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else content})

    async def _predict(
        self, headers: dict[bytes, bytes], receive: Receive, request_id: str, started_s: float
    ) -> tuple[int, bytes, bytes]:
        rows = self._predict_body.rows(await self._body(headers, receive))
        predictions, degraded = await self._runtime.predict(rows, request_id, started_s)
        self._runtime.metrics.rows["/v1/predict"] += len(rows)
        answer = schema.PredictResponse(request_id, self._info, self._horizon_min, degraded, predictions)
        return 200, _JSON, self._encode(answer)

    async def _score(
        self, headers: dict[bytes, bytes], receive: Receive, request_id: str, started_s: float
    ) -> tuple[int, bytes, bytes]:
        vectors = [self._vector(row) for row in self._score_body.rows(await self._body(headers, receive))]
        predictions = await self._runtime.score(vectors, request_id, started_s)
        self._runtime.metrics.rows["/v1/score"] += len(vectors)
        return 200, _JSON, self._encode(schema.ScoreResponse(request_id, self._info, predictions))

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes | bytearray:
        """The whole body, within the limits of size and time."""
        kind = headers.get(b"content-type", b"").split(b";", 1)[0].strip().lower()
        if kind != _JSON:
            raise ApiError(415, "unsupported_media_type", "send content-type: application/json", "content-type")
        if headers.get(b"content-encoding", b"identity") != b"identity":
            raise ApiError(415, "unsupported_encoding", "send the body uncompressed", "content-encoding")
        largest = self._runtime.settings.max_body_bytes
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > largest:
            raise _too_large(largest)
        whole = bytearray()
        try:
            async with asyncio.timeout(self._runtime.settings.request_timeout_s):
                message = await receive()
                if message["type"] == "http.request" and not message.get("more_body", False):
                    content: bytes = message.get("body", b"")
                    if len(content) > largest:
                        raise _too_large(largest)
                    return content
                while message["type"] == "http.request":
                    whole += message.get("body", b"")
                    if len(whole) > largest:
                        raise _too_large(largest)
                    if not message.get("more_body", False):
                        return whole
                    message = await receive()
        except TimeoutError:
            raise ApiError(
                408, "body_timeout", f"the body did not arrive within {self._runtime.settings.request_timeout_s:g} s"
            ) from None
        raise ApiError(400, "disconnected", "the client went away")

    async def _healthz(self, *_: Any) -> tuple[int, bytes, bytes]:
        return 200, _JSON, b'{"status":"ok"}'

    async def _readyz(self, *_: Any) -> tuple[int, bytes, bytes]:
        """Readiness is the model's: a store that is away degrades answers, it does not stop them."""
        runtime = self._runtime
        ready = runtime.ready
        reachable, registry = await runtime.store.seen() if runtime.started else (False, None)
        body = {
            "ready": ready,
            "draining": runtime.draining,
            "model": runtime.info,
            **runtime.about,
            "feature_store_reachable": reachable,
            "feature_registry": registry,
        }
        return (200 if ready else 503), _JSON, self._encode(body)

    async def _model(self, *_: Any) -> tuple[int, bytes, bytes]:
        """What answers here, without asking anybody."""
        info = self._runtime.info
        about = {"name": info.name, "version": info.version, "sha256": info.sha256, **self._runtime.about}
        return 200, _JSON, self._encode(about)

    async def _manifest(self, *_: Any) -> tuple[int, bytes, bytes]:
        """The artefact's manifest; its sha256 is the model's."""
        return 200, _JSON, self._runtime.model.manifest_json

    async def _metrics(self, *_: Any) -> tuple[int, bytes, bytes]:
        runtime = self._runtime
        runtime.metrics.ready = runtime.ready
        runtime.metrics.store_up = runtime.started and not runtime.store.circuit.is_open
        runtime.metrics.log_queued = runtime.log.queued_rows if runtime.started else 0
        return 200, _TEXT, runtime.metrics.text()

    async def _document(self, *_: Any) -> tuple[int, bytes, bytes]:
        return 200, _JSON, self._openapi

    async def _page(self, *_: Any) -> tuple[int, bytes, bytes]:
        return 200, _HTML, self._docs

    def _error(self, error: ApiError, request_id: str) -> bytes:
        body = schema.ErrorBody(error.code, error.message, error.field)
        return self._encode(schema.ErrorResponse(body, request_id))


def _too_large(largest: int) -> ApiError:
    return ApiError(413, "body_too_large", f"a body has at most {largest} bytes; send fewer rows per request")
