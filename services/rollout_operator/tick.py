"""One tick of a rollout, in the lab and on Kubernetes: observe, judge, decide, keep the decision, make it true.

Everything that matters is kept before it takes effect, and every effect is level-based (what shall be, not what to do),
so the process may be killed at any line: the next one reads what was kept and goes on.
"""

from __future__ import annotations

import logging
import os
import time

import msgspec

from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.rollout import InvalidRollout, RolloutSpec, parse_rollout, to_yaml
from services.rollout_operator import plan, scaling
from services.rollout_operator.evidence import Collector
from services.rollout_operator.judge import judge
from services.rollout_operator.plan import Observed, Order, Phase, State
from services.rollout_operator.ports import Platform, Records, Store
from services.rollout_operator.remembered import Look, Status
from services.rollout_operator.verdict import Judgement

logger = logging.getLogger("flightdeck.rollout")
LOOK_S = 1.0  # between two looks that are kept for the evidence page
COMPLAINT_S = 10.0
RELEASES_KEPT = 20
JUDGED = (Phase.SHADOW, Phase.CANARY, Phase.PROMOTING)


class Rollout:
    """One ModelRollout: where it is kept, what it moves, and what is in memory between two ticks."""

    def __init__(self, name: str, store: Store, platform: Platform, records: Records) -> None:
        self.name, self.store, self.platform, self.records = name, store, platform, records
        self.status = store.read_status(name) or Status(name=name)
        self.followed = False  # the last tick had a spec to follow
        self.collector: Collector | None = None
        self.of_rollout = 0.0  # started_s of the rollout that the collector belongs to
        self.looked_s = 0.0
        self.said: dict[str, float] = {}

    def tick(self, now_s: float) -> None:
        """Observe, judge, decide, keep, make true."""
        spec = self.spec(now_s)
        self.followed = spec is not None
        if spec is None:
            return
        state = self.status.state
        observed = self.observe(state)
        # Users who are sent to nobody come first: evidence may take as long as its store takes to time out.
        nobody = observed.routed_weight > 0 and not observed.candidate_ready
        judgement = None if nobody else self.judgement(spec, state, now_s)
        orders = self.orders()
        decided, transitions = plan.advance(spec, state, observed, judgement, [order for _, order in orders], now_s)
        if transitions:
            self.store.record(self.name, transitions)
            for item in transitions:
                logger.info("%s: %s -> %s: %s", self.name, item.source, item.target, item.reason)
        self.status.orders_done = orders[-1][0] if orders else self.status.orders_done
        self.remember(state, decided)
        self.status.state = decided
        begun = state is None or decided.started_s != state.started_s
        self.status.judgement = None if begun else judgement or self.status.judgement
        self.status.doubt = "" if begun else self.status.doubt
        wanted = plan.wanted(spec, decided, observed)
        self.publish(spec, observed, now_s)
        try:
            self.platform.make_true(spec, decided, wanted)
        except OSError as error:
            self.complain(f"not all of what is wanted could be made true: {error}")

    def spec(self, now_s: float) -> RolloutSpec | None:
        """What is wanted; while a rollout runs, plan and judge are those with which it began."""
        try:
            wanted = self.store.wanted(self.name)
        except (ValueError, OSError) as error:  # edited by hand or gone: what runs goes on
            self.complain(f"the wanted state cannot be read, going on with the last one: {error}")
            return self.begun()
        state, begun = self.status.state, self.begun()
        replicas = scaling.in_force(wanted.spec.replicas, begun.replicas if begun else None, state, now_s)
        if begun is None or state is None or state.candidate is None:
            begun = wanted.spec
        begun = begun.model_copy(update={"replicas": replicas})
        self.status.rollout = to_yaml(wanted.model_copy(update={"spec": begun}))
        return begun.model_copy(update={"release": wanted.spec.release, "on_new_release": wanted.spec.on_new_release})

    def begun(self) -> RolloutSpec | None:
        """The spec in force; None when there is none, or another version wrote it."""
        try:
            return parse_rollout(self.status.rollout).spec if self.status.rollout else None
        except InvalidRollout as error:
            self.complain(f"the spec in force cannot be read, taking the wanted one: {error}")
            return None

    def orders(self) -> list[tuple[int, Order]]:
        """New ones; none while they cannot be read."""
        try:
            return self.store.orders_after(self.name, self.status.orders_done)
        except OSError as error:
            self.complain(f"orders cannot be read: {error}")
            return []

    def observe(self, state: State | None) -> Observed:
        """Replicas and gateway as they are now."""
        self.platform.look()
        champion = self.platform.seen(state.champion if state else None)
        candidate = self.platform.seen(state.candidate if state else None)
        try:
            weight, mirrored = self.platform.routed(state.candidate if state else None)
        except OSError as error:
            self.complain(f"the gateway does not tell its routes: {error}")
            weight, mirrored = self.status.weight, self.status.mirrored
        return Observed(
            champion_ready=champion.ready,
            candidate_ready=candidate.ready,
            champion_running=champion.running,
            candidate_running=candidate.running,
            candidate_deaths=candidate.deaths,
            candidate_death=candidate.last_death,
            routed_weight=weight,
            mirrored=mirrored,
            stopped=self.store.stopped(self.name),
        )

    def judgement(self, spec: RolloutSpec, state: State | None, now_s: float) -> Judgement | None:
        """What the evidence says, in a step; None outside of one, and while the evidence cannot be read."""
        if state is None or state.works_in not in JUDGED or state.champion is None:
            return None
        step = len(spec.plan) - 1 if state.step is None else state.step  # promoting: the last step's evidence goes on
        try:
            collector = self.collector_of(spec, state)
            collector.begin_step(step)
            self.collect(collector, state)
            self.store.save_evidence(self.name, self.of_rollout, self.records.cursors, collector.dump())
        except (OSError, ValueError) as error:
            # A ValueError: an altered artefact, or a margin that this kind of model cannot have.
            self.complain(f"no evidence for now: {error}")
        if self.collector is None:
            return None
        found = judge(spec.judge, spec.plan, step, self.collector.evidence())
        if now_s - self.looked_s >= LOOK_S:
            self.looked_s = now_s
            self.store.look(self.name, Look(now_s, state.started_s, state.phase, step, self.status.weight, found))
        return found

    def collector_of(self, spec: RolloutSpec, state: State) -> Collector:
        """The collector of this rollout: in memory, else as it was kept, else a new one that begins now."""
        if self.collector is not None and self.of_rollout == state.started_s:
            return self.collector
        self.collector = None  # should what follows fail, the last rollout's evidence must not stand in for this one's
        assert state.champion and state.candidate
        champion, candidate = self.platform.manifest(state.champion), self.platform.manifest(state.candidate)
        kept = self.store.load_evidence(self.name)
        dump = None
        if kept is not None and kept.started_s == state.started_s:
            self.records.cursors, dump = dict(kept.cursors), kept.dump
        else:
            self.records.skip_to_now()
        asked, seed = (spec.judge, spec.plan, champion, candidate), int(state.started_s * 1000)
        try:
            self.collector = Collector(*asked, seed=seed, state=dump)
        except msgspec.DecodeError as error:  # for ever: else the rollout would end for want of data
            self.complain(f"the evidence is of another version of this program and is collected anew: {error}")
            self.collector = Collector(*asked, seed=seed)
        self.of_rollout = state.started_s
        return self.collector

    def collect(self, collector: Collector, state: State) -> None:
        """Everything that came since the last tick. The gateway first: it sees errors while the log is away."""
        assert state.champion and state.candidate
        try:
            copies = state.works_in is Phase.SHADOW  # copies still under way when users come are no users' requests
            collector.attempts(*self.platform.attempts(state.champion, state.candidate, copies=copies))
        except OSError as error:
            self.complain(f"the gateway does not tell its counters: {error}")
        roles: dict[str, list[PredictionRecord]] = {state.champion.id: [], state.candidate.id: []}
        for record in self.records.predictions():
            if (part := roles.get(record.release)) is not None:
                part.append(record)
        collector.predictions(roles[state.champion.id], roles[state.candidate.id])
        collector.outcomes(self.records.outcomes(collector.task))

    def remember(self, before: State | None, now: State) -> None:
        """Releases that became champion, for `undo`; newest first."""
        champion = now.champion
        if champion is None or (before and before.champion and before.champion.id == champion.id):
            return
        kept = [release for release in self.status.releases if release.id != champion.id]
        self.status.releases = [champion, *kept][:RELEASES_KEPT]

    def publish(self, spec: RolloutSpec, observed: Observed, now_s: float) -> None:
        """Write the status: what people see, and what the next process goes on from."""
        status = self.status
        status.weight, status.mirrored = observed.routed_weight, observed.mirrored
        status.champion_ready, status.candidate_ready = observed.champion_ready, observed.candidate_ready
        status.champion_running = observed.champion_running
        status.replicas, status.updated_at_s, status.controller_pid = spec.replicas, now_s, os.getpid()
        self.store.write_status(status)

    def complain(self, words: str) -> None:
        """Into the log, the same words once per interval."""
        now_s = time.monotonic()
        if now_s - self.said.get(words[:40], -COMPLAINT_S) >= COMPLAINT_S:
            self.said[words[:40]] = now_s
            logger.warning("%s: %s", self.name, words)
