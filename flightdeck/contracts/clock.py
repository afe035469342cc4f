"""The one source of "now" for ingest, feature ages, label maturity, monitoring and the replay.

Rollout deadlines are real time and do not come from here.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Mapping
from typing import Protocol

CLOCK_KEY = "flightdeck:clock"  # a Redis hash; absent means wall time


class Clock(Protocol):
    """Tells the current time, UTC and timezone-aware."""

    def now(self) -> dt.datetime:
        """The current time."""
        ...


@dataclasses.dataclass(frozen=True)
class WallClock:
    """The machine's own time."""

    def now(self) -> dt.datetime:
        """The current wall time, UTC."""
        return dt.datetime.now(dt.UTC)


@dataclasses.dataclass(frozen=True)
class ReplayClock:
    """Virtual time: it starts at `virtual_start` when real time is `real_start_s` and runs `speed` times as fast.

    Args:
        virtual_start: where the replay begins, timezone-aware.
        real_start_s: Unix time, seconds, at which the replay begins.
        speed: virtual seconds per real second; 0 stands still, 43200 is a month in a minute.
        virtual_end: the clock stops here when given; a replay never runs past its data.
    """

    virtual_start: dt.datetime
    real_start_s: float
    speed: float
    virtual_end: dt.datetime | None = None

    def __post_init__(self) -> None:
        if self.virtual_start.tzinfo is None or (self.virtual_end is not None and self.virtual_end.tzinfo is None):
            raise ValueError(f"a replay clock needs timezone-aware times; got {self.virtual_start}, {self.virtual_end}")
        if not 0 <= self.speed < float("inf"):
            raise ValueError(f"speed must be finite and not negative; got {self.speed}")

    def at(self, real_s: float) -> dt.datetime:
        """Virtual time at Unix time `real_s`; before the start it stands at `virtual_start`."""
        elapsed_s = max(0.0, real_s - self.real_start_s) * self.speed
        try:
            virtual = self.virtual_start + dt.timedelta(seconds=elapsed_s)
        except OverflowError as error:
            if self.virtual_end is not None:
                return self.virtual_end
            raise ValueError(
                f"the replay ran past the calendar: speed {self.speed} for {real_s - self.real_start_s:.0f} s"
            ) from error
        return virtual if self.virtual_end is None else min(virtual, self.virtual_end)

    def now(self) -> dt.datetime:
        """Virtual time now, UTC."""
        return self.at(time.time())

    def real_s_of(self, virtual: dt.datetime) -> float:
        """Unix time, seconds, at which the clock shows `virtual`; infinity when it never will."""
        if virtual <= self.virtual_start:
            return self.real_start_s
        if self.speed == 0 or (self.virtual_end is not None and virtual > self.virtual_end):
            return float("inf")
        return self.real_start_s + (virtual - self.virtual_start).total_seconds() / self.speed

    def to_mapping(self) -> dict[str, str]:
        """As the Redis hash under `CLOCK_KEY`."""
        return {
            "virtual_start": self.virtual_start.astimezone(dt.UTC).isoformat(),
            "real_start_s": repr(self.real_start_s),
            "speed": repr(self.speed),
            "virtual_end": "" if self.virtual_end is None else self.virtual_end.astimezone(dt.UTC).isoformat(),
        }


def clock_from_mapping(mapping: Mapping[str, str]) -> Clock:
    """The clock that a Redis hash describes; an empty mapping is wall time.

    Raises:
        ValueError: a key is missing or unreadable.
    """
    if not mapping:
        return WallClock()
    try:
        end = mapping.get("virtual_end", "")
        return ReplayClock(
            virtual_start=dt.datetime.fromisoformat(mapping["virtual_start"]),
            real_start_s=float(mapping["real_start_s"]),
            speed=float(mapping["speed"]),
            virtual_end=dt.datetime.fromisoformat(end) if end else None,
        )
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{CLOCK_KEY} is unreadable ({error}); found {dict(mapping)}; delete the key for wall time"
        ) from error
