"""One request of a virtual user, for whatever drives them: sent, timed, and what became of it."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from flightdeck.lab.users import Arrival, Outcome

PATH = "/v1/predict"
HEADERS = {"content-type": "application/json"}


class _Row(msgspec.Struct):
    score: float
    degraded: list[str] = []


class _Answer(msgspec.Struct):
    predictions: list[_Row]


_decode = msgspec.json.Decoder(_Answer).decode


def tell_locust(environment: Any, outcome: Outcome, length: int) -> None:
    """Let locust's own figures know of a request."""
    environment.events.request.fire(
        request_type="POST", name=PATH, response_time=outcome.latency_ms, response_length=length,
        exception=None if outcome.ok else RuntimeError(f"{outcome.status} {outcome.error}"), context={},
    )  # fmt: skip


def ask(http: Any, arrival: Arrival, intended_s: float, *, upstream_header: str = "") -> tuple[Outcome, int]:
    """Send it and wait for the answer; returns what became of it, and the answer's length in bytes.

    Args:
        http: a geventhttpclient.HTTPClient with one connection.
        intended_s: Unix time at which it should have been sent.
        upstream_header: of the answer; says `host:port` of the replica that gave it.
    """
    sent_s = time.time()
    status, score, degraded, error, content, port = 0, None, list[str](), "", b"", 0
    try:
        answer = http.request("POST", PATH, body=arrival.body, headers=HEADERS)
        content = answer.read()
        status = int(answer.status_code)
        if upstream_header:
            port = int(str(answer.get(upstream_header) or ":0").rpartition(":")[2] or 0)
    except Exception as problem:  # whatever the transport raises is a failed request
        error = f"{type(problem).__name__}: {problem}"
    done_s = time.time()
    if status == 200:
        row = _decode(content).predictions[0]
        score, degraded = row.score, row.degraded
    elif status:
        error = content[:200].decode(errors="replace")
    outcome = Outcome(
        arrival.at_us, arrival.entity_id, intended_s, sent_s, done_s, status, score, list(degraded), error, port
    )
    return outcome, len(content)
