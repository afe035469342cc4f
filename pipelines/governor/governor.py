"""Entry point: what a sensor, the lab or a person calls. Each call is safe to repeat and may be killed at any line."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Protocol

from flightdeck.contracts.clock import Clock
from flightdeck.contracts.model_spec import ModelSpec
from flightdeck.contracts.retrain import (
    CLEARED_BY,
    EVERY_MODEL,
    Decision,
    Entry,
    Freeze,
    Order,
    Outcome,
    Pretest,
    Trigger,
    TriggerKind,
)
from pipelines.governor.decide import decide, length, moment, worth_keeping
from pipelines.governor.journal import Journal, Turn
from pipelines.governor.state import scheduled

GOVERNOR = "governor"
SETTLING = {Outcome.NOTED, Outcome.INCIDENT, Outcome.RESOLVED, Outcome.ANSWERED}


class Refused(ValueError):
    """What a person asks for has no effect; the message says why."""


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a training came to its end: `ok` when a candidate was judged, whatever gates and rollout said of it."""

    ok: bool
    words: str


class Runner(Protocol):
    """Makes trainings.

    A training has ended when all that follows it by itself has: the gate refused the candidate, or its rollout came to
    an end. Until then it counts as under way, and complaints about the champion that it may replace are answered by it.
    """

    def start(self, order: Order) -> None:
        """Begin it. Asked again at every look until it has ended: one key is one training."""
        ...

    def ended(self, order: Order) -> Ended | None:
        """None while it is under way, or was never begun."""
        ...


@dataclasses.dataclass(frozen=True)
class Governor:
    """Decides on trainings.

    Args:
        busy: what is under way for a model that the journal does not know, in words (a rollout, a training begun by
            hand); empty when nothing is.
        pretest: `(spec, now)` -> its answer; asked outside of any transaction, for seconds.
    """

    journal: Journal
    clock: Clock
    runner: Runner
    busy: Callable[[str], str]
    pretest: Callable[[ModelSpec, dt.datetime], Pretest]

    def tick(self, spec: ModelSpec) -> list[Entry]:
        """One look at one model: the decisions that were kept.

        Raises:
            JournalUnavailable: nothing was decided. Whatever `pretest`, `busy` or the runner raise: the request stays.
        """
        kept = [entry for entry in (self._end(spec.name),) if entry]
        now = self.clock.now()
        self._schedule(spec, now)
        busy, pretest = self.busy(spec.name), None
        while True:
            state = dataclasses.replace(self.journal.state(spec.name), busy=busy, pretest=pretest)
            decision = decide(state, self.journal.waiting(spec.name), spec.retrain, now)
            if worth_keeping(state.last, decision, now):  # asked again where nobody else can decide meanwhile
                with self.journal.turn() as turn:
                    state = dataclasses.replace(turn.state(spec.name), busy=busy, pretest=pretest)
                    decision = decide(state, turn.waiting(spec.name), spec.retrain, now)
                    entry = turn.keep(spec.name, decision, now, GOVERNOR)
                kept += [entry] if entry else []
            if decision.outcome is Outcome.PRETEST:
                pretest = self.pretest(spec, now)
            elif decision.outcome not in SETTLING:
                break
        if order := self.journal.state(spec.name).order(spec.name):
            self.runner.start(order)
        return kept

    def _end(self, model: str) -> Entry | None:
        order = self.journal.state(model).order(model)
        ended = self.runner.ended(order) if order else None
        if order is None or ended is None:
            return None
        outcome = Outcome.TRAINED if ended.ok else Outcome.FAILED
        with self.journal.turn() as turn:
            still = turn.state(model).open
            if still is None or still.number != order.number:
                return None  # another governor was first
            decision = Decision(outcome=outcome, reason=f"training {order.number}: {ended.words}", of=order.number)
            return turn.keep(model, decision, self.clock.now(), GOVERNOR)

    def _schedule(self, spec: ModelSpec, now: dt.datetime) -> None:
        every = spec.retrain.every if spec.retrain else None
        if every is None:
            return
        state, asked = self.journal.state(spec.name), self.journal.newest(spec.name, TriggerKind.SCHEDULE)
        if not scheduled(every, state, asked.at if asked else None, now):
            return
        since = f"; the last one began at {moment(state.starts[-1].at)}" if state.starts else ""
        words = f"no training within {length(every)}{since}"
        trigger = Trigger(model=spec.name, kind=TriggerKind.SCHEDULE, at=now, evidence=words, source=GOVERNOR)
        self.journal.tell([trigger], now)


def tell(journal: Journal, triggers: list[Trigger], now: dt.datetime) -> int:
    """Hand triggers to the governor; returns how many are new. A clean check with nothing to clear is not kept."""
    broken_by = {clean: broken for broken, clean in CLEARED_BY.items()}

    def matters(trigger: Trigger) -> bool:
        broken = broken_by.get(trigger.kind)
        if broken is None or any(other.kind is broken for other in triggers):
            return True
        waits = any(item.trigger.kind is broken for item in journal.waiting(trigger.model))
        return waits or journal.state(trigger.model).incident(broken) is not None

    return journal.tell([trigger for trigger in triggers if matters(trigger)], now)


def request(journal: Journal, model: str, who: str, reason: str, now: dt.datetime) -> int:
    """A person asks for a training; returns 0 when the very same was told before."""
    trigger = Trigger(model=model, kind=TriggerKind.HAND, at=now, evidence=reason, source=who)
    return journal.tell([trigger], now)


def freeze(journal: Journal, model: str, who: str, reason: str, now: dt.datetime) -> Entry:
    """No training of a model (`*`: of any) begins until it is unfrozen; one that is under way goes on.

    Raises:
        Refused: it is frozen already.
    """
    with journal.turn() as turn:
        if frozen := _standing(turn, model):
            raise Refused(f"{_named(model)} frozen already, by {frozen.by} at {moment(frozen.at)}: {frozen.reason}")
        return _kept(turn.keep(model, Decision(outcome=Outcome.FROZEN, reason=reason), now, who))


def unfreeze(journal: Journal, model: str, who: str, reason: str, now: dt.datetime) -> Entry:
    """Trainings may begin again; what asked meanwhile is still there.

    Raises:
        Refused: it is not frozen.
    """
    with journal.turn() as turn:
        if _standing(turn, model) is None:
            raise Refused(f"{_named(model)} not frozen")
        return _kept(turn.keep(model, Decision(outcome=Outcome.UNFROZEN, reason=reason), now, who))


def resolve(journal: Journal, model: str, who: str, reason: str, now: dt.datetime) -> list[Entry]:
    """A person's word that what was broken is mended: ends every open incident of a model.

    Raises:
        Refused: none is open.
    """
    with journal.turn() as turn:
        incidents = turn.state(model).incidents
        if not incidents:
            raise Refused(f"{model} has no open incident")
        kept = []
        for incident in incidents:
            seen = {incident.kind, CLEARED_BY[incident.kind]}
            decision = Decision(
                outcome=Outcome.RESOLVED, kind=incident.kind, of=incident.number,
                reason=f"incident {incident.number} ({incident.kind.value}) ended by hand: {reason}",
                claims=tuple(item.id for item in turn.waiting(model) if item.trigger.kind in seen),
            )  # fmt: skip
            kept.append(_kept(turn.keep(model, decision, now, who)))
        return kept


def _standing(turn: Turn, model: str) -> Freeze | None:
    return next((item for item in turn.state(model).freezes if item.model == model), None)


def _named(model: str) -> str:
    return "all models are" if model == EVERY_MODEL else f"{model} is"


def _kept(entry: Entry | None) -> Entry:
    assert entry is not None  # only a wait is ever left out
    return entry
