"""Adapter: the prediction log, a bounded queue in memory and a writer that sends batches to a Redis stream.

`append` never waits and never raises; when the queue is full the new rows are dropped and counted. A write that fails
is tried again until it works, so an outage shorter than the queue lasts loses nothing. Delivery is at least once: a
write whose answer was lost is repeated; (`request_id`, `row`) tells duplicates apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import Any

import msgspec
from redis.exceptions import RedisError

from flightdeck.contracts.prediction import PREDICTION_STREAM, PredictionRecord
from services.predictor.metrics import Metrics

logger = logging.getLogger("flightdeck.predictor")
_LONGEST_PAUSE_S = 1.0
_WRITE_TIMEOUT_S = 2.0


class PredictionLog:
    """See the module."""

    def __init__(
        self,
        client: Any,
        metrics: Metrics,
        *,
        queue_rows: int,
        batch_rows: int,
        interval_s: float,
        stream_entries: int,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._queue: deque[bytes] = deque()
        self._queue_rows = queue_rows
        self._batch_rows = batch_rows
        self._interval_s = interval_s
        self._stream_entries = stream_entries
        self._encoder = msgspec.msgpack.Encoder()
        self._full_batch = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._pending: list[bytes] = []
        self._complained = False

    def append(self, record: PredictionRecord) -> None:
        """Take one row, or count it as dropped. Encoded at once: bytes are a quarter of the objects' memory."""
        if len(self._queue) >= self._queue_rows:
            self._metrics.log_dropped += 1
            return
        self._queue.append(self._encoder.encode(record))
        if len(self._queue) >= self._batch_rows:
            self._full_batch.set()

    @property
    def queued_rows(self) -> int:
        """Rows not yet written."""
        return len(self._queue) + len(self._pending)

    def start(self) -> None:
        """Begin writing in the background."""
        self._task = asyncio.create_task(self._write_for_ever())

    async def stop(self, timeout_s: float) -> int:
        """Write what is queued, at most `timeout_s` long.

        Returns:
            rows that could not be written; they are counted as dropped.
        """
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        try:
            async with asyncio.timeout(timeout_s):
                while self._next_batch():
                    await self._write_batch()
        except TimeoutError:
            lost = self.queued_rows
            self._metrics.log_dropped += lost
            logger.error(
                "prediction log: %d rows lost, the streams Redis did not take them within %s s", lost, timeout_s
            )
            return lost
        return 0

    async def _write_for_ever(self) -> None:
        """Full batches at once, the rest once per interval: a write per row would keep both ends busy."""
        while True:
            rest_is_due = False
            try:
                async with asyncio.timeout(self._interval_s):
                    await self._full_batch.wait()
            except TimeoutError:
                rest_is_due = True
            self._full_batch.clear()
            while self._pending or len(self._queue) >= self._batch_rows or (rest_is_due and self._queue):
                rest_is_due = rest_is_due and len(self._queue) >= self._batch_rows
                self._next_batch()
                await self._write_batch()

    def _next_batch(self) -> bool:
        while self._queue and len(self._pending) < self._batch_rows:
            self._pending.append(self._queue.popleft())
        return bool(self._pending)

    async def _write_batch(self) -> None:
        """Write the pending batch, again and again until it is taken."""
        payload = _array(self._pending)
        pause_s = 0.05
        while True:
            try:
                async with asyncio.timeout(_WRITE_TIMEOUT_S):
                    await self._client.xadd(
                        PREDICTION_STREAM, {"r": payload}, maxlen=self._stream_entries, approximate=True
                    )
                break
            except (TimeoutError, RedisError, OSError) as error:
                self._metrics.log_failures += 1
                if not self._complained:  # once per outage
                    logger.warning("prediction log: the streams Redis does not take rows (%s); holding them", error)
                    self._complained = True
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        if self._complained:
            logger.info("prediction log: the streams Redis takes rows again")
            self._complained = False
        self._metrics.log_written += len(self._pending)
        self._pending.clear()


def _array(encoded: list[bytes]) -> bytes:
    """A msgpack array of already encoded items (msgpack spec: array 16, array 32)."""
    count = len(encoded)
    head = b"\xdc" + count.to_bytes(2, "big") if count < 1 << 16 else b"\xdd" + count.to_bytes(4, "big")
    return head + b"".join(encoded)
