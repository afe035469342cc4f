"""Events: from a source over a Redis stream to the ingestor, and what the ingestor hands on to the lake.

All times are microseconds since 1970 on the clock of contracts.clock.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import Annotated, Any, Protocol

import msgspec

EVENT_STREAM = "flightdeck:events"  # an entry is one event: field `e`, JSON
EVENT_FIELD = "e"
DEAD_LETTER_STREAM = "flightdeck:events:dead"  # `entry`, `reason`, `error`, each field as it came: `original:<name>`
ACCEPTED_STREAM = "flightdeck:events:accepted"  # field `r`: a msgpack array of AcceptedEvent
SNAPSHOT_STREAM = "flightdeck:features:streamed"  # field `r`: a msgpack array of FeatureSnapshot
RECORDS_FIELD = "r"

MICROSECOND = dt.timedelta(microseconds=1)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
TimeUs = Annotated[int, msgspec.Meta(ge=0, le=4_102_444_800_000_000)]  # to the year 2100
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every event says; a use case adds its kinds as subclasses, each with its `tag`.

    Args:
        id: names the event: told twice, it counts once.
        at_us: when it became known.
    """

    id: Name
    at_us: TimeUs


class Effect(enum.StrEnum):
    """What an event did to the features."""

    APPLIED = "applied"
    NONE = "none"  # no feature is made of it, or another event had told the same
    EXPIRED = "expired"  # so late that no later snapshot can know it


class AcceptedEvent(msgspec.Struct, frozen=True, array_like=True):
    """A valid event as it was taken; a repeated one is accepted once, an expired one each time it comes.

    Args:
        id, kind: of the event.
        at_us: when it became known, not after the clock's now.
        told_us: the same as the event said.
        ingested_at_us: the clock's now.
        late: a snapshot that should have known it was made before.
        effect: what it did.
        body: the JSON as it came.
    """

    id: str
    kind: str
    at_us: int
    told_us: int
    ingested_at_us: int
    late: bool
    effect: Effect
    body: str


class FeatureRow(msgspec.Struct, frozen=True):
    """Features of one entity in one view: all of the view's, None where missing."""

    view: str
    keys: dict[str, str]
    features: dict[str, float | None]


class FeatureSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """A feature row as of `at_us`.

    Args:
        view, keys, features: as in `FeatureRow`.
        at_us: everything known until then, this moment included.
        revision: 0, and one more each time that a late event changed the row.
        made_at_us: the clock's now.
    """

    view: str
    keys: dict[str, str]
    features: dict[str, float | None]
    at_us: int
    revision: int
    made_at_us: int


class Fold(Protocol):
    """How a use case makes features of its events. A new one knows none.

    Args:
        kinds: the tags of its events.
        views: the feature views that its rows belong to.
        period: between two snapshots, which lie at whole multiples of it since 1970.
    """

    kinds: tuple[str, ...]
    views: tuple[str, ...]
    period: dt.timedelta

    def decode(self, content: bytes) -> Event:
        """The event in a piece of JSON.

        Raises:
            msgspec.DecodeError: it is no JSON, or (`msgspec.ValidationError`) no event of this use case.
        """
        ...

    def needed_until_us(self, event: Any) -> int:
        """No snapshot from this time on knows the event, so that a copy of it can do no harm any more."""
        ...

    def add(self, event: Any) -> bool:
        """Take an event, in any order; whether it can change a snapshot. What is told first counts."""
        ...

    def snapshot(self, at_us: int) -> list[FeatureRow]:
        """All rows as of `at_us`, not before the last call's; forgets what no later snapshot can need."""
        ...


def time_of(at_us: int) -> dt.datetime:
    """A time from microseconds since 1970."""
    return EPOCH + dt.timedelta(microseconds=at_us)


def microseconds(at_utc: dt.datetime) -> int:
    """Microseconds since 1970 of a timezone-aware time."""
    return (at_utc - EPOCH) // MICROSECOND
