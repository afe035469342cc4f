"""What goes wrong on the way from a source: copies, delays, entries that are no events; decided by a seed. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
import heapq
import random
from collections.abc import Iterator

from flightdeck.contracts.events import MICROSECOND
from pipelines.data.publish import Timed


@dataclasses.dataclass(frozen=True)
class Disturbance:
    """How much goes wrong; shares are 0 to 1, of all events.

    Args:
        seed: of the chance.
        repeated_share: told twice, the second time up to `late_by` later.
        late_share: told up to `late_by` later than it is known.
        late_by: the longest delay.
        unreadable_share: preceded by an entry that is no event.
    """

    seed: int = 0
    repeated_share: float = 0.0
    late_share: float = 0.0
    late_by: dt.timedelta = dt.timedelta(minutes=45)
    unreadable_share: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.repeated_share, self.late_share, self.unreadable_share)
        if not all(0 <= share <= 1 for share in shares) or self.late_by < dt.timedelta(0):
            raise ValueError(f"shares are 0 to 1 and a delay is not negative; got {self}")


def disturbed(events: Iterator[Timed], how: Disturbance) -> Iterator[Timed]:
    """Every event of `events` at least once, ordered by the time at which it is told.

    Args:
        events: ordered by time.
        how: nothing of it leaves them as they are.
    """
    chance = random.Random(how.seed)  # noqa: S311  faults of a test, no secret
    waiting: list[tuple[int, int, bytes]] = []  # a heap: when it is told, its place, what
    longest_us = how.late_by // MICROSECOND
    for place, (at_us, content) in enumerate(events):
        while waiting and waiting[0][0] <= at_us:
            told_us, _, told = heapq.heappop(waiting)
            yield told_us, told
        if chance.random() < how.unreadable_share:
            yield at_us, content[: chance.randrange(len(content))]
        if chance.random() < how.repeated_share:
            heapq.heappush(waiting, (at_us + chance.randint(0, longest_us), place, content))
        if chance.random() < how.late_share:
            heapq.heappush(waiting, (at_us + chance.randint(0, longest_us), place, content))
        else:
            yield at_us, content
    while waiting:
        told_us, _, told = heapq.heappop(waiting)
        yield told_us, told
