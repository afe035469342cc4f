"""What a plan can find out, and when: real shares, time to decide, chance to decide in time, smallest fault found.

Takes the judge's own tests over pairs drawn from what champion and candidate are assumed to be, without time, bursts or
queues: a second's work. simulate.py rolls the whole plan out instead; a test holds the two together.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from flightdeck.contracts.rollout import RolloutSpec, Step
from services.rollout_operator import sequences
from services.rollout_operator.evidence import BUCKETS_PER_E, YARDSTICK_ROWS
from services.rollout_operator.simulate import least
from services.rollout_operator.simulated_metrics import QUANTILES, Counts, Metric, metrics_of, slices_of
from services.rollout_operator.traffic import DECISION, Behaviour

PATHS = 300  # drawn for each metric
SURE = 0.9  # chance with which the smallest fault is found in time
LOOKS = np.unique(np.geomspace(20, 2_000_000, 220).astype(np.int64))  # pairs at which a path is tested
_SCORES = 20_000  # pairs of scores that stand for the distribution
_HALVINGS = 12
_COARSE = 40  # levels of a difference between 0 and 1


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What comes, and what spreads it.

    Args:
        connections: that users keep open; None: many. Only matters without a weighting proxy.
        weighting_proxy: a gateway draws each request by weight. Without one a connection goes to any replica alike, so
            shares come from counting replicas.
    """

    rate_per_s: float
    connections: int | None = None
    weighting_proxy: bool = True


@dataclasses.dataclass(frozen=True)
class MetricForecast:
    """One metric in one step, when the candidate is as good as assumed. Of slices, all those that are just large enough
    to be waited for, as many as there can be: it takes longer the more even they are.

    Args:
        pairs, pairs_p90: compared requests to a pass, median and 9 of 10; infinite beyond two million.
        seconds: the median as time, warm-up and yardsticks included.
        fault: smallest fault that 9 of 10 rollouts find before the step's deadline; None: none is.
        words: that fault in its unit.
    """

    metric: str
    margin: float
    pairs: float
    pairs_p90: float
    seconds: float
    fault: float | None
    words: str


@dataclasses.dataclass(frozen=True)
class StepForecast:
    """One step.

    Args:
        share: of the users that the candidate really answers, 0 to 1; `share_low` and `share_high` hold 9 of 10 times.
        own_per_s: requests that the candidate gets, mirrored or real; `compared_per_s` pairs, or matched requests.
        seconds, seconds_p90: to the step's pass, median and 9 of 10.
        in_time: chance to pass before the deadline.
    """

    step: Step
    share: float
    share_low: float
    share_high: float
    own_per_s: float
    compared_per_s: float
    metrics: tuple[MetricForecast, ...]
    seconds: float
    seconds_p90: float
    in_time: float


@dataclasses.dataclass(frozen=True)
class Forecast:
    """A whole plan. `false_abort` is a bound over all metrics, looks and steps; `in_time` the chance that a candidate
    as good as assumed passes every step before its deadline."""

    steps: tuple[StepForecast, ...]
    seconds: float
    in_time: float
    false_abort: float


def real_share(step: Step, replicas: int, traffic: Traffic) -> tuple[float, float, float]:
    """The share of users that the candidate gets in a step, and the bounds that hold it 9 of 10 times.

    Without a weighting proxy the champion keeps its replicas and the candidate has 1 to all of its own: the nearest of
    k / (replicas + k). Each connection then falls on a replica by chance.
    """
    if step.shadow:
        return 0.0, 0.0, 0.0
    if traffic.weighting_proxy:
        return step.weight / 100, step.weight / 100, step.weight / 100
    share = min(shares_by_replicas(replicas), key=lambda it: abs(it - step.weight / 100))
    spread = 1.645 * math.sqrt(share * (1 - share) / traffic.connections) if traffic.connections else 0.0
    return share, max(0.0, share - spread), min(1.0, share + spread)


def shares_by_replicas(replicas: int) -> list[float]:
    """What can be reached by counting replicas, the champion keeping all of its own."""
    return [count / (replicas + count) for count in range(1, replicas + 1)]


def forecast(
    spec: RolloutSpec,
    traffic: Traffic,
    *,
    champion: Behaviour = Behaviour(),  # noqa: B008 - frozen
    candidate: Behaviour | None = None,
    faults: bool = True,
    seed: int = 0,
) -> Forecast:
    """Forecast all steps for a candidate that behaves as assumed; as the champion when None.

    Args:
        faults: whether to look for the smallest fault found as well, which takes most of the time.
    """
    rng = np.random.default_rng(seed)
    looking = np.random.default_rng([seed, 1]) if faults else None  # another: times are the same with and without
    metrics, steps, carried = metrics_of(spec) | slices_of(spec), [], False
    for step in spec.plan:
        waited = {name: it for name, it in metrics.items() if step.shadow or not it.rule.shadow_only}
        if carried:  # evidence carries over; errors begin anew at the first weight
            first_weight = step is next(it for it in spec.plan if it.canary)
            waited = {name: it for name, it in waited.items() if it.rule.anew and first_weight}
        steps.append(
            _step(spec, step, waited, traffic, champion, candidate or champion, looking, first=not carried, rng=rng)
        )
        carried = True
    return Forecast(
        tuple(steps), sum(it.seconds for it in steps), math.prod(it.in_time for it in steps), spec.judge.alpha
    )


def _step(  # noqa: PLR0917
    spec: RolloutSpec,
    step: Step,
    metrics: dict[str, Metric],
    traffic: Traffic,
    champion: Behaviour,
    candidate: Behaviour,
    looking: np.random.Generator | None,
    *,
    first: bool,
    rng: np.random.Generator,
) -> StepForecast:
    share, low, high = real_share(step, spec.replicas, traffic)
    own = traffic.rate_per_s * (1.0 if step.shadow else share)  # the candidate's requests per second
    others = traffic.rate_per_s * (1.0 if step.shadow else 1 - share)
    compared = min(own, others)
    cold_s = spec.judge.warmup * spec.replicas / min(own, others) if first else 0.0
    seconds, found = np.full(PATHS, least(step) / own + cold_s), []
    for name, metric in metrics.items():
        wait_s = 0.0 if metric.rule.anew else cold_s  # errors count from the first
        if first and metric.rule.name in _ROWS:
            wait_s += _ROWS[metric.rule.name] / others
        shadow = step.shadow is not None
        pairs = pairs_to_pass(spec, metric, champion, candidate, shadow=shadow, rng=rng)
        if metric.pieces > 1:
            pairs = rng.choice(pairs, (PATHS, metric.pieces)).max(axis=1)
        pairs = np.ceil(pairs / metric.share)
        seconds = np.maximum(seconds, pairs / compared + wait_s)
        fault, words = None, ""
        if looking:
            within = int((step.deadline_s - wait_s) * compared * metric.share)
            fault, words = smallest_fault(spec, metric, champion, within, shadow=shadow, rng=looking)
        median, p90 = float(np.median(pairs)), float(np.quantile(pairs, 0.9, method="higher"))
        found.append(
            MetricForecast(name, margin_of(spec, metric), median, p90, median / compared + wait_s, fault, words)
        )
    return StepForecast(
        step, share, low, high, own, compared, tuple(found), float(np.median(seconds)),
        float(np.quantile(seconds, 0.9, method="higher")), float(np.mean(seconds <= step.deadline_s)),
    )  # fmt: skip


# One metric

_ROWS = {"scoreShift": YARDSTICK_ROWS, **{name: rows for name, (_, rows) in QUANTILES.items()}}  # champion's, before it


@dataclasses.dataclass(frozen=True)
class Chances:
    """How likely each difference is in one part of a metric.

    Args:
        of: shape (PATHS, levels) or (1, levels), rows sum to 1.
        levels: shape (levels,).
    """

    of: Counts
    levels: Counts

    def drawn(self, rng: np.random.Generator, pairs: npt.NDArray[np.int64]) -> Counts:
        """Histograms after each number of pairs, shape (PATHS, len(pairs), levels)."""
        more = np.diff(pairs, prepend=0)
        rows = np.broadcast_to(self.of, (PATHS, self.of.shape[-1]))[:, None, :]
        return np.cumsum(rng.multinomial(more, rows, size=(PATHS, more.size)), axis=1).astype(np.float64)


def pairs_to_pass(
    spec: RolloutSpec,
    metric: Metric,
    champion: Behaviour,
    candidate: Behaviour,
    *,
    shadow: bool,
    rng: np.random.Generator,
) -> Counts:
    """Compared requests until the metric passes, of PATHS rollouts; infinite where two million are not enough."""
    parts = chances_of(spec, metric, champion, candidate, shadow=shadow, rng=rng)
    found = np.full(PATHS, np.inf)
    for upto in (LOOKS[: len(LOOKS) // 2], LOOKS):  # most paths end early
        passed = np.ones((PATHS, upto.size), dtype=bool)
        for part in parts:
            counts = part.drawn(rng, upto)
            for levels in _sides(metric, part):
                passed &= sequences.surely_below(counts, levels, metric.margin, spec.judge.beta)
        found = np.where(passed.any(axis=1), upto[passed.argmax(axis=1)], np.inf)
        if np.mean(np.isfinite(found)) >= 0.95:
            break
    return found


def smallest_fault(
    spec: RolloutSpec, metric: Metric, champion: Behaviour, pairs: int, *, shadow: bool, rng: np.random.Generator
) -> tuple[float | None, str]:
    """The smallest fault that so many pairs of one step show in 9 of 10 rollouts, and in words.

    It begins with the step, so starts that come later in the plan have seen nothing.
    """
    if pairs < 1:
        return None, "none: no pair comes before the deadline"
    name = metric.rule.name
    low, high = _sizes(spec, metric)

    def found(size: float) -> bool:
        above = np.zeros(PATHS, dtype=bool)
        for part in chances_of(spec, metric, champion, _worse(name, champion, size), shadow=shadow, rng=rng):
            starts = np.zeros((PATHS, len(spec.plan), part.levels.size))
            starts[:, 0] = part.drawn(rng, np.array([pairs]))[:, 0]
            for levels in _sides(metric, part):
                above |= sequences.surely_above(starts, levels, metric.margin, metric.rule.lo, metric.alpha)
        return bool(above.mean() >= SURE)

    if not found(high):
        return None, "none"
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if found(middle) else (middle, high)
    where = " in one slice" if metric.share < 1 else ""
    return high, _WORDS[name].format(high) + where


def _sides(metric: Metric, part: Chances) -> tuple[Counts, ...]:
    return (part.levels, -part.levels) if metric.rule.two_sided else (part.levels,)


_WORDS = {
    "errorRate": "{:.1%} more errors",
    "latencyP50Ratio": "{:.2f} times the latency",
    "latencyP99Ratio": "{:.2f} times the latency",
    "degradedRate": "{:.1%} more degraded answers",
    "scoreShift": "scores shifted by {:.3f}",
    "scoreDelta": "scores shifted by {:.3f}",
    "labelFlips": "{:.1%} of the decisions flipped",
    "featureSkew": "skew in {:.1%} of the requests",
}


def margin_of(spec: RolloutSpec, metric: Metric) -> float:
    """As the spec has it, or as slices have it, in the margin's unit."""
    if metric.rule.name in QUANTILES:
        return float(getattr(spec.judge.margins, metric.rule.field))
    return metric.margin * metric.rule.unit


def _sizes(spec: RolloutSpec, metric: Metric) -> tuple[float, float]:
    """Between which sizes the smallest fault is looked for."""
    if metric.rule.name in QUANTILES:
        return 1.0, 1000.0
    margin = margin_of(spec, metric)
    return (margin / 10, metric.rule.unit) if metric.rule.name in ("scoreShift", "scoreDelta") else (margin, 0.99)


def _worse(name: str, champion: Behaviour, size: float) -> Behaviour:
    changes: dict[str, float]
    match name:
        case "errorRate":
            changes = {"errors": min(champion.errors + size, 1.0)}
        case "degradedRate":
            changes = {"degraded": min(champion.degraded + size, 1.0)}
        case "latencyP50Ratio" | "latencyP99Ratio":
            changes = {"median_ms": champion.median_ms * size, "added_ms": champion.added_ms * size}
        case "scoreShift" | "scoreDelta":
            changes = {"score_shift": size}
        case "labelFlips":
            changes = {"flips": size}
        case _:
            changes = {"skew": size}
    return dataclasses.replace(champion, **changes)  # type: ignore[arg-type]


def chances_of(  # noqa: PLR0911 - one for each metric
    spec: RolloutSpec,
    metric: Metric,
    champion: Behaviour,
    candidate: Behaviour,
    *,
    shadow: bool,
    rng: np.random.Generator,
) -> list[Chances]:
    """How likely each difference is in each part of a metric, from what both releases are assumed to be."""
    match metric.rule.name:
        case "errorRate":
            return [_signed(candidate.errors, champion.errors)]
        case "degradedRate":
            return [_signed(candidate.degraded, champion.degraded)]
        case "featureSkew":
            return [_plain(candidate.skew)]
        case "labelFlips":
            own, other = _scores(candidate, shadow=True, rng=rng)
            apart = float(np.mean((own >= DECISION) != (other >= DECISION)))
            return [_plain(apart + candidate.flips - 2 * apart * candidate.flips)]
        case "latencyP50Ratio" | "latencyP99Ratio" as name:
            limit = _yardsticks(champion, *QUANTILES[name], rng)
            slow = slower_than(candidate, limit * margin_of(spec, metric)), slower_than(champion, limit)
            return [_signed(*slow)]
    own, other = _scores(candidate, shadow=shadow, rng=rng)
    if metric.rule.name == "scoreDelta":
        return [_spread_out(np.abs(own - other), rng)]
    middle = np.median(other)
    return [_spread_out(it, rng) for it in (own - other, np.abs(own - middle) - np.abs(other - middle))]


def _yardsticks(champion: Behaviour, share: float, rows: int, rng: np.random.Generator) -> Counts:
    """What evidence.py takes for the champion's quantile, ms; from so few answers each rollout gets its own."""
    drawn = champion.median_ms * np.exp(champion.spread * rng.standard_normal((PATHS, rows)))
    drawn *= np.where(rng.random(drawn.shape) < champion.tail_share, champion.tail_times, 1.0)
    found = np.quantile(drawn + champion.added_ms, share, axis=1, method="inverted_cdf")
    return np.exp((np.floor(np.log(1000 * found) * BUCKETS_PER_E) + 1) / BUCKETS_PER_E) / 1000


def slower_than(who: Behaviour, limit_ms: Counts) -> Counts:
    """Share of the answers that take longer."""
    left = np.maximum(limit_ms - who.added_ms, 1e-9)

    def tail(median_ms: float) -> Counts:
        z = np.log(left / median_ms) / who.spread / math.sqrt(2)
        return np.array([math.erfc(it) / 2 for it in np.atleast_1d(z)])

    return (1 - who.tail_share) * tail(who.median_ms) + who.tail_share * tail(who.median_ms * who.tail_times)


def _signed(candidate: Counts | float, champion: Counts | float) -> Chances:
    """Of -1, 0 and 1, when each has something with these shares, independently."""
    worse = np.atleast_1d(np.asarray(candidate * (1 - np.asarray(champion)), dtype=np.float64))
    better = np.atleast_1d(np.asarray(champion * (1 - np.asarray(candidate)), dtype=np.float64))
    return Chances(np.stack([better, 1 - worse - better, worse], axis=1), np.array([-1.0, 0.0, 1.0]))


def _plain(share: float) -> Chances:
    """Of 0 and 1."""
    return Chances(np.array([[1 - share, share]]), np.array([0.0, 1.0]))


def _spread_out(differences: Counts, rng: np.random.Generator) -> Chances:
    """Of differences of any size: coarse levels, drawn so that the mean stays; only those that occur."""
    scaled = np.clip(differences, -1, 1) * _COARSE
    slots = np.floor(scaled + rng.random(scaled.size)).astype(np.int64)
    levels, counts = np.unique(slots, return_counts=True)
    return Chances(counts[None] / slots.size, levels / _COARSE)


def _scores(candidate: Behaviour, *, shadow: bool, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """Scores of the candidate and the champion in the same pairs."""
    base = rng.random(_SCORES) ** 2
    own = base if shadow else rng.random(_SCORES) ** 2
    if candidate.constant is not None:
        return np.full(_SCORES, candidate.constant), base
    return np.clip(own + candidate.score_shift + candidate.score_noise * rng.standard_normal(_SCORES), 0, 1), base
