"""The simulator of many rollouts at once says what Collector, judge and plan say of each alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from benchmarks.judge_bench import bench_spec
from flightdeck.contracts.artefact import ModelManifest, ServedFeature
from flightdeck.contracts.model_spec import Task
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.rollout import OnLimit, RolloutSpec
from services.rollout_operator.evidence import Attempts, Collector, Evidence
from services.rollout_operator.judge import judge
from services.rollout_operator.plan import Observed, Phase, State, advance
from services.rollout_operator.simulate import End, Judging, Said, simulate
from services.rollout_operator.traffic import Batch, Behaviour, Candidate, Load
from services.rollout_operator.verdict import Verdict

SAID = {
    Verdict.NO_DATA: Said.NO_DATA,
    Verdict.WATCHING: Said.WATCHING,
    Verdict.PASS: Said.PASS,
    Verdict.FAIL: Said.FAIL,
}
FAULTLESS = Behaviour(errors=0.0)
LOAD = Load(rate_per_s=60, tick_s=2)


class Straight:
    """A generator that matches in order and rounds up from the middle, so that chance is the same on both sides."""

    def __init__(self) -> None:
        self.hypergeometric = np.random.default_rng(0).hypergeometric

    def permutation(self, count: int) -> np.ndarray:
        return np.arange(count)

    def random(self, shape: Any) -> np.ndarray:
        return np.full(shape, 0.5)


class StraightCollector(Collector):
    def _generator(self) -> Any:
        return Straight()


class StraightJudging(Judging):
    def __init__(self, spec: RolloutSpec, rollouts: int, seed: int) -> None:
        super().__init__(spec, rollouts, seed)
        self.rng = Straight()  # type: ignore[assignment]


def small_spec(*, shadow: bool = True, slices: dict[str, Any] | None = None) -> RolloutSpec:
    """The bench's plan with short steps, and weights at which each candidate's request finds a champion's."""
    spec = bench_spec()
    text = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    text["plan"] = [{"shadow": {"minPairs": 300, "deadline": "40s"}}] if shadow else []
    text["plan"] += [{"canary": {"weight": it, "minRequests": 40, "deadline": "24s"}} for it in (15, 25)]
    text["judge"] |= {"warmup": 5, "maxRestarts": 3}
    if slices:
        text["judge"]["slices"] = slices
    if not shadow:
        for name in ("scoreDelta", "labelFlips", "featureSkew"):
            del text["judge"]["margins"][name]
    return RolloutSpec.model_validate(text)


MANIFEST = ModelManifest(
    model="late", task=Task.CLASSIFICATION, horizon_min=120, unit="probability", feature_project="p",
    feature_service="late_v1", views={}, decision_threshold=0.5, fallback_score=0.2, files=[],
    features=[
        ServedFeature(
            name="distance_mi", source="on_demand", view="v", join_keys=["color", "size"], feast_type="FLOAT", default=1
        )
    ],
)  # fmt: skip


class Alone:
    """One rollout under the real collector, judge and plan."""

    def __init__(self, spec: RolloutSpec) -> None:
        self.spec = spec
        self.collector = StraightCollector(spec.judge, spec.plan, MANIFEST, MANIFEST, seed=1)
        self.collector.attempts({"h": Attempts(0, 0)}, {})
        self.champion = spec.release.model_copy(update={"image": "champion"})
        first = Phase.SHADOW if spec.plan[0].shadow else Phase.CANARY
        self.state = State(first, 0.0, 0.0, champion=self.champion, candidate=spec.release, step=0)
        self.answers, self.attempts, self.deaths, self.now_s, self.ids = [0, 0], [[0, 0], [0, 0]], 0, 0.0, 0

    def tick(self, batch: Batch, row: int) -> Verdict:
        """Feed what one row of the batch holds, and let judge and plan decide."""
        assert self.state.step is not None
        self.now_s += batch.tick_s
        self.deaths += int(batch.deaths[row])
        taken = np.nonzero(batch.taken[row])[0]
        self.collector.begin_step(self.state.step)
        records: list[list[PredictionRecord]] = [[], []]
        last: list[PredictionRecord] = []  # under weight, whose partner failed: last in the order of matching
        for column in taken:
            self.ids += 1
            for role in (0, 1):
                if not batch.failed[role][row, column]:
                    alone = role == 1 and batch.failed[0][row, column] and not batch.shadow[row]
                    (last if alone else records[role]).append(self.record(batch, row, int(column), role))
        self.collector.predictions(records[1] + last, records[0])
        for role in (0, 1):
            self.attempts[role][0] += len(taken)
            self.attempts[role][1] += int(batch.failed[role][row, taken].sum())
        ours, theirs = (Attempts(*self.attempts[role]) for role in (1, 0))
        self.collector.attempts({"h": ours}, {"c": theirs})
        found = judge(self.spec.judge, self.spec.plan, self.state.step, self.collector.evidence())
        observed = Observed(
            3, 3, 3, 3, candidate_deaths=self.deaths, routed_weight=self.spec.plan[self.state.step].weight
        )
        self.state, _ = advance(self.spec, self.state, observed, found, [], self.now_s)
        return found.verdict

    def record(self, batch: Batch, row: int, column: int, role: int) -> PredictionRecord:
        self.answers[role] += 1
        skewed = role == 0 and bool(batch.skewed[row, column])
        key = f"{self.ids}" if batch.shadow[row] else f"{self.ids}-{role}"
        return PredictionRecord(
            request_id=key, row=0, entity_id="", asked_at_us=0, model="late", version="1", sha256="a" * 64,
            feature_service="late_v1", features=[2.0 if skewed else 1.0], feature_hash="",
            score=float(batch.score[role][row, column]), decision=str(batch.decision[role][row, column]),
            degraded=["store"] if batch.degraded[role][row, column] else [], ages_s={},
            latency_us=int(batch.latency_us[role][row, column]), replica=f"{role}-{self.answers[role] % 3}",
            keys={key: str(values[row, column]) for key, values in zip(("color", "size"), batch.slices, strict=False)},
        )  # fmt: skip


def fault(**changes: Any) -> Candidate:
    where = {name: changes.pop(name) for name in ("only_under_weight", "after", "only_slice") if name in changes}
    return Candidate(FAULTLESS, dataclasses.replace(FAULTLESS, **changes), **where)


CANDIDATES = {
    "equal": Candidate(FAULTLESS),
    "errors": fault(errors=0.08),
    "slow": fault(added_ms=50.0),
    "tail": fault(tail_share=0.15, tail_times=9.0),
    "noisy scores and some flips": fault(score_noise=0.03, flips=0.03),
    "shifted": fault(score_shift=0.12, after=150),
    "skew": fault(skew=0.08),
    "degraded": fault(degraded=0.06),
    "crash": fault(only_under_weight=True, after=30, dies_every=40),
}


def same_counts(evidence: Evidence, many: Judging, number: int, step: int) -> None:
    tally = evidence.tallies[step]
    assert many.seen[number, step] == (tally.pairs if many.shadows[step] else tally.answers)
    for name, limits in many.yard.latency_us.items():
        found = evidence.yardsticks.get(name.removeprefix("latency").removesuffix("Ratio").lower(), np.nan)
        assert limits[number] == pytest.approx(found, nan_ok=True)


SLICED = {"by": ["color", "size"], "maxValues": 5, "minShare": 0.15}
IN_SLICES = dataclasses.replace(LOAD, slices=((0.5, 0.3, 0.2), (0.6, 0.3, 0.06, 0.03, 0.01)))
SLICES = {
    "equal, in slices": Candidate(FAULTLESS),
    "shifted in one slice": fault(score_shift=0.15, only_slice=(1, 1)),
    "flips in a small slice": fault(flips=0.6, only_slice=(1, 2)),
    "noisy in one slice": fault(score_noise=0.4, only_slice=(0, 2)),
    "degraded in one slice, only under weight": fault(degraded=0.5, only_slice=(0, 1), only_under_weight=True),
}


@pytest.mark.parametrize(
    ("candidate", "spec", "load"),
    [
        *((it, small_spec(), LOAD) for it in CANDIDATES.values()),
        (CANDIDATES["equal"], small_spec(shadow=False), LOAD), (CANDIDATES["slow"], small_spec(shadow=False), LOAD),
        *((it, small_spec(slices=SLICED), IN_SLICES) for it in SLICES.values()),
        (fault(score_shift=0.5, only_slice=(1, 1)), small_spec(shadow=False, slices=SLICED), IN_SLICES),
    ],
    ids=[
        *CANDIDATES, "equal, without a shadow", "slow, without a shadow", *SLICES, "shifted in a slice, no shadow"
    ],
)  # fmt: skip
def test_each_of_many_rollouts_is_judged_at_each_look_as_it_is_alone(
    candidate: Candidate, spec: RolloutSpec, load: Load
):
    rollouts, looks, differences = 4, 0, []
    alone = [Alone(spec) for _ in range(rollouts)]
    many = StraightJudging(spec, rollouts, 1)

    def watch(batch: Batch, active: np.ndarray, step: np.ndarray, said: np.ndarray) -> None:
        nonlocal looks
        assert (batch.requests == batch.taken.sum(axis=1)).all()
        for row, number in enumerate(active):
            assert alone[number].state.step == step[row]
            looks += 1
            verdict = alone[number].tick(batch, row)
            same_counts(alone[number].collector.evidence(), many, number, int(step[row]))
            if SAID[verdict] != said[row]:
                differences.append((number, alone[number].now_s, verdict, Said(said[row])))

    out = simulate(
        spec, load, candidate, champion=FAULTLESS, rollouts=rollouts, seed=5, rule=lambda *_: many, watch=watch
    )
    assert not differences
    assert looks > rollouts
    ends = {Phase.PROMOTING: End.PROMOTED, Phase.ABORTING: End.ABORTED}
    for number, one in enumerate(alone):
        expected = End.UNDECIDED if "deadline" in one.state.reason else ends[one.state.phase]
        assert out.end[number] == expected, one.state.reason


def test_the_same_seed_gives_the_same_rollouts():
    first, second = (simulate(small_spec(), LOAD, CANDIDATES["errors"], rollouts=20, seed=3) for _ in range(2))
    assert (first.requests == second.requests).all() and (first.end == second.end).all()
    assert (first.requests != simulate(small_spec(), LOAD, CANDIDATES["errors"], rollouts=20, seed=4).requests).any()


def test_nobody_is_promoted_without_traffic_unless_the_spec_says_so():
    silent = Load(rate_per_s=0.001, tick_s=8)
    spec = small_spec()
    assert simulate(spec, silent, rollouts=5).share(End.UNDECIDED) == 1
    reckless = spec.model_copy(update={"on_no_data": OnLimit.PROMOTE})
    assert simulate(reckless, silent, rollouts=5).share(End.PROMOTED) == 1


def test_deaths_abort_whatever_the_evidence():
    dying = fault(only_under_weight=True, after=5, dies_every=10, lost=0)
    out = simulate(small_spec(), LOAD, dying, champion=FAULTLESS, rollouts=20)
    under_weight = out.step == 1  # a shadow may end undecided, before anybody dies
    assert under_weight.sum() >= 18
    assert (out.end[under_weight] == End.ABORTED).all()


def test_bursts_hit_both_releases_alike():
    load = Load(rate_per_s=50, burst_every_s=20, burst_s=5, burst_rate=3, burst_slower=4, burst_errors=0.2)
    shares: list[tuple[float, float]] = []

    def watch(batch: Batch, *_: np.ndarray) -> None:
        shares.append((batch.failed[0][batch.taken].mean(), batch.failed[1][batch.taken].mean()))

    simulate(small_spec(), load, rollouts=100, seed=1, watch=watch)
    candidate, champion = np.array(shares[:8]).T
    assert candidate == pytest.approx(champion, abs=0.02)
    assert 0.02 < candidate.mean() < 0.2


def test_slices_are_not_simulated_over_users_of_whom_no_slices_are_known():
    with pytest.raises(ValueError, match=r"slices by color, size, and the load has shares for 0 of these 2 keys"):
        simulate(small_spec(slices=SLICED), LOAD, rollouts=2)
