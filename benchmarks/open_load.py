"""A constant rate of requests, whatever the answers; every answer is kept. To 127.0.0.1 only; ends with its block."""

from __future__ import annotations

import dataclasses
import http.client
import json
import threading
import time
from collections.abc import Sequence

from flightdeck.lab.envoy import UPSTREAM_HEADER

LONGEST_S = 300.0  # it stops by itself, should its owner forget


@dataclasses.dataclass(frozen=True)
class Answer:
    """One request's answer.

    Args:
        at: `time.monotonic()` when it was sent. seconds: until the answer.
        status: 0 is a transport error, told in `said`. reasons: why it is degraded.
        upstream: "host:port" of the replica that answered, as the gateway says.
    """

    at: float
    seconds: float
    status: int
    score: float | None
    reasons: tuple[str, ...]
    upstream: str
    said: str


class Load:
    """Requests to 127.0.0.1 over kept connections. Use as a context manager."""

    def __init__(
        self, port: int, body: bytes | Sequence[bytes], *, rate_per_s: float, workers: int = 16,
        longest_s: float = LONGEST_S,
    ) -> None:  # fmt: skip
        """Of several bodies each gets its turn."""
        self.port, self.rate_per_s, self.workers, self.longest_s = port, rate_per_s, workers, longest_s
        self.bodies = [body] if isinstance(body, bytes) else list(body)
        self.answers: list[Answer] = []
        self._end, self._lock, self._number = threading.Event(), threading.Lock(), 0
        self._start = time.monotonic()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(workers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(15)

    @property
    def failed(self) -> list[Answer]:
        """All but 200."""
        return [answer for answer in list(self.answers) if answer.status != 200]

    def since(self, moment: float) -> list[Answer]:
        """Answers to requests that began at `moment` or later."""
        return [answer for answer in list(self.answers) if answer.at >= moment]

    def more(self, count: int) -> list[Answer]:
        """The next answers to requests that begin from now on, at least `count`."""
        begin, deadline = time.monotonic(), time.monotonic() + 5 * count / self.rate_per_s + 10
        while len(found := self.since(begin)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} answers came"
            time.sleep(0.02)
        return found

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while True:
            with self._lock:
                number, self._number = self._number, self._number + 1
            due = self._start + number / self.rate_per_s
            if self._end.wait(max(0.0, due - time.monotonic())) or due - self._start > self.longest_s:
                connection.close()
                return
            at, body = time.monotonic(), self.bodies[number % len(self.bodies)]
            try:
                connection.request("POST", "/v1/predict", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
                score, reasons = None, ()
                if answer.status == 200:
                    row = json.loads(content)["predictions"][0]
                    score, reasons = row["score"], tuple(row["degraded"])
                upstream, said = answer.headers.get(UPSTREAM_HEADER, ""), content[:300].decode()
                self.answers.append(Answer(at, time.monotonic() - at, answer.status, score, reasons, upstream, said))
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                self.answers.append(Answer(at, time.monotonic() - at, 0, None, (), "", repr(error)))
