"""What the predictor is compared with: Starlette and onnxruntime by hand, with the same duties.

Validation (msgspec: unknown fields, numbers that are no finite float32, no or too many rows are refused), request id,
Prometheus metrics, and a prediction log in batches to a Redis stream. `uvicorn benchmarks.starlette_reference:app`,
environment as the predictor's.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import onnxruntime
import prometheus_client
import redis.asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flightdeck.contracts.artefact import verify_artefact
from flightdeck.contracts.prediction import PredictionRecord

SHA256 = os.environ["PREDICTOR_MODEL_SHA256"]
FOLDER = Path(os.environ["PREDICTOR_ARTEFACTS"]) / SHA256
MANIFEST = verify_artefact(FOLDER, SHA256)
NAMES = [feature.name for feature in MANIFEST.features]
FLOAT32_MAX = 3.4028234663852886e38

Number = Annotated[float, msgspec.Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)] | None
Row = msgspec.defstruct("Row", [(name, Number) for name in NAMES], forbid_unknown_fields=True)


class Body(msgspec.Struct, forbid_unknown_fields=True):
    """The request."""

    rows: Annotated[list[Row], msgspec.Meta(min_length=1, max_length=1000)]  # type: ignore[valid-type]


options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(str(FOLDER / "model.onnx"), options, providers=["CPUExecutionProvider"])
decoder = msgspec.json.Decoder(Body)
encoder = msgspec.json.Encoder()
records = msgspec.msgpack.Encoder()
requests = prometheus_client.Counter("reference_requests", "Requests.", ("route", "code"))
latency = prometheus_client.Histogram("reference_request_seconds", "Latency.", ("route",))
queue: deque[PredictionRecord] = deque(maxlen=120_000)


async def score(request: Request) -> Response:
    """POST /v1/score."""
    started_s = time.perf_counter()
    request_id = request.headers.get("x-request-id") or uuid.uuid4().hex
    try:
        body = decoder.decode(await request.body())
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        requests.labels("/v1/score", "4xx").inc()
        return Response(encoder.encode({"error": str(error), "request_id": request_id}), 422)
    vectors = [msgspec.structs.astuple(row) for row in body.rows]
    matrix = np.asarray(vectors, dtype=np.float32)
    scores = session.run(["score"], {"features": matrix})[0].reshape(-1).tolist()
    predictions = []
    for at, value in enumerate(scores):
        decision = "positive" if value >= MANIFEST.decision_threshold else "negative"
        predictions.append({"score": value, "decision": decision})
        queue.append(
            PredictionRecord(
                request_id=request_id,
                row=at,
                entity_id="",
                asked_at_us=int(time.time() * 1e6),
                model=MANIFEST.model,
                version="1",
                sha256=SHA256,
                feature_service=MANIFEST.feature_service,
                features=list(vectors[at]),
                feature_hash=hashlib.blake2b(matrix[at].tobytes(), digest_size=8).hexdigest(),
                score=value,
                decision=decision,
                degraded=[],
                ages_s={},
                latency_us=int((time.perf_counter() - started_s) * 1e6),
                replica="reference",
            )
        )
    content = encoder.encode(
        {
            "request_id": request_id,
            "model": {"name": MANIFEST.model, "version": "1", "sha256": SHA256},
            "predictions": predictions,
        }
    )
    requests.labels("/v1/score", "2xx").inc()
    latency.labels("/v1/score").observe(time.perf_counter() - started_s)
    return Response(content, media_type="application/json", headers={"x-request-id": request_id})


async def write_log() -> None:
    """Send batches to the stream."""
    client = redis.asyncio.Redis.from_url(os.environ["PREDICTOR_STREAMS_REDIS_URL"])
    while True:
        await asyncio.sleep(0.05)
        while queue:
            batch = [queue.popleft() for _ in range(min(256, len(queue)))]
            await client.xadd("bench:reference", {"r": records.encode(batch)}, maxlen=1000, approximate=True)


@contextlib.asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """The writer lives as long as the application."""
    task = asyncio.create_task(write_log())
    yield
    task.cancel()


async def readyz(_: Request) -> Response:
    """GET /readyz."""
    return Response("ok")


app = Starlette(routes=[Route("/v1/score", score, methods=["POST"]), Route("/readyz", readyz)], lifespan=lifespan)
