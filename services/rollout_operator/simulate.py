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
from services.rollout_operator.evidence import BUCKETS_PER_E, RENEWED_ROWS, YARDSTICK_ROWS
from services.rollout_operator.simulated_metrics import QUANTILES, Counts, Metric, Said, metrics_of
from services.rollout_operator.simulated_slices import ManySlices
from services.rollout_operator.traffic import Batch, Behaviour, Candidate, Ints, Load, Mask, World

__all__ = [
    "QUANTILES",
    "Counts",
    "End",
    "Judging",
    "Metric",
    "Outcomes",
    "Rule",
    "Said",
    "least",
    "metrics_of",
    "simulate",
]

_BUCKETS = 20 * BUCKETS_PER_E  # up to 8 minutes
_PART = 500  # rollouts at a time: their histograms stay in the processor's cache


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


Watcher = Callable[[Batch, Ints, Ints, npt.NDArray[np.int8]], None]  # tick, active rollouts, their steps, what was said


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
    watch: Watcher | None = None,
) -> Outcomes:
    """Run all of them to their ends.

    A step's deadline ends a rollout as UNDECIDED unless the spec says to promote there: to hold or to abort without a
    verdict is no decision of the judge.

    Args:
        rule: makes the way of judging from spec, rollouts and seed; the judge's own when None.
        watch: sees each tick; rollouts are numbered within their part of 500.
    """
    parts = []
    for first in range(0, rollouts, _PART):
        count, (own, other) = min(_PART, rollouts - first), np.random.SeedSequence([seed, first]).generate_state(2)
        world = World(load, champion, candidate, count, int(own))
        parts.append(_roll_out(spec, world, (rule or Judging)(spec, count, int(other)), count, watch))
    fields = [field.name for field in dataclasses.fields(Outcomes)]
    return Outcomes(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})


def _roll_out(
    spec: RolloutSpec,
    world: World,
    judging: Rule,
    rollouts: int,
    watch: Watcher | None,
) -> Outcomes:
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
        now_s += world.load.tick_s
        batch = world.tick(active, shadows[step[active]], weights[step[active]])
        said = judging.look(batch, active, step[active])
        if watch:
            watch(batch, active, step[active], said)
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


class Judging:
    """judge.py for many rollouts at once: the same histograms, the same tests, the same division of alpha."""

    def __init__(self, spec: RolloutSpec, rollouts: int, seed: int) -> None:
        self.spec, self.rng = spec, np.random.default_rng(seed)
        self.metrics = metrics_of(spec)
        self.shadows = np.array([step.shadow is not None for step in spec.plan])
        self.least = np.array([least(step) for step in spec.plan])
        self.counts = {
            name: np.zeros((rollouts, len(spec.plan), it.parts, it.levels.size)) for name, it in self.metrics.items()
        }
        self.seen = np.zeros((rollouts, len(spec.plan)), dtype=np.int64)
        self.answers = np.zeros((2, rollouts), dtype=np.int64)  # of candidate and champion, for the warm-up
        self.yard = Yardsticks(rollouts)
        self.slices = ManySlices(spec, rollouts)
        self.said: dict[str, npt.NDArray[np.int8]] = {}  # of each metric of the active ones, at the last look

    def look(self, batch: Batch, active: Ints, step: Ints) -> npt.NDArray[np.int8]:
        """Count the tick's differences and test every metric."""
        self.count(batch, active, step)
        failed, watching, empty = (np.zeros(active.size, dtype=bool) for _ in range(3))
        for name, metric in self.metrics.items():
            said = self.said[name] = self._say(name, active, step)
            waits = self.shadows[step] | (not metric.rule.shadow_only)
            failed |= said == Said.FAIL
            empty |= waits & (said == Said.NO_DATA)
            watching |= waits & (said == Said.WATCHING)
        for name, said in self.slices.say(active).items():
            self.said[name] = said
            waits = self.shadows[step] | (not self.slices.metrics[name].rule.shadow_only)
            failed |= said == Said.FAIL
            empty |= waits & (said == Said.NO_DATA)
            watching |= waits & (said == Said.WATCHING)
        few = self.seen[active, step] < self.least[step]
        said = np.select([failed, empty, watching | few], [Said.FAIL, Said.NO_DATA, Said.WATCHING], Said.PASS)
        return said.astype(np.int8)

    def count(self, batch: Batch, active: Ints, step: Ints) -> None:
        """Add the tick's differences to the histograms of each rollout's step."""
        warm = [self._warm(role, batch, active) for role in (0, 1)]
        matched = warm[0] & warm[1]
        pairs = matched & batch.shadow[:, None]
        surplus = batch.requests - batch.taken.sum(axis=1)
        self.seen[active, step] += np.where(batch.shadow, pairs.sum(axis=1), warm[0].sum(axis=1) + surplus)
        nobody = np.zeros_like(pairs)
        signs: dict[str, tuple[Mask, Mask, Mask]] = {
            "errorRate": (batch.taken, *batch.failed),
            "degradedRate": (matched, *batch.degraded),
            "labelFlips": (pairs, batch.decision[0] ^ batch.decision[1], nobody),
            "featureSkew": (pairs, batch.skewed, nobody),
        }
        for name in QUANTILES:
            if name in self.metrics:
                ratio, x = getattr(self.spec.judge.margins, self.metrics[name].rule.field), self.yard.latency_us[name]
                limit = x[active][:, None]
                slow = (batch.latency_us[0] > ratio * limit, batch.latency_us[1] > limit)
                signs[name] = (matched & np.isfinite(limit), *slow)
        for name, (known, candidate, champion) in signs.items():
            if name in self.metrics:
                found = _signs(known, candidate, champion)
                self.counts[name][active, step, 0] += found[:, -self.metrics[name].levels.size :]
        self.slices.begin(batch, active, step, matched)
        self.slices.add("degradedRate", 0, matched, batch.degraded[0].astype(float) - batch.degraded[1], self.rng)
        self.slices.add("labelFlips", 0, pairs, (batch.decision[0] ^ batch.decision[1]).astype(float), self.rng)
        low, high = self.spec.judge.score_range
        score = [np.clip(it.astype(np.float64), low, high) for it in batch.score]
        if "scoreShift" in self.metrics:
            middle = self.yard.middle[active][:, None]
            self._add("scoreShift", 0, matched, (score[0] - score[1]) / (high - low), active, step)
            spread = (np.abs(score[0] - middle) - np.abs(score[1] - middle)) / (high - low)
            self._add("scoreShift", 1, matched & np.isfinite(middle), spread, active, step)
        if "scoreDelta" in self.metrics:
            self._add("scoreDelta", 0, pairs, np.abs(score[0] - score[1]) / (high - low), active, step)
        self.yard.learn(batch, warm[1], active)  # last: nobody is judged by a yardstick that it helped to make

    def _warm(self, role: int, batch: Batch, active: Ints) -> Mask:
        """Columns with an answer after the warm-up; replicas are taken to be asked in turn."""
        answered = batch.taken & ~batch.failed[role]
        place = self.answers[role, active][:, None] + np.cumsum(answered, axis=1)
        self.answers[role, active] += answered.sum(axis=1)
        if role == 0:
            self.answers[role, active] += batch.requests - batch.taken.sum(axis=1)
        return np.asarray(answered & (place > self.spec.judge.warmup * self.spec.replicas))

    def _add(self, name: str, part: int, known: Mask, differences: Counts, active: Ints, step: Ints) -> None:  # noqa: PLR0917
        """Differences of any size into the histogram of one part, and of its slices."""
        self.slices.add(name, part, known, differences, self.rng)
        counts, values = self.counts[name], differences[known]
        size = counts.shape[-1]
        slots = sequences.slot(values, self.rng.random(values.size)) - (sequences.SLOTS - size)
        found = np.bincount(np.nonzero(known)[0] * size + slots, minlength=active.size * size)
        counts[active, step, part] += found.reshape(active.size, size)

    def _say(self, name: str, active: Ints, step: Ints) -> npt.NDArray[np.int8]:
        """`Said` of one metric."""
        metric = self.metrics[name]
        counts = self.counts[name][active]  # (n, steps, parts, levels)
        if metric.rule.anew and self.shadows[0]:
            counts[step > 0, 0] = 0
        since = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
        total = since[:, 0]  # (n, parts, levels)
        fail, good = self.decide(metric, since.transpose(0, 2, 1, 3), total)
        none, all_parts = total[:, 0].sum(axis=1) == 0, (total.sum(axis=2) > 0).all(axis=1)
        return np.select([none, fail, good & all_parts], [Said.NO_DATA, Said.FAIL, Said.PASS], Said.WATCHING).astype(
            np.int8
        )

    def decide(self, metric: Metric, since: Counts, total: Counts) -> tuple[Mask, Mask]:
        """Whether a metric is surely beyond and surely within its margin, shape (n,).

        Args:
            since: shape (n, parts, starts, levels). total: (n, parts, levels).
        """
        fail, good = np.zeros(total.shape[0], dtype=bool), np.ones(total.shape[0], dtype=bool)
        for levels in (metric.levels, -metric.levels) if metric.rule.two_sided else (metric.levels,):
            fail |= sequences.surely_above(since, levels, metric.margin, metric.rule.lo, metric.alpha).any(axis=1)
            good &= sequences.surely_below(total, levels, metric.margin, self.spec.judge.beta).all(axis=1)
        return fail, good


class Yardsticks:
    """evidence.py's yardsticks: what the champion's answers are measured by, from its earlier ones.

    Champion's answers that are compared with none are not drawn, so in a plan without a shadow yardsticks come later
    here than in truth, and from fewer answers.
    """

    def __init__(self, rollouts: int) -> None:
        self.scores = np.full((rollouts, YARDSTICK_ROWS), np.nan)
        self.have = np.zeros(rollouts, dtype=np.int64)
        self.middle = np.full(rollouts, np.nan)
        self.latencies = np.zeros((rollouts, _BUCKETS), dtype=np.int64)
        self.latency_us = {name: np.full(rollouts, np.nan) for name in QUANTILES}

    def learn(self, batch: Batch, answers: Mask, active: Ints) -> None:
        """From the champion's answers of a tick."""
        row, column = np.nonzero(answers)
        bucket = (np.log(batch.latency_us[1][row, column], dtype=np.float64) * BUCKETS_PER_E).astype(np.int64)
        np.add.at(self.latencies, (active[row], np.minimum(bucket, _BUCKETS - 1)), 1)
        before = self.have[active]
        if (before < YARDSTICK_ROWS).any():
            place = before[:, None] + np.cumsum(answers, axis=1) - 1
            row, column = np.nonzero(answers & (place < YARDSTICK_ROWS))
            self.scores[active[row], place[row, column]] = batch.score[1][row, column]
            self.have[active] = before + answers.sum(axis=1)
            full = active[(before < YARDSTICK_ROWS) & (self.have[active] >= YARDSTICK_ROWS)]
            if full.size:
                self.middle[full] = np.median(self.scores[full], axis=1)
        self._take(active)

    def _take(self, active: Ints) -> None:
        total = self.latencies[active].sum(axis=1)
        full = total >= RENEWED_ROWS
        for name, (share, rows) in QUANTILES.items():
            due = full | (np.isnan(self.latency_us[name][active]) & (total >= rows))
            so_far = np.cumsum(self.latencies[active[due]], axis=1)
            at = np.argmax(so_far >= share * total[due][:, None], axis=1)
            self.latency_us[name][active[due]] = np.exp((at + 1) / BUCKETS_PER_E)
        self.latencies[active[full]] = 0


def _signs(known: Mask, candidate: Mask, champion: Mask) -> Counts:
    """How often candidate minus champion is -1, 0 and 1, per row."""
    worse = (known & candidate & ~champion).sum(axis=1)
    better = (known & champion & ~candidate).sum(axis=1)
    return np.stack([better, known.sum(axis=1) - worse - better, worse], axis=1).astype(np.float64)


def least(step: Step) -> int:
    """Observations that a step asks for, whatever the evidence."""
    return step.shadow.min_pairs if step.shadow else step.canary.min_requests if step.canary else 0
