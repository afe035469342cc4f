"""The plan of a rollout: a pure state machine from what is wanted and seen to the next phase.

    PENDING -> SHADOW -> CANARY (each weight) -> PROMOTING -> DONE
    any of them, and PAUSED in any of them -> ABORTING -> ABORTED

`advance` decides, at most one step of the plan per call; `wanted` says what must be true then. The caller saves the
State, makes it true, and calls again a moment later. All is told by levels, never by events: after a restart the same
state and the same observation lead to the same answer, so the caller may be killed at any line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import OnLimit, OnNewRelease, RolloutSpec, Step, duration_text
from services.rollout_operator.state import (
    CONTROLLER,
    ENDED,
    RUNNING,
    Observed,
    Order,
    OrderKind,
    Paused,
    Phase,
    State,
    Stop,
    Transition,
    Wanted,
    dec_hook,
    dump,
    enc_hook,
    load,
)
from services.rollout_operator.verdict import Judgement, Verdict

__all__ = [
    "CONTROLLER", "ENDED", "RUNNING", "Observed", "Order", "OrderKind", "Paused", "Phase", "State", "Stop",
    "Transition", "Wanted", "advance", "current_step", "deadline_s", "dec_hook", "dump", "elapsed_s", "enc_hook",
    "load", "wanted",
]  # fmt: skip


def elapsed_s(state: State, now_s: float) -> float:
    """Seconds of the phase's deadline that are used; they stand still while paused."""
    return state.paused.elapsed_s if state.paused else max(0.0, now_s - state.since_s)


def deadline_s(spec: RolloutSpec, state: State) -> float | None:
    """Seconds that the phase, or the paused one, may take; None once the rollout has ended."""
    if state.phase in ENDED:
        return None
    step = current_step(spec, state)
    return step.deadline_s if step else spec.ready_deadline


def current_step(spec: RolloutSpec, state: State) -> Step | None:
    """The step of the plan; the last one if the plan was shortened meanwhile. None outside of SHADOW and CANARY."""
    return None if state.step is None else spec.plan[min(state.step, len(spec.plan) - 1)]


def wanted(spec: RolloutSpec, state: State, observed: Observed) -> Wanted:
    """What must be true in this state; the same answer however often it is asked."""
    champion = spec.replicas if state.champion else 0
    if state.candidate is None:
        return Wanted(champion, 0, 0, mirror=False)
    if state.phase is Phase.ABORTING:  # first no user sees it, then it goes
        seen = observed.routed_weight > 0 or observed.mirrored
        return Wanted(champion, spec.replicas if seen else 0, 0, mirror=False)
    ready = min(observed.candidate_ready, spec.replicas)
    step = current_step(spec, state)
    weight = step.weight if step else 0
    if state.works_in is Phase.PROMOTING:
        weight = spec.plan[-1].weight
        if state.champion is None:  # nobody else could answer the rest
            return Wanted(0, spec.replicas, 100 if ready else 0, mirror=False)
        rising = state.phase is Phase.PROMOTING or observed.routed_weight == 100  # paused: stay, do not rise
        if ready == spec.replicas and rising:
            return Wanted(champion, spec.replicas, 100, mirror=False)
    mirror = step is not None and step.shadow is not None and ready > 0
    return Wanted(champion, spec.replicas, weight * ready // spec.replicas, mirror)


def advance(  # noqa: PLR0917 - what a decision depends on, all of it
    spec: RolloutSpec,
    state: State | None,
    observed: Observed,
    judgement: Judgement | None,
    orders: Sequence[Order],
    now_s: float,
) -> tuple[State, list[Transition]]:
    """The next state, and what to write into the history.

    Args:
        state: None before the very first release.
        judgement: of the current step (of all canary evidence while promoting); None when there is nothing to judge,
            which at a deadline counts as no data.
        orders: new ones, oldest first. An abort wins over the others.
    """
    tick = _Tick(spec, state or State(Phase.DONE, now_s, now_s), observed, judgement, now_s, fresh=state is None)
    tick.fit_plan()
    if not tick.abort(orders):
        for order in orders:
            tick.obey(order)
        tick.queue()
        tick.move()
    return tick.state, tick.log


@dataclasses.dataclass
class _Tick:
    """One call of `advance`. Each method is one group of rules."""

    spec: RolloutSpec
    state: State
    observed: Observed
    judgement: Judgement | None
    now_s: float
    fresh: bool  # before the very first release
    log: list[Transition] = dataclasses.field(default_factory=list)

    # Writing it down

    def say(self, entry: str, who: str = CONTROLLER, **changes: Any) -> None:
        """An entry of the history, with changes that leave the phase's clock alone."""
        before = self.state
        after = self.state = msgspec.structs.replace(before, serial=before.serial + 1, **changes)
        candidate = after.candidate or before.candidate
        self.log.append(
            Transition(
                serial=after.serial,
                at_s=self.now_s,
                source=None if self.fresh else before.phase,
                target=after.phase,
                step=after.step,
                champion=before.champion.id if before.champion else None,
                candidate=candidate.id if candidate else None,
                reason=entry,
                who=who,
            )
        )
        self.fresh = False

    def go(self, phase: Phase, reason: str, who: str = CONTROLLER, **changes: Any) -> None:
        """To another phase or step: its clock starts, and what was held or paused is over."""
        fields = {"step": None, "paused": None, "holding": "", "since_s": self.now_s, **changes}
        self.say(reason, who, phase=phase, reason=reason, **fields)

    def go_step(self, index: int, why: str, who: str = CONTROLLER) -> None:
        """To a step of the plan, or behind the last one to PROMOTING."""
        if index == len(self.spec.plan):
            self.go(Phase.PROMOTING, f"{why}; promoting all {self.spec.replicas} replicas to 100 %", who)
            return
        step = self.spec.plan[index]
        self.go(_phase(step), f"{why}; {step.words} begins, at most {duration_text(step.deadline_s)}", who, step=index)

    # Groups of rules

    def fit_plan(self) -> None:
        """The plan was edited under a running step: go on at the same index, or at the last step."""
        step = current_step(self.spec, self.state)
        if step is None or self.state.step is None:
            return
        index, phase, paused = min(self.state.step, len(self.spec.plan) - 1), _phase(step), self.state.paused
        if (index, phase) != (self.state.step, self.state.works_in):
            changes: dict[str, Any] = {"phase": phase, "step": index}
            if paused:
                changes |= {"phase": Phase.PAUSED, "paused": msgspec.structs.replace(paused, phase=phase)}
            self.say(f"the plan was changed: now in step {index + 1} of {len(self.spec.plan)}, {step.words}", **changes)

    def abort(self, orders: Sequence[Order]) -> bool:
        """Whatever ends a running rollout early wins over all else in the same call."""
        found = self._why_abort(orders) if self.state.phase in RUNNING else None
        if found is None:
            return False
        why, who, refused = found
        where = current_step(self.spec, self.state)
        weight = self.observed.routed_weight
        back = f"; the users' {weight} % go back to the champion" if weight and self.state.champion else ""
        reason = f"aborted in {where.words if where else self.state.works_in}: {why}{back}"
        changes: dict[str, Any] = {"refused": self.state.candidate} if refused else {}
        self.go(Phase.ABORTING, reason, who, **changes)
        self._remember_release()
        for order in orders:
            if order.kind is not OrderKind.ABORT:
                self.say(f"{order.words}: no effect, the abort wins", order.who)
        return True

    def _why_abort(self, orders: Sequence[Order]) -> tuple[str, str, bool] | None:  # noqa: PLR0911 - one for each
        """Reason, by whom, and whether the candidate is refused from now on."""
        spec, state, seen = self.spec, self.state, self.observed
        for order in orders:
            if order.kind is OrderKind.ABORT:
                return order.words, order.who, True
        if seen.candidate_deaths >= spec.judge.max_restarts:
            died = (
                f"candidate replicas died {seen.candidate_deaths} times, judge.maxRestarts is {spec.judge.max_restarts}"
            )
            return died + (f"; the last: {seen.candidate_death}" if seen.candidate_death else ""), CONTROLLER, True
        # A pause and a promotion stop the waiting, not the protection: sure damage aborts there too.
        if self.judgement and self.judgement.verdict is Verdict.FAIL and state.works_in is not Phase.PENDING:
            return self.judgement.reason, CONTROLLER, True
        if seen.stopped and seen.stopped.aborts:  # not the candidate's fault: it begins anew when the stop is lifted
            return seen.stopped.words, seen.stopped.who, False
        if _same(spec.release, state.champion):
            return "spec.release was set back to the champion's", CONTROLLER, False
        if spec.on_new_release is OnNewRelease.SUPERSEDE and not _same(spec.release, state.candidate):
            return f"superseded by {spec.release.short}", CONTROLLER, False
        return None

    def obey(self, order: Order) -> None:
        """Orders except an abort that found something to abort."""
        state, stop = self.state, self.observed.stopped
        match order.kind:
            case OrderKind.PROMOTE if state.phase in RUNNING and state.phase is not Phase.PROMOTING and not stop:
                step = current_step(self.spec, state)
                where = step.words if step else state.works_in
                self.go_step(
                    len(self.spec.plan), f"{order.words} in {where}, the rest of the plan is skipped", order.who
                )
            case OrderKind.PAUSE if state.phase in RUNNING and not state.paused:
                paused = Paused(state.phase, elapsed_s(state, self.now_s))
                reason = (
                    f"{order.words}; weight and mirror stay, {duration_text(paused.elapsed_s)} of the deadline used"
                )
                self.go(Phase.PAUSED, reason, order.who, paused=paused, step=state.step, holding=state.holding)
            case OrderKind.RESUME if state.paused:
                since_s = self.now_s - state.paused.elapsed_s
                reason = f"{order.words}; {state.paused.phase} goes on"
                kept = {"step": state.step, "holding": state.holding, "since_s": since_s}
                self.go(state.paused.phase, reason, order.who, **kept)
            case OrderKind.RETRY if state.refused:
                self.say(f"{order.words}; {state.refused.short} may be tried again", order.who, refused=None)
            case _:
                why = f", {stop.words}" if stop else ""
                self.say(f"{order.words}: no effect in {state.phase}{why}", order.who)

    def queue(self) -> None:
        """Remember a release that waits for the end of this rollout, or of a stop of all; the newest one only."""
        before, stop = self.state.queued, self.observed.stopped
        self._remember_release()
        if self.state.queued is None or _same(before, self.state.queued):
            return
        if stop and self.state.phase in ENDED:
            self.say(f"{self.state.queued.short} waits: {stop.words}", stop.who)
            return
        instead = f" instead of {before.short}" if before else ""
        self.say(f"{self.state.queued.short} waits for the end of this rollout{instead}")

    def _remember_release(self) -> None:
        state, release = self.state, self.spec.release
        over = state.phase in ENDED
        known = any(_same(release, it) for it in (state.champion, state.refused if over else state.candidate))
        waits = not known and (not over or self.observed.stopped is not None)
        self.state = msgspec.structs.replace(state, queued=release if waits else None)

    def move(self) -> None:
        """The phase's own next step, at most one."""
        match self.state.phase:
            case Phase.PENDING:
                self._pending()
            case Phase.SHADOW | Phase.CANARY:
                self._step()
            case Phase.PROMOTING:
                self._promoting()
            case Phase.ABORTING:
                self._aborting()
            case Phase.DONE | Phase.ABORTED:
                self._idle()

    @property
    def _late(self) -> bool:
        limit = deadline_s(self.spec, self.state)
        return limit is not None and elapsed_s(self.state, self.now_s) >= limit

    @property
    def _ready(self) -> str:
        ready = min(self.observed.candidate_ready, self.spec.replicas)
        return f"{ready} of {self.spec.replicas} replicas ready after {self._spent}"

    @property
    def _spent(self) -> str:
        return duration_text(elapsed_s(self.state, self.now_s))

    def _idle(self) -> None:
        release, state = self.spec.release, self.state
        if self.observed.stopped or _same(release, state.champion) or _same(release, state.refused):
            return
        against = f"against champion {state.champion.short}" if state.champion else "the first release"
        start = f"candidate {release.short}, {against}: starting {self.spec.replicas} replicas"
        self.go(Phase.PENDING, start, candidate=release, queued=None, started_s=self.now_s)

    def _pending(self) -> None:
        if self.observed.candidate_ready >= self.spec.replicas:
            first = self.state.champion is None
            why = f"{self._ready}, no champion to compare with" if first else self._ready
            self.go_step(len(self.spec.plan) if first else 0, why)
        elif self._late:
            self._give_up()

    def _give_up(self) -> None:
        why = f"; the last: {self.observed.candidate_death}" if self.observed.candidate_death else ""
        reason = f"aborted in {self.state.phase}: only {self._ready}{why}"
        self.go(Phase.ABORTING, reason, refused=self.state.candidate)

    def _step(self) -> None:
        step, index = current_step(self.spec, self.state), self.state.step
        assert step is not None and index is not None
        verdict = self.judgement.verdict if self.judgement else Verdict.NO_DATA
        found = self.judgement.reason if self.judgement else "nothing was measured"
        if verdict is Verdict.PASS:
            self.go_step(index + 1, f"{step.words} passed: {found}")
            return
        if not self._late or self.state.holding:
            return
        unknown = verdict is Verdict.NO_DATA
        choice, name = (self.spec.on_no_data, "onNoData") if unknown else (self.spec.on_deadline, "onDeadline")
        limit = duration_text(step.deadline_s)
        why = f"{step.words} reached its deadline of {limit}, {verdict}: {found} ({name}: {choice})"
        match choice:
            case OnLimit.PROMOTE:
                self.go_step(index + 1, why)
            case OnLimit.ABORT:
                self.go(Phase.ABORTING, f"aborted: {why}", refused=self.state.candidate)
            case OnLimit.HOLD:
                self.say(why, holding=why, reason=why)

    def _promoting(self) -> None:
        state, candidate = self.state, self.state.candidate
        assert candidate is not None
        full = self.observed.candidate_ready >= self.spec.replicas
        if full and self.observed.routed_weight == 100:
            how = "the first release, nothing to compare it with"
            if state.champion:
                how = f"with the {self.spec.replicas} replicas it already had; champion {state.champion.short} retires"
            took = duration_text(self.now_s - state.started_s)
            reason = f"{candidate.short} is champion after {took}, {how}"
            self.go(Phase.DONE, reason, champion=candidate, candidate=None)
        elif self._late and not full:
            self._give_up()
        elif self._late:
            at = f"the gateway sends it {self.observed.routed_weight} % instead of 100 % after {self._spent}"
            self.go(Phase.ABORTING, f"aborted in promoting: {at}", refused=candidate)

    def _aborting(self) -> None:
        seen, state = self.observed, self.state
        left = [f"{seen.candidate_running} of its processes"] if seen.candidate_running else []
        left += [f"a weight of {seen.routed_weight} % at the gateway"] if seen.routed_weight else []
        left += ["the mirror"] if seen.mirrored else []
        if left and not self._late:
            return
        if left:
            end = f"left over after {self._spent}: {', '.join(left)}"
        else:
            users = f"champion {state.champion.short} has all users" if state.champion else "there is no champion"
            end = f"{users}, the candidate's replicas are gone after {self._spent}"
        self.go(Phase.ABORTED, f"{state.reason}; {end}", candidate=None)


def _phase(step: Step) -> Phase:
    return Phase.SHADOW if step.shadow else Phase.CANARY


def _same(one: Release | None, other: Release | None) -> bool:
    return one is not None and other is not None and one.id == other.id
