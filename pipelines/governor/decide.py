"""The decision: may a training of one model begin now? Pure: of state, triggers, policy and the clock's now.

Each rule below looks at the same things and answers, or leaves it to the next one (docs/governor.md).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence

from flightdeck.contracts.model_spec import OnTrigger, Retrain
from flightdeck.contracts.retrain import (
    ASKING,
    CLEARED_BY,
    COMPLAINTS,
    EVERY_MODEL,
    Answer,
    Cause,
    Decision,
    Entry,
    Outcome,
    Received,
    Request,
    Severity,
    TriggerKind,
)
from pipelines.governor.state import Start, State, age

DAY = dt.timedelta(days=1)


@dataclasses.dataclass(frozen=True)
class Seen:
    """What every rule looks at; `triggers` are those that no decision has settled."""

    state: State
    triggers: tuple[Received, ...]
    policy: Retrain | None
    now: dt.datetime

    def of(self, *kinds: TriggerKind) -> list[Received]:
        """The triggers of these kinds, in the order they came in."""
        return [item for item in self.triggers if item.trigger.kind in kinds]


def decide(state: State, triggers: Sequence[Received], policy: Retrain | None, now: dt.datetime) -> Decision:
    """The next decision about one model.

    A decision that only settles triggers (NOTED, INCIDENT, RESOLVED, ANSWERED) leaves the rest to the next call. After
    PRETEST the same is asked again with its answer in `state.pretest`.

    Args:
        triggers: those that no decision has settled, all of one model.
        policy: None follows nothing but a person's word.
        now: the clock's; it may have jumped since the last decision, either way.
    """
    seen = Seen(state, tuple(triggers), policy, now)
    for settle in (_noted, _incident, _answered):
        if found := settle(seen):
            return found
    asking = seen.of(*ASKING, TriggerKind.HAND)
    if not asking:
        return Decision(outcome=Outcome.IDLE, reason="nothing asks for a training")
    request = Request(model=asking[0].trigger.model, triggers=tuple(asking))
    for hold in (_frozen, _broken, _busy, _cooling, _spent):
        if found := hold(seen, request):
            return found.model_copy(update={"counts": request.counts})
    return _train(seen, request)


def worth_keeping(last: Entry | None, decision: Decision, at: dt.datetime) -> bool:
    """Whether it belongs into the journal: nothing that changes nothing, and one wait once, however often one looks.

    Args:
        last: the newest decision that is about trainings or incidents (`State.last`).
        at: the clock's now; a wait is kept again when the clock was set back, so that all see it.
    """
    if decision.outcome in {Outcome.IDLE, Outcome.PRETEST}:
        return False
    if decision.outcome is not Outcome.WAIT or last is None:
        return True
    return at < last.at or (last.decision.outcome, last.decision.cause) != (Outcome.WAIT, decision.cause)


# Rules that settle triggers without a training


def _noted(seen: Seen) -> Decision | None:
    followed = set(seen.policy.triggers) if seen.policy else set()
    mild, strange, stale = [], [], []
    for item in seen.triggers:
        kind = item.trigger.kind
        if kind is TriggerKind.HAND:
            continue
        if item.trigger.severity is Severity.INFO and kind not in CLEARED_BY.values():
            mild.append(item)
        elif kind in ASKING and kind not in followed:
            strange.append(item)
    for broken, clean in CLEARED_BY.items():
        if not seen.state.incident(broken) and not seen.of(broken):
            stale += seen.of(clean)
    found = mild + strange + stale
    if not found:
        return None
    because = [
        f"{len(part):,} {words}"
        for part, words in (
            (mild, "of severity info"),
            (strange, "of a kind that the model's policy does not follow"),
            (stale, "checks without an incident to resolve"),
        )
        if part
    ]
    request = Request(model=found[0].trigger.model, triggers=tuple(found))
    return Decision(
        outcome=Outcome.NOTED, reason=f"{'; '.join(because)}: {request.words}", claims=request.ids,
        counts=request.counts,
    )  # fmt: skip


def _incident(seen: Seen) -> Decision | None:
    for kind, clean_kind in CLEARED_BY.items():
        broken, clean = seen.of(kind), seen.of(clean_kind)
        incident = seen.state.incident(kind)
        if incident is None and broken:
            newest = max(broken, key=lambda it: (it.trigger.at, it.id))
            request = Request(model=newest.trigger.model, triggers=tuple(broken))
            return Decision(
                outcome=Outcome.INCIDENT, kind=kind, seen_at=newest.trigger.at, seen_id=newest.id,
                reason=f"no training on a broken pipeline until a clean check or a person's word: {request.words}",
                claims=request.ids, counts=request.counts,
            )  # fmt: skip
        if incident is None or not clean:
            continue
        check = max(clean, key=lambda it: (it.trigger.at, it.id))
        evidence = [(incident.seen_at, incident.seen_id), *((it.trigger.at, it.id) for it in broken)]
        if all(_later(check, at, number, seen.now) for at, number in evidence):
            return Decision(
                outcome=Outcome.RESOLVED, kind=kind, of=incident.number,
                reason=f"incident {incident.number} ({kind.value}) ended by a later clean check: "
                f"{check.trigger.evidence}",
                claims=tuple(it.id for it in (*broken, *clean)),
            )  # fmt: skip
    return None


def _later(check: Received, at: dt.datetime, number: int, now: dt.datetime) -> bool:
    """Whether the check looked after the evidence; evidence from the future (a clock set back) counts by order."""
    return check.trigger.at > at or (at > now and check.id > number)


def _answered(seen: Seen) -> Decision | None:
    """Complaints about the champion that a finished training answers already: its effect has not shown yet."""
    last = seen.state.starts[-1] if seen.state.starts else None
    if seen.policy is None or last is None or last.ended is not Outcome.TRAINED:
        return None
    cool_down, ended = seen.policy.cool_down, last.ended_at or last.at
    if age(last, seen.now, cool_down) is None:
        return None

    def covered(at: dt.datetime) -> bool:
        return abs(at - last.at) <= cool_down or last.at <= at <= ended

    found = [item for item in seen.of(*COMPLAINTS) if covered(item.trigger.at)]
    if not found:
        return None
    request = Request(model=found[0].trigger.model, triggers=tuple(found))
    return Decision(
        outcome=Outcome.ANSWERED, of=last.number, claims=request.ids, counts=request.counts,
        reason=f"answered by training {last.number} ({moment(last.at)} to {moment(ended)}): {request.words}",
    )  # fmt: skip


# Rules that hold a request


def _wait(cause: Cause, reason: str, request: Request, until: dt.datetime | None = None) -> Decision:
    return Decision(outcome=Outcome.WAIT, cause=cause, until=until, reason=f"{reason}; it waits: {request.words}")


def _frozen(seen: Seen, request: Request) -> Decision | None:
    if not seen.state.freezes:
        return None
    words = "; ".join(
        f"{'every model' if item.model == EVERY_MODEL else item.model} frozen by {item.by} at {moment(item.at)}: "
        f"{item.reason}"
        for item in seen.state.freezes
    )
    return _wait(Cause.FREEZE, words, request)


def _broken(seen: Seen, request: Request) -> Decision | None:
    if not seen.state.incidents:
        return None
    words = "; ".join(
        f"incident {item.number} ({item.kind.value}) open since {moment(item.opened_at)}"
        for item in seen.state.incidents
    )
    return _wait(Cause.INCIDENT, words, request)


def _busy(seen: Seen, request: Request) -> Decision | None:
    if start := seen.state.open:
        return _wait(Cause.BUSY, f"training {start.number}, begun at {moment(start.at)}, is under way", request)
    return _wait(Cause.BUSY, seen.state.busy, request) if seen.state.busy else None


def _cooling(seen: Seen, request: Request) -> Decision | None:
    if seen.policy is None or TriggerKind.HAND in request.kinds:
        return None
    cool_down = seen.policy.cool_down
    times = (*seen.state.starts, *seen.state.skips)
    hot = [found for it in times if (found := age(it, seen.now, cool_down)) is not None and found < cool_down]
    if not hot:
        return None
    until = seen.now - min(hot) + cool_down
    return _wait(
        Cause.COOL_DOWN,
        f"decided {length(min(hot))} ago, cools down for {length(cool_down)} until {moment(until)}", request, until,
    )  # fmt: skip


def _spent(seen: Seen, request: Request) -> Decision | None:
    if seen.policy is None or TriggerKind.HAND in request.kinds:
        return None
    budget, recent = seen.policy.budget_per_day, spent(seen.state.starts, seen.now)
    if len(recent) < budget:
        return None
    until = recent[-budget] + DAY
    return _wait(
        Cause.BUDGET, f"{len(recent)} of {budget} trainings within 24 h are spent, the next at {moment(until)}",
        request, until,
    )  # fmt: skip


def spent(starts: Sequence[Start], now: dt.datetime) -> list[dt.datetime]:
    """When the trainings of the last 24 hours began, oldest first."""
    return sorted(now - found for it in starts if (found := age(it, now, DAY)) is not None and found < DAY)


# And what is left


def _train(seen: Seen, request: Request) -> Decision:
    found = seen.state.pretest
    if not asks_pretest(seen.policy, request):
        outcome, reason = Outcome.TRAIN, f"{request.words}; no pre-test is asked for"
    elif found is None:
        return Decision(outcome=Outcome.PRETEST, reason=f"the pre-test has to answer: {request.words}")
    else:
        assert seen.policy is not None and seen.policy.pretest is not None  # by the policy's own validation
        open_counts = seen.policy.pretest.on_cannot_tell == "train" or request.gravest.severity is Severity.CRITICAL
        trains = found.answer is Answer.WOULD_WIN or (found.answer is Answer.CANNOT_TELL and open_counts)
        outcome = Outcome.TRAIN if trains else Outcome.SKIP
        reason = f"pre-test: {found.answer.value}: {found.reason}; asked by {request.words}"
    return Decision(outcome=outcome, reason=reason, claims=request.ids, counts=request.counts, pretest=found)


def asks_pretest(policy: Retrain | None, request: Request) -> bool:
    """A request needs the pre-test unless one of its triggers may do without."""
    if policy is None or TriggerKind.HAND in request.kinds:
        return False
    return all(policy.triggers[kind] is OnTrigger.PRETEST for kind in request.kinds)


def moment(at: dt.datetime) -> str:
    """For reasons, UTC."""
    return f"{at.astimezone(dt.UTC):%Y-%m-%d %H:%MZ}"


def length(span: dt.timedelta) -> str:
    """For reasons: `1 d 12 h`, `10 min`."""
    seconds = round(span.total_seconds())
    parts = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, size)
        parts += [f"{count} {unit}"] if count else []
    return " ".join(parts) or "0 s"
