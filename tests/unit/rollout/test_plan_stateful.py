"""The plan in a small world of replicas and a gateway, through random orders of events.

What must hold after each of them is in `World.check` and `Rollouts.tick`; that it always ends, in `Rollouts.it_ends`.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from flightdeck.contracts.release import ModelRef, Release
from flightdeck.contracts.rollout import RolloutSpec
from services.rollout_operator import plan
from services.rollout_operator.plan import Observed, Order, OrderKind, Phase, State, Stop, Wanted
from services.rollout_operator.verdict import Judgement, Verdict

RELEASES = [
    Release(
        image="1a2b3c4d",
        model=ModelRef(name="late", version=str(version), sha256=f"{version:064x}"),
        feature_service="late_v1",
    )
    for version in range(1, 5)
]
SHADOW = {"shadow": {"minPairs": 100, "deadline": "60s"}}
PLANS = [
    [SHADOW, {"canary": {"weight": 10, "deadline": "40s"}}, {"canary": {"weight": 50, "deadline": "40s"}}],
    [{"canary": {"weight": 5, "deadline": "30s"}}],
    [SHADOW, {"canary": {"weight": 1, "deadline": "30s"}}],
]
READY_DEADLINE_S, MAX_DEATHS = 30.0, 3
JUDGEMENTS: list[Judgement | None] = [None, *(Judgement(verdict, f"it is {verdict}") for verdict in Verdict)]
PASS, FAIL = (next(it for it in JUDGEMENTS if it and it.verdict is verdict) for verdict in (Verdict.PASS, Verdict.FAIL))

judgements = st.sampled_from([PASS, PASS, *(it for it in JUDGEMENTS if it is not FAIL)])
limits = st.sampled_from(["hold", "abort", "promote"])
seconds = st.floats(0.5, 15.0)


def make_spec(**values: Any) -> RolloutSpec:
    judge = {"margins": {"errorRate": 0.01}, "maxRestarts": MAX_DEATHS}
    return RolloutSpec.model_validate({"judge": judge, "readyDeadline": f"{READY_DEADLINE_S}s", **values})


@dataclasses.dataclass
class Replica:
    number: int
    ready: bool = False


@dataclasses.dataclass
class World:
    """Replicas by release id, and a gateway that may follow late. It believes what `apply` last told it."""

    pools: dict[str, list[Replica]] = dataclasses.field(default_factory=dict)
    shares: dict[str, int] = dataclasses.field(default_factory=dict)  # release id -> per cent of the users
    mirror_to: str | None = None
    told: tuple[dict[str, int], str | None] = dataclasses.field(default_factory=lambda: ({}, None))
    lagging: bool = False
    hurt: set[str] = dataclasses.field(default_factory=set)  # the world itself killed replicas of it
    stopped: Stop | None = None  # all rollouts, by a person
    given_up: bool = False  # an abort ended at its deadline, and the gateway has not followed since
    deaths: int = 0
    numbers: Any = dataclasses.field(default_factory=itertools.count)

    def ready(self, release: Release | None) -> int:
        return sum(it.ready for it in self.pools.get(release.id, [])) if release else 0

    def observe(self, state: State | None) -> Observed:
        champion, candidate = (state.champion, state.candidate) if state else (None, None)
        return Observed(
            champion_ready=self.ready(champion),
            candidate_ready=self.ready(candidate),
            champion_running=len(self.pools.get(champion.id, [])) if champion else 0,
            candidate_running=len(self.pools.get(candidate.id, [])) if candidate else 0,
            candidate_deaths=self.deaths,
            candidate_death="signal 9" if self.deaths else "",
            routed_weight=self.shares.get(candidate.id, 0) if candidate else 0,
            mirrored=candidate is not None and self.mirror_to == candidate.id,
            stopped=self.stopped,
        )

    def apply(self, state: State, wanted: Wanted) -> None:
        """Level-based, as an adapter does it: releases that nobody names are not wanted."""
        counts: dict[str, int] = {}
        shares: dict[str, int] = {}
        if state.candidate:
            counts[state.candidate.id] = wanted.candidate_replicas
            shares[state.candidate.id] = wanted.weight
        if state.champion:
            counts[state.champion.id] = wanted.champion_replicas
            shares[state.champion.id] = 100 - wanted.weight
        for name in {*self.pools, *counts}:
            pool = self.pools.setdefault(name, [])
            pool.sort(key=lambda it: (not it.ready, it.number))  # of fewer wanted, those that are not ready go first
            del pool[counts.get(name, 0) :]
            pool += [Replica(next(self.numbers)) for _ in range(counts.get(name, 0) - len(pool))]
        self.given_up |= "left over" in state.reason
        self.told = (shares, state.candidate.id if state.candidate and wanted.mirror else None)
        if not self.lagging:
            self.follow()

    def follow(self) -> None:
        self.shares, self.mirror_to = self.told
        self.given_up = False

    def all_ready(self) -> None:
        for replica in itertools.chain.from_iterable(self.pools.values()):
            replica.ready = True
        self.hurt.clear()

    def kill(self, release: Release, index: int, *, is_candidate: bool) -> None:
        """Dead and started anew by its supervisor."""
        if pool := self.pools.get(release.id):
            pool[index % len(pool)].ready = False
            self.hurt.add(release.id)
            self.deaths += is_candidate

    def check(self) -> None:
        """Users are only sent where somebody answers, and never beside a mirror."""
        for name, share in self.shares.items():
            pool = self.pools.get(name, [])
            assert not share or self.given_up or any(it.ready for it in pool) or (pool and name in self.hurt), (
                f"{share} % of the users are sent to {name}, where nobody answers"
            )
        if self.mirror_to:
            assert self.shares.get(self.mirror_to, 0) == 0, "a mirror together with a weight"


def check_wanted(spec: RolloutSpec, state: State, seen: Observed, wanted: Wanted) -> None:
    """The bounds of design and issue, written down a second time and independently."""
    phase, step = state.works_in, plan.current_step(spec, state)
    assert (state.candidate is None) == (phase in plan.ENDED)
    assert not (wanted.mirror and wanted.weight)
    assert wanted.champion_replicas == (spec.replicas if state.champion else 0), "the champion keeps its capacity"
    if phase in {Phase.SHADOW, Phase.CANARY}:
        assert step is not None
        assert wanted.weight <= step.weight * min(1.0, seen.candidate_ready / spec.replicas), "not onto absent replicas"
        assert wanted.mirror == (step.shadow is not None and seen.candidate_ready > 0)
    elif phase is Phase.PROMOTING:
        full = seen.candidate_ready >= spec.replicas or state.champion is None
        assert wanted.weight <= (100 if full else spec.plan[-1].weight)
    else:
        assert (wanted.weight, wanted.mirror) == (0, False)
    assert wanted.weight == 0 or seen.candidate_ready > 0, "weight on replicas that are not ready"
    if state.phase in plan.RUNNING or seen.routed_weight:
        assert wanted.candidate_replicas == (spec.replicas if state.candidate else 0)


class Rollouts(RuleBasedStateMachine):
    """One rollout object through its life."""

    @initialize(
        steps=st.sampled_from(PLANS), replicas=st.integers(1, 3), on_deadline=limits, on_no_data=limits,
        newer=st.sampled_from(["queueNewest", "supersede"]), far=st.integers(0, 6),
    )  # fmt: skip
    def begin(  # noqa: PLR0917 - hypothesis fills them by name
        self, steps: list[Any], replicas: int, on_deadline: str, on_no_data: str, newer: str, far: int
    ) -> None:
        self.world, self.now_s, self.state = World(), 1_000.0, None
        self.orders: list[Order] = []
        self.used_s, self.highest = 0.0, 0
        self.values = {
            "release": RELEASES[0], "plan": steps, "replicas": replicas, "onDeadline": on_deadline,
            "onNoData": on_no_data, "onNewRelease": newer,
        }  # fmt: skip
        if far:  # most events are about the second release: in its steps, or promoting
            for _ in range(4):
                self.quiet(1.0, None)
            assert self.state is not None
            assert self.state.phase is Phase.DONE
            self.values["release"] = RELEASES[1]
            for _ in range(far):
                self.quiet(1.0, PASS)

    @property
    def spec(self) -> RolloutSpec:
        return make_spec(**self.values)

    state: State | None

    # What happens around it

    @rule(dt=seconds, judgement=judgements)
    def quiet(self, dt: float, judgement: Judgement | None) -> None:
        self.world.all_ready()
        self.world.lagging = False
        self.tick(dt, judgement)

    @rule(dt=seconds, judgement=judgements, killed=st.sampled_from(["", "", "before saving", "before applying"]))
    def any_tick(self, dt: float, judgement: Judgement | None, killed: str) -> None:
        self.tick(dt, judgement, killed=killed)

    @rule(judgement=judgements)
    def time_leaps(self, judgement: Judgement | None) -> None:
        self.tick(61.0, judgement)

    @rule(dt=seconds)
    def the_judge_fails_it(self, dt: float) -> None:
        self.tick(dt, FAIL)

    @rule(stop=st.sampled_from([None, None, Stop("ann@desk", "bad data"), Stop("controller", "unread", aborts=False)]))
    def all_are_stopped_or_go_on(self, stop: Stop | None) -> None:
        self.world.stopped = stop

    @rule(kind=st.sampled_from([*OrderKind, OrderKind.PAUSE, OrderKind.RESUME]))
    def someone_orders(self, kind: OrderKind) -> None:
        self.orders.append(Order(kind, "ann@desk"))

    @rule(index=st.integers(0, 2), of_champion=st.booleans())
    def a_replica_dies(self, index: int, of_champion: bool) -> None:
        release = self.state and (self.state.champion if of_champion else self.state.candidate)
        if release:
            self.world.kill(release, index, is_candidate=not of_champion)

    @rule(index=st.integers(0, 5))
    def a_replica_gets_ready(self, index: int) -> None:
        if replicas := list(itertools.chain.from_iterable(self.world.pools.values())):
            replicas[index % len(replicas)].ready = True

    @rule(lagging=st.booleans())
    def the_gateway_lags_or_follows(self, lagging: bool) -> None:
        self.world.lagging = lagging
        if not lagging:
            self.world.follow()

    @rule(release=st.sampled_from(RELEASES), newer=st.sampled_from(["queueNewest", "queueNewest", "supersede"]))
    def a_release_is_set(self, release: Release, newer: str) -> None:
        self.values |= {"release": release, "onNewRelease": newer}

    @rule(steps=st.sampled_from(PLANS), replicas=st.integers(1, 3), on_deadline=limits, on_no_data=limits)
    def the_spec_is_edited(self, steps: list[Any], replicas: int, on_deadline: str, on_no_data: str) -> None:
        self.values |= {"plan": steps, "replicas": replicas, "onDeadline": on_deadline, "onNoData": on_no_data}

    # One turn of the controller, and what it may do

    def tick(self, dt: float, judgement: Judgement | None, *, killed: str = "") -> None:
        spec, before, world = self.spec, self.state, self.world
        self.now_s += dt
        if before and before.phase is not Phase.PAUSED:
            self.used_s += dt
        seen = world.observe(before)
        after, log = plan.advance(spec, before, seen, judgement, self.orders, self.now_s)
        again = plan.advance(spec, before, seen, judgement, self.orders, self.now_s)
        assert (after, log) == again, "the same question had two answers"
        after = plan.load(plan.dump(after))
        self.check_log(before, after, log)
        self.check_abort(spec, before, after, judgement, seen)
        if killed == "before saving":
            return  # the orders are still there, too
        orders, self.orders, self.state = self.orders, [], after
        if before is None or after.started_s != before.started_s:
            world.deaths = 0  # what an abort without end left over at the gateway is not this rollout's
            self.highest = world.shares.get(after.candidate.id, 0) if after.candidate else 0
        begun = after.since_s == self.now_s and after.phase is not Phase.PAUSED
        if begun or any(it.source is not it.target and it.reason.startswith("promote by") for it in log):
            self.used_s = 0.0  # a promotion by order, even when it is paused in the same moment
        assert abs(plan.elapsed_s(after, self.now_s) - self.used_s) < 1e-6, "a pause, and only a pause, stops the clock"
        if before and before.phase is Phase.PENDING and after.phase in {Phase.SHADOW, Phase.CANARY}:
            assert seen.candidate_ready >= spec.replicas, "the plan begins with every replica"
        if any(it.kind is OrderKind.ABORT for it in orders) and before and before.phase in plan.RUNNING:
            assert after.phase is Phase.ABORTING, "abort wins"
        if seen.stopped and seen.stopped.aborts:
            assert after.phase not in plan.RUNNING, "a stop of all rollouts leaves none running"
        if seen.stopped and before and before.phase in plan.ENDED:
            assert after.phase is before.phase, "nothing begins while all rollouts are stopped"
        judged = [it.number for it in world.pools.get(before.candidate.id, [])] if before and before.candidate else []
        seen = world.observe(after)  # anew: the roles may have changed
        wanted = plan.wanted(spec, after, seen)
        check_wanted(spec, after, seen, wanted)
        self.highest = max(self.highest, wanted.weight)
        if killed == "before applying":
            return
        world.apply(after, wanted)
        if before and before.candidate and after.phase is Phase.DONE:
            assert after.champion == before.candidate
            kept = {it.number for it in world.pools[before.candidate.id]}
            assert kept <= set(judged), "promotion keeps the replicas that were judged"
            assert len(kept) == spec.replicas

    @staticmethod
    def check_log(before: State | None, after: State, log: list[plan.Transition]) -> None:
        first = before.serial if before else 0
        assert [it.serial for it in log] == list(range(first + 1, after.serial + 1))
        chain = [before.phase if before else None, *(it.target for it in log)]
        assert [it.source for it in log] == chain[:-1], "each entry begins where the one before ended"
        assert chain[-1] == after.phase
        assert all(it.reason and it.who for it in log)

    def check_abort(
        self, spec: RolloutSpec, before: State | None, after: State, judgement: Judgement | None, seen: Observed
    ) -> None:
        """Without a cause, least of all for want of data, nothing is aborted before its deadline."""
        if before is None or before.phase not in plan.RUNNING or after.phase is not Phase.ABORTING:
            return
        assert after.candidate == before.candidate
        cause = (
            any(it.kind is OrderKind.ABORT for it in self.orders)
            or judgement is FAIL
            or seen.candidate_deaths >= MAX_DEATHS
            or (seen.stopped is not None and seen.stopped.aborts)
            or (before.champion is not None and spec.release.id == before.champion.id)
            or (spec.on_new_release == "supersede" and before.candidate != spec.release)
        )
        limit_s = plan.deadline_s(spec, before)
        assert limit_s is not None
        assert cause or self.used_s >= limit_s - 1e-6, f"aborted after {self.used_s} of {limit_s} s: {after.reason}"

    @invariant()
    def the_world_is_well(self) -> None:
        state: State | None = getattr(self, "state", None)
        if state is None:
            return
        self.world.check()
        if state.champion and state.champion.id in self.world.pools:
            pool = self.world.pools[state.champion.id]
            assert pool, "the champion has no replica"
            assert state.champion.id in self.world.hurt or any(it.ready for it in pool), "no champion is ready"
        if state.candidate:
            assert self.world.shares.get(state.candidate.id, 0) <= self.highest, "more weight than was ever planned"

    # It ends

    @rule(
        judgement=st.sampled_from([it for it in JUDGEMENTS if it is not FAIL]), works=st.booleans(),
        last=st.sampled_from([OrderKind.ABORT, OrderKind.PROMOTE]), dt=st.sampled_from([1.0, 4.0]),
    )  # fmt: skip
    def it_ends(self, judgement: Judgement | None, works: bool, last: OrderKind, dt: float) -> None:
        """From here on only time passes, whether replicas and gateway work or not; on a copy of the world."""
        spec, state, world, now_s = self.spec, self.state, copy.deepcopy(self.world), self.now_s
        world.lagging = not works
        if world.stopped and not world.stopped.aborts:
            world.stopped = None  # it can be read again; until then a promotion has no effect
        # The running one and the one that waits; each phase ends at the first look behind its deadline, and is entered
        # at another.
        deadlines = [READY_DEADLINE_S] * 3 + [step.deadline_s for step in spec.plan]
        limit_s = 2 * sum(it + 2 * dt for it in deadlines)
        for _ in range(int(limit_s / dt) + 1):
            now_s += dt
            if works:
                world.all_ready()
            stuck = state is not None and (state.phase is Phase.PAUSED or state.holding)
            orders = [Order(last, "ann@desk")] if stuck else []
            before = state
            state, log = plan.advance(spec, state, world.observe(state), judgement, orders, now_s)
            if before is None or state.started_s != before.started_s:
                world.deaths = 0
            world.apply(state, plan.wanted(spec, state, world.observe(state)))
            if state.phase in plan.ENDED and not log:
                return
        raise AssertionError(f"still {state.phase if state else None} after {limit_s} s: {state and state.reason}")


def test_no_order_of_events_breaks_the_plan():
    run_state_machine_as_test(
        Rollouts,
        settings=settings(
            max_examples=int(os.environ.get("PLAN_EXAMPLES", "700")), stateful_step_count=40, deadline=None,
            derandomize=bool(os.environ.get("CI")), suppress_health_check=[HealthCheck.too_slow],
        ),
    )  # fmt: skip
