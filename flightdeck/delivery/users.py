"""Adapter: an environment as its users meet it: through the Gateway, from this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import http.client
import math
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx

from flightdeck.cluster import gateway
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import GATEWAY_NAMESPACE, PLATFORM
from flightdeck.contracts.environments import LoadLimits
from flightdeck.contracts.release import Release
from flightdeck.load.here import send
from flightdeck.load.plan import Limits, LoadPlan
from flightdeck.load.verdict import LoadVerdict, judge

SETTLES_S = 60.0  # how long a smoke test lets a Gateway take new routes
ASK_S = 10.0
WORKERS = 16


class FellShort(RuntimeError):
    """A stage of a delivery found that the environment does not do what it must; the words say what was found."""


@contextlib.contextmanager
def way(kubectl: Kubectl) -> Iterator[str]:
    """An address of this machine that leads to the environment's Gateway: a published port, else a port-forward.

    Raises:
        CommandFailed: there is no Gateway yet, or no way to it.
    """
    found = gateway.service(kubectl)
    with contextlib.ExitStack() as held:
        url = gateway.url(kubectl) if kubectl.context.startswith("kind-") else ""
        if urlsplit(url).hostname not in ("127.0.0.1", "localhost"):
            url = held.enter_context(forward(kubectl, GATEWAY_NAMESPACE, found["metadata"]["name"], 80))
        yield url


def clock(kubectl: Kubectl) -> dt.datetime:
    """Where the environment's one clock stands.

    Raises:
        CommandFailed: the pipelines' pod does not tell.
    """
    said = kubectl("-n", PLATFORM, "exec", "deployment/dagster-code", "--", "flightdeck", "clock", "show")
    return dt.datetime.fromisoformat(said.split()[0])


def smoke(url: str, host: str, release: Release, body: bytes) -> list[str]:
    """Does the champion that is recorded answer, and whole? Returns what was seen, in short sentences.

    Args:
        host: the model's host name where several are behind one Gateway; empty: any.
    Raises:
        FellShort: it does not, and did not within a minute.
    """
    headers = {"content-type": "application/json"} | ({"host": host} if host else {})
    deadline = time.monotonic() + SETTLES_S
    while True:
        try:
            version = httpx.get(f"{url}/v1/model", headers=headers, timeout=ASK_S)
            answer = httpx.post(f"{url}/v1/predict", headers=headers, content=body, timeout=ASK_S)
            if not (why := wrong_with(version, answer, release)):
                return [f"v{release.model.version} answers, prediction {answer.json()['predictions'][0]['score']:.3f}"]
        except (httpx.HTTPError, ValueError) as error:
            why = f"{url}: {error or type(error).__name__}"
        if time.monotonic() > deadline:
            raise FellShort(f"smoke: {why}")
        time.sleep(1)


def wrong_with(version: httpx.Response, answer: httpx.Response, release: Release) -> str:
    """What is wrong with the two answers; empty when nothing is. Pure."""
    if version.status_code != 200:
        return f"/v1/model answers {version.status_code}: {version.text[:200]}"
    told = str(version.json().get("version"))
    if told != release.model.version:
        return f"/v1/model says version {told}, the rollout's champion is {release.model.version}"
    if answer.status_code != 200:
        return f"/v1/predict answers {answer.status_code}: {answer.text[:200]}"
    rows: list[dict[str, Any]] = answer.json().get("predictions") or []
    if not rows or not isinstance(score := rows[0].get("score"), (int, float)) or not math.isfinite(score):
        return f"/v1/predict answers without a score: {answer.text[:200]}"
    return ""


def load(url: str, limits: LoadLimits, bodies: Sequence[Any]) -> LoadVerdict:
    """A short load test at a constant rate.

    Raises:
        Refused: it may not be run there, or locust is not installed.
    """
    asked = Limits(limits.p50_ms, limits.p99_ms, limits.failed)
    plan = LoadPlan(url, limits.rate_per_s, limits.seconds, "", "", asked)
    return judge(plan, send(plan, bodies))


@dataclasses.dataclass
class Asked:
    """What became of the requests so far."""

    answered: int = 0
    failed: int = 0
    last: str = ""


@contextlib.contextmanager
def asking(url: str, host: str, bodies: Sequence[bytes], *, rate_per_s: float, longest_s: float) -> Iterator[Asked]:
    """Requests at a constant rate to this machine for as long as a block runs: a rollout needs some."""
    found, ended, lock = Asked(), threading.Event(), threading.Lock()
    parts, begun, numbers = urlsplit(url), time.monotonic(), iter(range(10**9))
    headers = {"content-type": "application/json"} | ({"host": host} if host else {})

    def ask() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port or 80, timeout=ASK_S)
        while True:
            with lock:
                number = next(numbers)
            due = begun + number / rate_per_s
            if ended.wait(max(0.0, due - time.monotonic())) or due - begun > longest_s:
                connection.close()
                return
            try:
                connection.request("POST", "/v1/predict", bodies[number % len(bodies)], headers)
                answer = connection.getresponse()
                said = answer.read()
                words = "" if answer.status == 200 else f"{answer.status} {said[:120].decode(errors='replace')}"
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                words = repr(error)
            with lock:
                found.answered += not words
                found.failed += bool(words)
                found.last = words or found.last

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join(ASK_S + 5)
