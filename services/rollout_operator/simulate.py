"""Simulated rollouts, thousands at once: the judge's own tests and the plan's own rules over made-up traffic.

Answers what no formula does: how often a good candidate is sent home, how often a bad one gets through, and after how
many requests. The tests are those of sequences.py, called for all rollouts in one go; a test holds every verdict
against Collector, judge and plan. Pure, deterministic by its seed.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flightdeck.contracts.rollout import OnLimit, RolloutSpec, Step
from services.rollout_operator import sequences
from services.rollout_operator.traffic import Batch, Behaviour, Candidate, Ints, Load, Mask, World

Counts = npt.NDArray[np.float64]
SIGNS = np.array([-1.0, 0.0, 1.0])
LEVELS = sequences.level(np.arange(sequences.STEPS, sequences.SLOTS))
THRESHOLDS = 9
YARD = 200


class Said(enum.IntEnum):
    """A verdict as a number, so that an array can hold many."""

    NO_DATA = 0
    WATCHING = 1
    PASS = 2
    FAIL = 3


class End(enum.IntEnum):
    """How a simulated rollout ended."""

    RUNNING = 0
    PROMOTED = 1
    ABORTED = 2  # by a verdict, or by deaths
    UNDECIDED = 3  # at a deadline, whatever onDeadline then did


class Rule(Protocol):
    """A way of judging: the judge's, or a baseline's."""

    def look(self, batch: Batch, active: Ints, step: Ints) -> npt.NDArray[np.int8]:
        """What is `Said` of each active rollout after one more tick, shape (n,)."""
        ...


@dataclasses.dataclass
class Outcomes:
    """What came of each rollout; arrays of shape (rollouts,).

    Args:
        requests: of the candidate until the end, mirrored ones too; `pairs` those in the shadow.
        passed_s: shape (rollouts, steps), seconds that each step took; NaN where it did not pass.
    """

    end: npt.NDArray[np.int8]
    step: Ints
    time_s: Counts
    requests: Ints
    pairs: Ints
    passed_s: Counts

    def share(self, end: End) -> float:
        """Of all rollouts."""
        return float(np.mean(self.end == end))


def simulate(
    spec: RolloutSpec,
    load: Load,
    candidate: Candidate = Candidate(),  # noqa: B008 - frozen
    *,
    champion: Behaviour = Behaviour(),  # noqa: B008 - frozen
    rollouts: int = 2000,
    seed: int = 0,
    rule: Callable[[RolloutSpec, int, int], Rule] | None = None,
    watch: Callable[[Batch, npt.NDArray[np.int8]], None] | None = None,
) -> Outcomes:
    """Run all of them to their ends.

    A step's deadline ends a rollout as UNDECIDED unless the spec says to promote there: to hold or to abort without a
    verdict is no decision of the judge.

    Args:
        rule: makes the way of judging from spec, rollouts and seed; the judge's own when None.
        watch: sees each tick and what was said.
    """
    judging = (rule or Judging)(spec, rollouts, seed + 1)
    world = World(load, champion, candidate, rollouts, seed)
    shadows = np.array([step.shadow is not None for step in spec.plan])
    weights = np.array([step.weight / 100 for step in spec.plan], dtype=np.float32)
    deadlines = np.array([step.deadline_s for step in spec.plan])
    step, since, now_s = np.zeros(rollouts, dtype=np.int64), np.zeros(rollouts), 0.0
    deaths = np.zeros(rollouts, dtype=np.int64)
    out = Outcomes(
        end=np.zeros(rollouts, dtype=np.int8), step=step, time_s=np.zeros(rollouts),
        requests=np.zeros(rollouts, dtype=np.int64), pairs=np.zeros(rollouts, dtype=np.int64),
        passed_s=np.full((rollouts, len(spec.plan)), np.nan),
    )  # fmt: skip
    active = np.arange(rollouts)
    promotes = (spec.on_no_data is OnLimit.PROMOTE, spec.on_deadline is OnLimit.PROMOTE)
    while active.size:
        now_s += load.tick_s
        batch = world.tick(active, shadows[step[active]], weights[step[active]])
        said = judging.look(batch, active, step[active])
        if watch:
            watch(batch, said)
        deaths[active] += batch.deaths
        out.requests[active] += batch.requests
        out.pairs[active] += np.where(batch.shadow, batch.requests, 0)
        out.time_s[active] = now_s
        # The rules of plan.py: a fail or too many deaths abort, a pass advances, a deadline comes last.
        bad = (said == Said.FAIL) | (deaths[active] >= spec.judge.max_restarts)
        good = ~bad & (said == Said.PASS)
        late = ~bad & ~good & (now_s - since[active] >= deadlines[step[active]])
        waved = late & np.where(said == Said.NO_DATA, *promotes)
        out.end[active[bad]] = End.ABORTED
        out.end[active[late & ~waved]] = End.UNDECIDED
        out.passed_s[active[good], step[active[good]]] = now_s - since[active[good]]
        on = active[good | waved]
        last = step[on] == len(spec.plan) - 1
        out.end[on[last]] = End.PROMOTED
        step[on[~last]] += 1
        since[on[~last]] = now_s
        active = active[out.end[active] == End.RUNNING]
    return out


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric: how its differences are counted and which means are tested.

    Args:
        lo: smallest difference that is possible.
        margins: (components,), what the mean of each component must stay below.
        anew: under weight it begins anew.
    """

    lo: float
    levels: Counts
    margins: Counts
    shadow_only: bool = False
    anew: bool = False


def metrics_of(spec: RolloutSpec) -> dict[str, Metric]:
    """Those with a margin, in the order of the schema."""
    given, (low, high) = spec.judge.margins, spec.judge.score_range
    found = {}
    one = np.array([1.0])
    if given.error_rate:
        found["errorRate"] = Metric(-1.0, SIGNS, one * given.error_rate, anew=True)
    if given.latency_p50_ratio:
        found["latencyP50Ratio"] = Metric(-1.0, SIGNS, one * 0)
    if given.latency_p99_ratio:
        found["latencyP99Ratio"] = Metric(-1.0, SIGNS, one * 0)
    if given.degraded_rate:
        found["degradedRate"] = Metric(-1.0, SIGNS, one * given.degraded_rate)
    if given.score_shift:
        found["scoreShift"] = Metric(-1.0, SIGNS, np.full(2 * THRESHOLDS, given.score_shift))
    if given.score_delta:
        found["scoreDelta"] = Metric(0.0, LEVELS, one * given.score_delta / (high - low), shadow_only=True)
    if given.label_flips:
        found["labelFlips"] = Metric(0.0, SIGNS[1:], one * given.label_flips, shadow_only=True)
    if given.feature_skew:
        found["featureSkew"] = Metric(0.0, SIGNS[1:], one * given.feature_skew, shadow_only=True)
    return found


class Judging:
    """judge.py for many rollouts at once: the same histograms, the same tests, the same division of alpha."""

    def __init__(self, spec: RolloutSpec, rollouts: int, seed: int) -> None:
        self.spec, self.rng = spec, np.random.default_rng(seed)
        self.metrics = metrics_of(spec)
        steps = len(spec.plan)
        self.shadows = np.array([step.shadow is not None for step in spec.plan])
        self.least = np.array([_least(step) for step in spec.plan])
        self.counts = {
            name: np.zeros((rollouts, steps, it.margins.size, it.levels.size)) for name, it in self.metrics.items()
        }
        self.seen = np.zeros((rollouts, steps), dtype=np.int64)
        self.answers = np.zeros(rollouts, dtype=np.int64)  # of the candidate, for the warm-up
        self.yard = Yardsticks(rollouts)
        self.by_metric: dict[str, npt.NDArray[np.int8]] = {}  # what was said last of the active ones

    def look(self, batch: Batch, active: Ints, step: Ints) -> npt.NDArray[np.int8]:
        """Count the tick's differences and test every metric."""
        self.count(batch, active, step)
        failed, open_, empty = (np.zeros(active.size, dtype=bool) for _ in range(3))
        for name in self.metrics:
            said = self.by_metric[name] = self._say(name, active, step)
            failed |= said == Said.FAIL
            waits = ~(self.metrics[name].shadow_only & ~self.shadows[step])
            open_ |= waits & (said != Said.PASS)
            empty |= waits & (said == Said.NO_DATA)
        few = self.seen[active, step] < self.least[step]
        said = np.where(
            failed, Said.FAIL, np.where(empty, Said.NO_DATA, np.where(open_ | few, Said.WATCHING, Said.PASS))
        )
        return said.astype(np.int8)

    def count(self, batch: Batch, active: Ints, step: Ints) -> None:
        """Add the tick's differences to the histograms of each rollout's step."""
        yard = self.yard
        first = self.answers[active][:, None] + np.arange(batch.taken.shape[1])
        cold = first < self.spec.judge.warmup * self.spec.replicas
        self.answers[active] += batch.requests
        answered = batch.answered & ~cold
        self.seen[active, step] += answered.sum(axis=1)
        yard.learn(batch, active, step)
        signs: dict[str, tuple[Mask, Mask, Mask]] = {"errorRate": (batch.taken, *batch.failed)}
        signs["degradedRate"] = (answered, *batch.degraded)
        given = self.spec.judge.margins
        for name, ratio in (("latencyP50Ratio", given.latency_p50_ratio), ("latencyP99Ratio", given.latency_p99_ratio)):
            if ratio:
                x = yard.latency[name][active][:, None]
                known = answered & np.isfinite(x)
                signs[name] = (known, batch.latency_ms[0] > ratio * x, batch.latency_ms[1] > x)
        pairs = answered & batch.shadow[:, None]
        signs["labelFlips"] = (pairs, batch.decision[0] ^ batch.decision[1], np.zeros_like(pairs))
        signs["featureSkew"] = (pairs, batch.skewed, np.zeros_like(pairs))
        for name, (known, candidate, champion) in signs.items():
            if name in self.metrics:
                self.counts[name][active, step, 0] += _signs(known, candidate, champion)[
                    :, -self.metrics[name].levels.size :
                ]
        if "scoreShift" in self.metrics:
            for index, x in enumerate(yard.deciles[active].T[..., None]):
                known = answered & np.isfinite(x)
                found = _signs(known, batch.score[0] > x, batch.score[1] > x)
                self.counts["scoreShift"][active, step, index] += found
                self.counts["scoreShift"][active, step, THRESHOLDS + index] += found[:, ::-1]
        if "scoreDelta" in self.metrics:
            apart = np.abs(batch.score[0] - batch.score[1])[pairs].astype(np.float64)
            slots = sequences.slot(np.minimum(apart, 1), self.rng.random(apart.size)) - sequences.STEPS
            rows = np.nonzero(pairs)[0]
            flat = np.bincount(rows * LEVELS.size + slots, minlength=active.size * LEVELS.size)
            self.counts["scoreDelta"][active, step, 0] += flat.reshape(active.size, LEVELS.size)

    def _say(self, name: str, active: Ints, step: Ints) -> npt.NDArray[np.int8]:
        """`Said` of one metric."""
        metric = self.metrics[name]
        counts = self.counts[name][active]  # (n, steps, components, levels)
        if metric.anew and self.shadows[0]:
            counts = counts.copy()
            counts[step > 0, 0] = 0
        since = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
        total = since[:, 0]  # (n, components, levels)
        fail, good = self.decide(metric, since.transpose(0, 2, 1, 3), total)
        none = total.sum(axis=(1, 2)) == 0
        return np.select([none, fail, good], [Said.NO_DATA, Said.FAIL, Said.PASS], Said.WATCHING).astype(np.int8)

    def decide(self, metric: Metric, since: Counts, total: Counts) -> tuple[Mask, Mask]:
        """Whether a metric is surely beyond and surely within its margin, shape (n,).

        Args:
            since: shape (n, components, starts, levels). total: (n, components, levels).
        """
        alpha, margin = self.spec.judge.alpha / len(self.metrics) / metric.margins.size, metric.margins[0]
        fail = sequences.surely_above(since, metric.levels, margin, metric.lo, alpha).any(axis=1)
        good = sequences.surely_below(total, metric.levels, margin, self.spec.judge.beta).all(axis=1)
        return np.asarray(fail), np.asarray(good)


class Yardsticks:
    """What the champion's answers are measured by: frozen from its earlier records."""

    def __init__(self, rollouts: int) -> None:
        self.scores = np.full((rollouts, YARD), np.nan, np.float32)
        self.latencies = np.full((rollouts, YARD), np.nan, np.float32)
        self.have = np.zeros(rollouts, dtype=np.int64)
        self.deciles = np.full((rollouts, THRESHOLDS), np.nan, np.float32)
        self.latency = {name: np.full(rollouts, np.nan, np.float32) for name in ("latencyP50Ratio", "latencyP99Ratio")}

    def learn(self, batch: Batch, active: Ints, step: Ints) -> None:
        """Take the champion's first answers until there are enough, then freeze."""
        open_ = self.have[active] < YARD
        if not open_.any():
            return
        usable = batch.taken & ~batch.failed[1] & open_[:, None]
        place = self.have[active][:, None] + np.cumsum(usable, axis=1) - 1
        row, column = np.nonzero(usable & (place < YARD))
        self.scores[active[row], place[row, column]] = batch.score[1][row, column]
        self.latencies[active[row], place[row, column]] = batch.latency_ms[1][row, column]
        self.have[active] = np.minimum(self.have[active] + usable.sum(axis=1), YARD)
        full = active[open_ & (self.have[active] >= YARD)]
        if full.size:
            self.deciles[full] = np.quantile(self.scores[full], np.arange(1, 10) / 10, axis=1).T
            self.latency["latencyP50Ratio"][full] = np.quantile(self.latencies[full], 0.5, axis=1)
            self.latency["latencyP99Ratio"][full] = np.quantile(self.latencies[full], 0.99, axis=1)


def _signs(known: Mask, candidate: Mask, champion: Mask) -> Counts:
    """How often candidate minus champion is -1, 0 and 1, per row."""
    worse = (known & candidate & ~champion).sum(axis=1)
    better = (known & champion & ~candidate).sum(axis=1)
    return np.stack([better, known.sum(axis=1) - worse - better, worse], axis=1).astype(np.float64)


def _least(step: Step) -> int:
    return step.shadow.min_pairs if step.shadow else step.canary.min_requests if step.canary else 0
