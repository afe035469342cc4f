"""What the journal tells about one model: a fold over its entries, and ages on a clock that may jump. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence

from flightdeck.contracts.retrain import Entry, Freeze, Incident, Order, Outcome, Pretest, TriggerKind

SETTLED_QUIETLY = frozenset({Outcome.NOTED, Outcome.ANSWERED})  # they change nothing but their triggers


@dataclasses.dataclass(frozen=True)
class Start:
    """A training that was ordered, or a pre-test that said no.

    Args:
        ended: TRAINED, FAILED, SKIP, or None while it is under way. ended_at: when.
        least: the earliest time that the clock has shown since; before `at` only when it was set back.
    """

    number: int
    at: dt.datetime
    reason: str
    ended: Outcome | None = None
    ended_at: dt.datetime | None = None
    least: dt.datetime | None = None


@dataclasses.dataclass(frozen=True)
class State:
    """Everything a decision about one model depends on beside its triggers.

    Args:
        starts: trainings, skips: pre-tests that said no; oldest first.
        last: the newest decision that is about trainings or incidents: not NOTED, not ANSWERED.
        busy: what is under way that the journal does not know, in words: a rollout, a training begun by hand.
        pretest: the pre-test's answer to the request at hand, where it was asked just now.
    """

    starts: tuple[Start, ...] = ()
    skips: tuple[Start, ...] = ()
    incidents: tuple[Incident, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    last: Entry | None = None
    busy: str = ""
    pretest: Pretest | None = None

    @property
    def open(self) -> Start | None:
        """The training under way."""
        return self.starts[-1] if self.starts and self.starts[-1].ended is None else None

    def order(self, model: str) -> Order | None:
        """The training under way, as it was ordered."""
        start = self.open
        return Order(model=model, number=start.number, until=start.at, reason=start.reason) if start else None

    def incident(self, kind: TriggerKind) -> Incident | None:
        """The open one of a kind."""
        return next((item for item in self.incidents if item.kind is kind), None)


def fold(entries: Sequence[Entry], of_every_model: Sequence[Entry] = ()) -> State:
    """The state after all entries of one model, and those that concern every model; each in the order of numbers."""
    starts: dict[int, Start] = {}
    incidents: dict[int, Incident] = {}
    skips: dict[int, Start] = {}
    for entry in entries:
        decision = entry.decision
        for known in (starts, skips):
            for number, it in known.items():
                if entry.at < (it.least or it.at):
                    known[number] = dataclasses.replace(it, least=entry.at)
        match decision.outcome:
            case Outcome.TRAIN:
                starts[entry.number] = Start(entry.number, entry.at, decision.reason)
            case Outcome.TRAINED | Outcome.FAILED if decision.of in starts:
                starts[decision.of] = dataclasses.replace(
                    starts[decision.of], ended=decision.outcome, ended_at=entry.at
                )
            case Outcome.SKIP:
                skips[entry.number] = Start(entry.number, entry.at, decision.reason, Outcome.SKIP, entry.at)
            case Outcome.INCIDENT:
                assert decision.kind is not None and decision.seen_at is not None and decision.seen_id is not None
                incidents[entry.number] = Incident(
                    number=entry.number, kind=decision.kind, opened_at=entry.at, seen_at=decision.seen_at,
                    seen_id=decision.seen_id, reason=decision.reason,
                )  # fmt: skip
            case Outcome.RESOLVED if decision.of is not None:
                incidents.pop(decision.of, None)
            case _:
                pass
    return State(
        starts=tuple(starts.values()),
        skips=tuple(skips.values()),
        incidents=tuple(incidents.values()),
        freezes=tuple(frozen for part in (of_every_model, entries) if (frozen := standing_freeze(part))),
        last=next((it for it in reversed(entries) if it.decision.outcome not in SETTLED_QUIETLY), None),
    )


def standing_freeze(entries: Sequence[Entry]) -> Freeze | None:
    """Of one model's entries, or of those with the model `*`."""
    found = None
    for entry in entries:
        if entry.decision.outcome is Outcome.FROZEN:
            found = Freeze(model=entry.model, at=entry.at, by=entry.by, reason=entry.decision.reason)
        elif entry.decision.outcome is Outcome.UNFROZEN:
            found = None
    return found


def age(start: Start, now: dt.datetime, within: dt.timedelta) -> dt.timedelta | None:
    """How long ago something began, on a clock that may have been set meanwhile; never negative.

    Set back a little since, the clock counts from there: so a wait of `within` ends at the latest so long after the
    first look after the jump. None when it was set back by more than `within`: that
    was another replay, and says nothing.
    """
    least = min(start.least or start.at, now)
    return None if start.at - least > within else now - least


def scheduled(every: dt.timedelta, state: State, asked: dt.datetime | None, now: dt.datetime) -> bool:
    """Whether a `schedule` trigger is due: for so long no training began and none was asked for by schedule.

    Args:
        asked: time of the last `schedule` trigger.
    """
    times = [*state.starts, *([Start(0, asked, "")] if asked else [])]
    ages = [found for it in times if (found := age(it, now, every)) is not None]
    return all(found >= every for found in ages)
