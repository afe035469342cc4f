"""Decides what a batch of stream entries means: accepted, repeated, late, clamped or a dead letter; which snapshots.

Pure. What it remembers between batches is `Kept` and the remembered events; `streams.py` keeps both in the transaction
that acknowledges the batch, so a new `Intake` made of them goes on as the old one would have.
"""

from __future__ import annotations

import dataclasses
import enum
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from flightdeck.contracts.events import (
    EVENT_FIELD,
    MICROSECOND,
    AcceptedEvent,
    Effect,
    Event,
    FeatureSnapshot,
    Fold,
)

Fields: TypeAlias = Mapping[bytes, bytes]
Entries: TypeAlias = Sequence[tuple[bytes, Fields | None]]  # stream id, fields; None: deleted while it was pending
_FIELD = EVENT_FIELD.encode()


class Reason(enum.StrEnum):
    """Why an entry is a dead letter."""

    NO_FIELD = "no_field"
    NOT_JSON = "not_json"
    INVALID = "invalid"


class Told(msgspec.Struct, frozen=True):
    """A valid event, its time set back to now where `told_us` lies in the future, and its JSON as it came."""

    event: Event
    told_us: int
    body: str


class DeadLetter(msgspec.Struct, frozen=True):
    """An entry that is no event, to the byte."""

    entry: bytes
    reason: Reason
    error: str
    fields: dict[bytes, bytes]


class Remembered(msgspec.Struct, frozen=True, array_like=True):
    """An event that a snapshot may still know; `content` is its JSON, empty when it is none of the features'."""

    until_us: int
    content: bytes


class Kept(msgspec.Struct):
    """How far the features are.

    Args:
        snapshot_us: of the newest snapshot; None before the first event.
        told_us: the newest time that an event told.
        reached_us: everything known until then counts as heard; snapshots before it are made.
        newest: the newest row of every entity in every view.
    """

    snapshot_us: int | None = None
    told_us: int = 0
    reached_us: int = 0
    newest: list[FeatureSnapshot] = msgspec.field(default_factory=list)


@dataclasses.dataclass
class Taken:
    """What one batch changes, to be written in one transaction.

    Args:
        entries: stream ids to acknowledge.
        remembered: the event of each new id.
        forgotten: ids of which no snapshot will know.
        applied: (at_us, stream id) of each event that went into the features.
        skipped: snapshots that were not made, after a gap too long to be filled.
    """

    entries: list[bytes] = dataclasses.field(default_factory=list)
    accepted: list[AcceptedEvent] = dataclasses.field(default_factory=list)
    dead: list[DeadLetter] = dataclasses.field(default_factory=list)
    snapshots: list[FeatureSnapshot] = dataclasses.field(default_factory=list)
    remembered: dict[str, Remembered] = dataclasses.field(default_factory=dict)
    forgotten: list[str] = dataclasses.field(default_factory=list)
    applied: list[tuple[int, bytes]] = dataclasses.field(default_factory=list)
    duplicates: Counter[str] = dataclasses.field(default_factory=Counter)
    clamped: Counter[str] = dataclasses.field(default_factory=Counter)
    skipped: int = 0

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.entries or self.snapshots or self.forgotten)


class Intake:
    """See the module.

    Args:
        fold: new, knowing nothing.
        kept, remembered: as an earlier intake left them; empty at first.
        future_tolerance_us: an event may be so far ahead of the clock; farther, its time is set back to now.
        snapshots_at_most: made at once after a gap, the newest ones.
    Raises:
        ValueError: the fold cannot read what another one remembered.
    """

    def __init__(
        self, fold: Fold, kept: Kept, remembered: Mapping[str, Remembered], *, future_tolerance_us: int,
        snapshots_at_most: int = 1000,
    ) -> None:  # fmt: skip
        self._fold, self.kept = fold, kept
        self._period_us = fold.period // MICROSECOND
        self._future_tolerance_us, self._snapshots_at_most = future_tolerance_us, snapshots_at_most
        self._encode = msgspec.json.Encoder().encode
        self._revise = False
        self._remembered: set[str] = set(remembered)
        self._until = [(item.until_us, name) for name, item in remembered.items()]
        heapq.heapify(self._until)
        try:
            events = [fold.decode(item.content) for item in remembered.values() if item.content]
        except msgspec.DecodeError as error:
            raise ValueError(f"this fold cannot read an event that was remembered: {error}") from error
        for event in sorted(events, key=lambda event: (event.at_us, event.id)):
            fold.add(event)

    @property
    def remembered(self) -> int:
        """Events that a snapshot may still know."""
        return len(self._remembered)

    def take(self, entries: Entries, now_us: int) -> Taken:
        """What these entries, in the order of the stream, change at `now_us` on the clock."""
        taken = Taken()
        for entry, fields in entries:
            taken.entries.append(entry)
            if fields is None:
                continue
            found = self._decoded(fields, now_us)
            if isinstance(found, Told):
                self._accept(entry, found, now_us, taken)
            else:
                taken.dead.append(DeadLetter(entry, *found, dict(fields)))
        self._advance(now_us, taken)
        return taken

    def pass_time(self, heard_us: int, silence_us: int, now_us: int) -> Taken:
        """Time alone: everything known until `heard_us` has come.

        Features of a source that fell silent are no news: `silence_us` after the last event no more snapshots are made.
        """
        taken = Taken()
        if self.kept.snapshot_us is not None:
            heard_us = min(heard_us, self.kept.told_us + silence_us)
            self.kept.reached_us = max(self.kept.reached_us, heard_us)
            self._advance(now_us, taken)
        return taken

    def _decoded(self, fields: Fields, now_us: int) -> Told | tuple[Reason, str]:
        try:
            content = fields[_FIELD]
            body = content.decode()  # all of it is kept as text, also what the decoder passes over
            event = self._fold.decode(content)
            told_us = event.at_us
            if told_us > now_us + self._future_tolerance_us:
                event = msgspec.structs.replace(event, at_us=now_us)  # ValueError: not every event can be now
            return Told(event, told_us, body)
        except KeyError:
            return Reason.NO_FIELD, f"an entry needs the field {EVENT_FIELD!r}"
        except msgspec.ValidationError as error:
            return Reason.INVALID, str(error)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Reason.NOT_JSON, str(error)
        except ValueError as error:
            return Reason.INVALID, str(error)

    def _accept(self, entry: bytes, told: Told, now_us: int, taken: Taken) -> None:
        event, kind, kept = told.event, str(type(told.event).__struct_config__.tag), self.kept
        if event.id in self._remembered:
            taken.duplicates[kind] += 1
            return
        if told.told_us != event.at_us:
            taken.clamped[kind] += 1
        if kept.snapshot_us is None:  # the first snapshot is the first one that can know this event
            kept.snapshot_us = (event.at_us - 1) // self._period_us * self._period_us
        late, until_us = event.at_us <= kept.snapshot_us, self._fold.needed_until_us(event)
        effect = Effect.EXPIRED
        if until_us > kept.snapshot_us:
            effect = Effect.APPLIED if self._fold.add(event) else Effect.NONE
            content = self._encode(event) if effect is Effect.APPLIED else b""
            taken.remembered[event.id] = Remembered(until_us, content)
            self._remembered.add(event.id)
            heapq.heappush(self._until, (until_us, event.id))
        if effect is Effect.APPLIED:
            taken.applied.append((event.at_us, entry))
            self._revise = self._revise or late
        kept.told_us = max(kept.told_us, event.at_us)
        kept.reached_us = max(kept.reached_us, event.at_us)
        taken.accepted.append(AcceptedEvent(event.id, kind, event.at_us, told.told_us, now_us, late, effect, told.body))

    def _advance(self, now_us: int, taken: Taken) -> None:
        """Snapshots before `reached_us`: what is known at that very moment may still come."""
        kept = self.kept
        if kept.snapshot_us is None:
            return
        due_us = (kept.reached_us - 1) // self._period_us * self._period_us
        missing = max(0, (due_us - kept.snapshot_us) // self._period_us)
        taken.skipped = max(0, missing - self._snapshots_at_most)
        for at_us in range(kept.snapshot_us + (taken.skipped + 1) * self._period_us, due_us + 1, self._period_us):
            kept.newest = list(self._snapshots(at_us, now_us))
            taken.snapshots += kept.newest
            kept.snapshot_us = at_us
        if self._revise and not missing:
            taken.snapshots += self._revised(kept.snapshot_us, now_us)
        self._revise = False
        while self._until and self._until[0][0] <= kept.snapshot_us:
            name = heapq.heappop(self._until)[1]
            self._remembered.discard(name)
            if taken.remembered.pop(name, None) is None:
                taken.forgotten.append(name)

    def _snapshots(self, at_us: int, now_us: int) -> Iterable[FeatureSnapshot]:
        for row in self._fold.snapshot(at_us):
            yield FeatureSnapshot(row.view, row.keys, row.features, at_us, 0, now_us)

    def _revised(self, at_us: int, now_us: int) -> list[FeatureSnapshot]:
        """Rows of the newest snapshot that late events changed."""
        before = {(row.view, *sorted(row.keys.items())): row for row in self.kept.newest}
        now = {(row.view, *sorted(row.keys.items())): row for row in self._snapshots(at_us, now_us)}
        changed = {
            key: msgspec.structs.replace(row, revision=before[key].revision + 1 if key in before else 0)
            for key, row in now.items()
            if key not in before or row.features != before[key].features
        }
        self.kept.newest = [changed.get(key) or before[key] for key in now]
        return list(changed.values())
