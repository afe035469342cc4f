"""A keep-alive HTTP/1.1 client for measuring: it sends one prepared request over and over on N connections.

The same client measures every service, so its own cost is in every figure alike.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from typing import cast


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one round saw; latencies in seconds, sorted."""

    seconds: float
    latencies_s: list[float]
    failures: int
    server_cpu_s: float = 0.0

    @property
    def cpu_us(self) -> float:
        """CPU time of the server per answer: what a busy machine does not distort."""
        return self.server_cpu_s / max(len(self.latencies_s), 1) * 1e6

    @property
    def rate(self) -> float:
        """Answers with status 200 per second."""
        return len(self.latencies_s) / self.seconds

    def quantile_ms(self, q: float) -> float:
        """The q-quantile of the latency in milliseconds."""
        return self.latencies_s[min(len(self.latencies_s) - 1, int(q * len(self.latencies_s)))] * 1e3


def post(path: str, body: bytes) -> bytes:
    """One prepared request."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    def __init__(self, request: bytes, until_s: float, done: asyncio.Future[None]) -> None:
        self.request, self.until_s, self.done = request, until_s, done
        self.latencies_s: list[float] = []
        self.failures = 0
        self.buffer = b""
        self.sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transports are of no common base
        self.send()

    def send(self) -> None:
        self.sent_s = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self.buffer[:head_end].lower()
        at = head.find(b"content-length:")
        end = head.find(b"\r\n", at)
        length = int(head[at + 15 : end if end > 0 else None])
        if len(self.buffer) < head_end + 4 + length:
            return
        now_s = time.perf_counter()
        if head.startswith(b"http/1.1 200"):
            self.latencies_s.append(now_s - self.sent_s)
        else:
            self.failures += 1
        self.buffer = b""
        if now_s >= self.until_s:
            self.transport.close()
            return
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self.until_s:
            self.failures += 1
        if not self.done.done():
            self.done.set_result(None)


async def measure(port: int, request: bytes, *, connections: int, seconds: float) -> Measured:
    """Send `request` on `connections` connections for `seconds`."""
    loop = asyncio.get_running_loop()
    start_s = time.perf_counter()
    opened = []
    for _ in range(connections):
        done: asyncio.Future[None] = loop.create_future()
        _, protocol = await loop.create_connection(
            lambda done=done: _Connection(request, start_s + seconds, done),  # type: ignore[misc]
            "127.0.0.1",
            port,
        )
        opened.append((protocol, done))
    async with asyncio.timeout(seconds + 10):
        await asyncio.gather(*(done for _, done in opened))
    latencies_s = sorted(value for protocol, _ in opened for value in protocol.latencies_s)
    return Measured(time.perf_counter() - start_s, latencies_s, sum(protocol.failures for protocol, _ in opened))
