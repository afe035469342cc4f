"""Adapter: everybody's clock, one hash on the streams server (flightdeck/contracts/clock.py says what is in it)."""

from __future__ import annotations

from typing import Any

from flightdeck.contracts.clock import CLOCK_KEY, Clock, ReplayClock, clock_from_mapping


def read_clock(streams: Any) -> Clock:
    """The clock that is set, wall time when none is.

    Raises:
        redis.RedisError: the server is away.
        ValueError: what is set is unreadable.
    """
    found = streams.hgetall(CLOCK_KEY)
    return clock_from_mapping({_text(key): _text(value) for key, value in found.items()})


def set_clock(streams: Any, clock: ReplayClock | None) -> None:
    """Make `clock` everybody's now, from one moment to the next; None is wall time."""
    with streams.pipeline(transaction=True) as both:  # never seen half, nor as wall time in between
        both.delete(CLOCK_KEY)
        if clock:
            both.hset(CLOCK_KEY, mapping=clock.to_mapping())
        both.execute()


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
