"""Adapter: the replay clock of the streams Redis, read once a second in the background; wall time when absent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from redis.exceptions import RedisError

from flightdeck.contracts.clock import CLOCK_KEY, Clock, WallClock, clock_from_mapping

logger = logging.getLogger("flightdeck.predictor")


class WatchedClock:
    """Tells the time without I/O. While the streams Redis is away the last known clock goes on."""

    def __init__(self, client: Any, *, interval_s: float = 1.0, timeout_s: float = 1.0) -> None:
        self._client = client
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock: Clock = WallClock()
        self._task: asyncio.Task[None] | None = None
        self._complained = False

    def now_s(self) -> float:
        """Seconds since 1970 on the clock."""
        return self._clock.now().timestamp()

    async def start(self) -> None:
        """Read the clock once, then keep it fresh."""
        await self._refresh()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Stop reading."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._interval_s)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                mapping = await self._client.hgetall(CLOCK_KEY)
            self._clock = clock_from_mapping({key.decode(): value.decode() for key, value in mapping.items()})
            self._complained = False
        except (TimeoutError, RedisError, OSError, ValueError) as error:
            if not self._complained:  # once per outage, not once per second
                logger.warning("clock not read, keeping the last one: %s", error)
                self._complained = True
