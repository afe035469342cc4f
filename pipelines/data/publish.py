"""Adapter: writes a source's events on the stream when the clock has reached them, each exactly once.

How many are written is kept beside the stream, in the transaction that writes them: a publisher that was killed goes on
where it was. It waits while the stream is long, so that a slow or absent ingestor fills no server.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

from redis.exceptions import RedisError

from flightdeck.contracts.events import EVENT_FIELD, EVENT_STREAM

logger = logging.getLogger("flightdeck.publish")
Timed: TypeAlias = tuple[int, bytes]  # when it becomes known, microseconds since 1970; the event's JSON
PAUSE_S, AWAY_S = 0.005, 0.2


def position_key(name: str) -> str:
    """Where the number of events that the publisher `name` has written is kept."""
    return f"flightdeck:events:published:{name}"


@dataclasses.dataclass
class Published:
    """What was done: written by this call, passed over as written before, times that the server did not answer."""

    written: int = 0
    before: int = 0
    failures: int = 0


def publish(
    redis: Any,
    events: Iterator[Timed],
    *,
    name: str,
    now_us: Callable[[], int],
    batch: int = 500,
    backlog_at_most: int = 20_000,
    ends: Callable[[], bool] = lambda: False,
) -> Published:
    """Write all events, each when it becomes known on the clock; returns when the last one is written.

    Args:
        redis: a `redis.Redis` on the streams server that repeats no command by itself (`retry=Retry(NoBackoff(), 0)`):
            a transaction whose answer was lost may have happened.
        events: ordered by time; the same ones whenever it is called with the same name.
        name: of this replay: its period.
        now_us: the clock's now; may raise RedisError.
        batch: events written in one transaction, at most.
        backlog_at_most: waits while more than so many events are not done.
        ends: asked between two batches; true ends the call early.
    Raises:
        ValueError: the server knows of fewer events than it once did.
    """
    done, key = Published(), position_key(name)
    waiting: list[Timed] = []
    written: int | None = None  # of all calls, as the server knows; None: it has to be asked
    taken = 0  # from `events`
    while not ends():
        try:
            if written is None:
                written = int(redis.get(key) or 0)
                happened = written - (taken - len(waiting))  # of what waits: a transaction whose answer was lost
                if happened < 0:
                    raise ValueError(f"{key} fell to {written:,}: the server lost what it had; begin with an empty one")
                waiting = waiting[happened:]
                if written > taken:
                    done.before = sum(1 for _ in itertools.islice(events, written - taken))
                    taken += done.before
            if len(waiting) < batch:
                more = list(itertools.islice(events, batch - len(waiting)))
                taken += len(more)
                waiting += more
            if not waiting:
                break
            until_us = now_us()
            due = sum(1 for at_us, _ in waiting if at_us <= until_us)
            if not due or redis.xlen(EVENT_STREAM) > backlog_at_most:
                time.sleep(PAUSE_S)
                continue
            with redis.pipeline(transaction=True) as both:
                for _, content in waiting[:due]:
                    both.xadd(EVENT_STREAM, {EVENT_FIELD: content})
                both.set(key, written + due)
                both.execute()
            written, waiting = written + due, waiting[due:]
        except (RedisError, OSError) as error:
            if written is not None:
                logger.warning("the streams server does not answer (%s); waiting", error)
            done.failures, written = done.failures + 1, None
            time.sleep(AWAY_S)
    done.written = taken - len(waiting) - done.before
    return done
