"""Entry point: the rollout controller, `python -m flightdeck.lab.rollout.controller`. A supervised process of its own.

Each tick: read what is wanted and what is there, let judge and plan decide, keep the decision, make it true. Everything
that matters is in files before it takes effect, and every effect is level-based (what shall be, not what to do), so the
process may be killed at any line: the next one reads the files and goes on.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import redis

from flightdeck.contracts.artefact import ModelManifest, verify_artefact
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import InvalidRollout, RolloutSpec, parse_rollout, to_yaml
from flightdeck.lab.rollout import replicas
from flightdeck.lab.rollout.alias import AliasCopy
from flightdeck.lab.rollout.gateway import Gateway, GatewayUnavailable
from flightdeck.lab.rollout.records import Records, connect
from flightdeck.lab.rollout.store import Look, Status, Store
from services.rollout_operator import plan
from services.rollout_operator.evidence import Collector
from services.rollout_operator.judge import judge
from services.rollout_operator.plan import Observed, Order, Phase, State, Wanted
from services.rollout_operator.verdict import Judgement

logger = logging.getLogger("flightdeck.rollout")
TICK_S = 0.4
LOOK_S = 1.0  # between two looks that are kept for the evidence page
COMPLAINT_S = 10.0
RELEASES_KEPT = 20
JUDGED = (Phase.SHADOW, Phase.CANARY, Phase.PROMOTING)


class Rollout:
    """One ModelRollout: its files, and what is in memory between two ticks."""

    def __init__(self, name: str, store: Store, layout: StateLayout, gateway: Gateway, records: Records) -> None:
        self.name, self.store, self.layout, self.gateway, self.records = name, store, layout, gateway, records
        self.status = store.read_status(name) or Status(name=name)
        self.collector: Collector | None = None
        self.of_rollout = 0.0  # started_s of the rollout that the collector belongs to
        self.looked_s = 0.0
        self.said: dict[str, float] = {}

    def tick(self, now_s: float) -> None:
        """Observe, judge, decide, keep, make true."""
        spec = self.spec()
        if spec is None:
            return
        state = self.status.state
        observed = self.observe(state)
        judgement = self.judgement(spec, state, now_s)
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
        wanted = plan.wanted(spec, decided, observed)
        self.publish(spec, observed, now_s)
        self.make_true(decided, wanted)

    def spec(self) -> RolloutSpec | None:
        """What is wanted; while a rollout runs, its plan and judge are those with which it began."""
        try:
            wanted = self.store.wanted(self.name)
        except (ValueError, OSError) as error:  # edited by hand or gone: what runs goes on
            self.complain(f"the wanted state cannot be read, going on with the last one: {error}")
            return self.begun()
        state = self.status.state
        begun = self.begun() if state and state.candidate else None
        if begun is None:
            self.status.rollout = to_yaml(wanted)
            return wanted.spec
        return begun.model_copy(update={"release": wanted.spec.release, "on_new_release": wanted.spec.on_new_release})

    def begun(self) -> RolloutSpec | None:
        """The spec in force; None when there is none, or another version wrote it."""
        try:
            return parse_rollout(self.status.rollout).spec if self.status.rollout else None
        except InvalidRollout as error:
            self.complain(f"the spec in force cannot be read, taking the wanted one: {error}")
            return None

    def orders(self) -> list[tuple[int, Order]]:
        """New ones; none while the files are away."""
        try:
            return self.store.orders_after(self.name, self.status.orders_done)
        except OSError as error:
            self.complain(f"orders cannot be read: {error}")
            return []

    def observe(self, state: State | None) -> Observed:
        """Replicas and gateway as they are now."""
        champion = replicas.observed_of(self.layout, state.champion if state else None)
        candidate = replicas.observed_of(self.layout, state.candidate if state else None)
        weight, mirrored = self.routed(state)
        return Observed(
            champion_ready=len(champion.ready),
            candidate_ready=len(candidate.ready),
            champion_running=champion.running,
            candidate_running=candidate.running,
            candidate_deaths=candidate.deaths,
            candidate_death=candidate.last_death,
            routed_weight=weight,
            mirrored=mirrored,
        )

    def routed(self, state: State | None) -> tuple[int, bool]:
        """The candidate's weight, and whether it gets copies, as the gateway said last."""
        try:
            return self.gateway.routed(state.candidate.id if state and state.candidate else None)
        except GatewayUnavailable as error:
            self.complain(f"the gateway does not tell its routes: {error}")
            return self.status.weight, self.status.mirrored

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
        except (redis.RedisError, OSError, ValueError) as error:
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
        """The collector of this rollout: in memory, else from its file, else a new one that begins now."""
        if self.collector is not None and self.of_rollout == state.started_s:
            return self.collector
        self.collector = None  # should what follows fail, the last rollout's evidence must not stand in for this one's
        assert state.champion and state.candidate
        champion, candidate = self.manifest(state.champion), self.manifest(state.candidate)
        kept = self.store.load_evidence(self.name)
        dump = None
        if kept is not None and kept.started_s == state.started_s:
            self.records.cursors, dump = dict(kept.cursors), kept.dump
        else:
            self.records.skip_to_now()
        self.collector = Collector(
            spec.judge, spec.plan, champion, candidate, seed=int(state.started_s * 1000), state=dump
        )
        self.of_rollout = state.started_s
        return self.collector

    def manifest(self, release: Release) -> ModelManifest:
        """Of the release's model, checked to the last byte."""
        return verify_artefact(self.layout.artefacts / release.model.sha256, release.model.sha256)

    def collect(self, collector: Collector, state: State) -> None:
        """Everything that came since the last tick. The gateway first: it sees errors while the log is away."""
        assert state.champion and state.candidate
        try:
            counted = self.gateway.attempts()
            copies = state.works_in is Phase.SHADOW  # copies still under way when users come are no users' requests
            collector.attempts(counted.of(state.champion.id), counted.of(state.candidate.id, mirrored=copies))
        except GatewayUnavailable as error:
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
        status.replicas, status.updated_at_s, status.controller_pid = spec.replicas, now_s, os.getpid()
        self.store.write_status(status)

    def make_true(self, state: State, wanted: Wanted) -> None:
        """Replicas and routes; safe to repeat."""
        champion = replicas.observed_of(self.layout, state.champion)
        candidate = replicas.observed_of(self.layout, state.candidate)
        try:
            if state.champion is None:
                if state.candidate and wanted.weight == 100:  # the first release: nobody else could answer
                    self.gateway.route(state.candidate.id, candidate.ready)
                elif state.phase is Phase.ABORTING:
                    self.gateway.clear()
            elif champion.running or candidate.running:
                taken = candidate.ready if state.candidate else ()
                self.gateway.route(
                    state.champion.id, champion.ready, state.candidate.id if state.candidate and taken else None, taken,
                    weight=wanted.weight, mirror=wanted.mirror,
                )  # fmt: skip
        except OSError as error:
            self.complain(f"the gateway does not take its routes: {error}")
            return  # no replica goes before the gateway knows
        pairs = ((state.champion, wanted.champion_replicas), (state.candidate, wanted.candidate_replicas))
        replicas.want(self.layout, [(release, count) for release, count in pairs if release and count])

    def complain(self, words: str) -> None:
        """Into the log, the same words once per interval."""
        now_s = time.monotonic()
        if now_s - self.said.get(words[:40], -COMPLAINT_S) >= COMPLAINT_S:
            self.said[words[:40]] = now_s
            logger.warning("%s: %s", self.name, words)


def main() -> int:
    """Tick until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    layout = StateLayout.from_env()
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    store = Store(layout.rollouts)
    gateway = Gateway(layout.run / "envoy", int(os.environ["FLIGHTDECK_GATEWAY_ADMIN_PORT"]))
    alias = AliasCopy(layout, os.environ["MLFLOW_TRACKING_URI"])
    rollout: Rollout | None = None
    alive = layout.run / "rollouts.alive"
    while not end.wait(TICK_S):
        if rollout is None and (name := store.served()):
            records = connect(os.environ["FLIGHTDECK_STREAMS_REDIS"])
            rollout = Rollout(name, store, layout, gateway, records)
        if rollout is not None:
            rollout.tick(time.time())
            if rollout.status.state and rollout.status.state.champion:
                alias.keep(rollout.status.state.champion.model)
        _touch(alive)
    return 0


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


if __name__ == "__main__":
    sys.exit(main())
