"""Reads a plan before it runs: can it happen, and can it find anything out in time. Pure.

The schema refuses what is wrong in itself. What is wrong depends here on the traffic: a share that counting replicas
cannot give, a deadline that passes before the evidence can be there, figures that decide nothing. Each finding says
what to write instead, and `propose` writes it all.
"""

from __future__ import annotations

import dataclasses
import enum
import math

from pydantic.alias_generators import to_camel

from flightdeck.contracts.rollout import SHADOW_ONLY, SLICED, Judge, OnLimit, RolloutSpec, Step, duration_text
from services.rollout_operator import sequences
from services.rollout_operator.forecast import (
    Forecast,
    StepForecast,
    Traffic,
    forecast,
    real_share,
    shares_by_replicas,
)
from services.rollout_operator.simulate import least
from services.rollout_operator.simulated_metrics import QUANTILES, metrics_of, slices_of
from services.rollout_operator.traffic import Behaviour

IN_TIME = 0.9  # a candidate as good as the champion must pass a step before its deadline with this chance
NEAR = 0.02  # a share may miss the weight by so much, or by a quarter of it
BLIND = 4.0  # a fault so many times the margin should be found before the deadline
ROOM = 1.5  # a proposed deadline leaves so much more than nine of ten candidates need
_WIDENINGS = 16
_WIDEST = {"error_rate": 0.4, "degraded_rate": 0.4, "label_flips": 0.9, "feature_skew": 0.9}  # the schema has less room
_NICE_S = (
    30,
    60,
    120,
    180,
    300,
    600,
    900,
    1200,
    1800,
    2700,
    *(3600 * h for h in (1, 2, 3, 4, 6, 8, 12, 24, 48, 96, 168)),
)


class Level(enum.StrEnum):
    """How bad."""

    ERROR = "error"  # the plan cannot do what it says: refused
    WARNING = "warning"


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing to change: `path` as in the YAML; `proposal` a better figure, empty where only a person knows it."""

    level: Level
    path: str
    sentence: str
    proposal: str = ""


def lint(spec: RolloutSpec, traffic: Traffic, *, champion: Behaviour = Behaviour()) -> list[Finding]:  # noqa: B008 - frozen
    """What is impossible (error), powerless (error) or doubtful (warning) under this traffic; errors first.

    Args:
        champion: how it is assumed to answer; a candidate as good as it must be able to pass.
    """
    ahead = forecast(spec, traffic, champion=champion)
    found = [
        *_shares(spec, ahead, traffic),
        *_powerless(spec, ahead),
        *_ineffective(spec),
        *_blind(ahead),
        *_limits(spec),
    ]
    return sorted(found, key=lambda it: it.level is Level.WARNING)


def propose(spec: RolloutSpec, traffic: Traffic, *, champion: Behaviour = Behaviour()) -> RolloutSpec | None:  # noqa: B008
    """A spec like this one without an error, margins kept if a plan of at most a week a step can decide on them, else
    widened; None when there is none.
    """
    plan = _reachable(spec, traffic)
    if plan is None:
        return None
    wider = spec.model_copy(update={"judge": _judge_for(spec, plan)})
    if not metrics_of(wider):
        return None
    for _ in range(_WIDENINGS):
        better = wider.model_copy(update={"plan": [_with_useful_pairs(wider, step) for step in plan]})
        ahead = forecast(better, traffic, champion=champion, faults=False)
        deadlines = [_deadline_for(it) for it in ahead.steps]
        if all(deadlines):
            steps = [_with_deadline(it.step, limit or 0.0) for it, limit in zip(ahead.steps, deadlines, strict=True)]
            found = better.model_copy(update={"plan": steps})
            return RolloutSpec.model_validate(found.model_dump(by_alias=True, mode="json"))
        wider = _widened(wider, ahead)
    return None


# What is looked for


def _shares(spec: RolloutSpec, ahead: Forecast, traffic: Traffic) -> list[Finding]:
    """Weights that cannot be had without a proxy that draws each request."""
    found: list[Finding] = []
    if traffic.weighting_proxy:
        return found
    for index, it in enumerate(ahead.steps):
        if it.step.shadow:
            found.append(
                Finding(Level.ERROR, f"spec.plan[{index}].shadow", "without a proxy nothing copies requests",
                        "a weighting proxy, or a plan without a shadow")
            )  # fmt: skip
            continue
        path, weight = f"spec.plan[{index}].canary.weight", it.step.weight
        if not _close(it.share, weight):
            can = ", ".join(f"{share:.0%}" for share in shares_by_replicas(spec.replicas))
            found.append(
                Finding(
                    Level.ERROR, path,
                    f"{weight} % cannot be had by counting replicas: with {spec.replicas} of the champion beside the "
                    f"candidate's it is {can}",
                    f"{round(100 * it.share)}, or a weighting proxy",
                )
            )  # fmt: skip
        elif it.share_low <= 0 or it.share_high >= 1:
            found.append(
                Finding(
                    Level.ERROR, path,
                    f"{traffic.connections} connections are too few for {weight} %: a connection stays where it "
                    f"landed, so the candidate's share is anything from {it.share_low:.0%} to {it.share_high:.0%}",
                    "a weighting proxy, or more connections",
                )
            )  # fmt: skip
    return found


def _powerless(spec: RolloutSpec, ahead: Forecast) -> list[Finding]:
    """Deadlines that pass before the evidence can be there."""
    found = []
    for index, it in enumerate(ahead.steps):
        if it.in_time >= IN_TIME:
            continue
        kind, least_name = ("shadow", "minPairs") if it.step.shadow else ("canary", "minRequests")
        compared = it.step.deadline_s * it.compared_per_s
        needs = f"{least_name} alone takes {duration_text(math.ceil(least(it.step) / it.own_per_s))}"
        instead = f"a lower {least_name}: it takes more than a week"
        if it.metrics:
            slowest = max(it.metrics, key=lambda metric: metric.pairs_p90)
            if slowest.pairs_p90 > least(it.step):
                often = f"{slowest.pairs_p90:,.0f}" if math.isfinite(slowest.pairs_p90) else "more than two million"
                needs = f"{slowest.metric} {slowest.margin:g} needs {often} in 9 of 10 rollouts"
                wider = "a larger slices.minShare" if slowest.metric in slices_of(spec) else f"a wider {slowest.metric}"
                instead = f"{wider}: no plan of a week a step decides on this one"
        better = _deadline_for(it)
        found.append(
            Finding(
                Level.ERROR, f"spec.plan[{index}].{kind}.deadline",
                f"a candidate as good as the champion passes within {duration_text(it.step.deadline_s)} with a chance "
                f"of {it.in_time:.0%}: about {compared:,.0f} requests can be compared until then, and {needs}",
                duration_text(better) if better else instead,
            )
        )  # fmt: skip
    return found


def _ineffective(spec: RolloutSpec) -> list[Finding]:
    """Figures that decide nothing."""
    found = []
    needed, name = useful_pairs(spec)
    shadow = spec.plan[0].shadow
    if shadow and shadow.min_pairs < needed:
        found.append(
            Finding(
                Level.WARNING, "spec.plan[0].shadow.minPairs",
                f"{shadow.min_pairs} decides nothing: {name} cannot pass before {needed} pairs",
                str(_round_up(needed)),
            )
        )  # fmt: skip
    if spec.judge.margins.error_rate is None:
        sentence = "without errorRate only deaths of replicas stop a candidate that fails its requests"
        found.append(Finding(Level.WARNING, "spec.judge.margins", sentence, "errorRate: 0.02"))
    return found


def _blind(ahead: Forecast) -> list[Finding]:
    """Metrics whose grave faults may still be there when the deadline comes."""
    found = []
    for index, it in enumerate(ahead.steps):
        if it.in_time < IN_TIME:
            continue  # said already, and the better deadline finds more
        for metric in it.metrics:
            base = 1.0 if metric.metric in QUANTILES else 0.0
            if metric.fault is not None and metric.fault <= base + BLIND * (metric.margin - base):
                continue
            kind = "shadow" if it.step.shadow else "canary"
            sentence = (
                f"{metric.metric}: within {duration_text(it.step.deadline_s)} the smallest fault that 9 of 10 rollouts "
                f"find is {metric.words}; smaller ones end at the deadline"
            )
            found.append(Finding(Level.WARNING, f"spec.plan[{index}].{kind}.deadline", sentence))
    return found


def _limits(spec: RolloutSpec) -> list[Finding]:
    """What could promote on nothing."""
    found = []
    if spec.on_no_data is OnLimit.PROMOTE:
        sentence = "a step without any data counts as passed: a candidate that nobody saw could become champion"
        found.append(Finding(Level.WARNING, "spec.onNoData", sentence, "hold"))
    if spec.on_deadline is OnLimit.PROMOTE:
        sentence = "a step without a verdict counts as passed: beta bounds nothing any more"
        found.append(Finding(Level.WARNING, "spec.onDeadline", sentence, "abort"))
    return found


# What to write instead


def useful_pairs(spec: RolloutSpec) -> tuple[int, str]:
    """Equal pairs before which some metric of the shadow cannot pass, and which one; latencies have no such figure."""
    needs = {
        name: sequences.equal_pairs_to_pass(it.margin, spec.judge.beta)
        for name, it in metrics_of(spec).items()
        if it.margin > 0
    }
    name = max(needs, key=lambda it: needs[it], default="")
    return needs.get(name, 1), name


def _reachable(spec: RolloutSpec, traffic: Traffic) -> list[Step] | None:
    """The plan with shares that this traffic allows; None when no canary step is left."""
    if traffic.weighting_proxy:
        return list(spec.plan)
    plan: list[Step] = []
    for step in spec.plan:
        if not step.canary:
            continue
        share, low, high = real_share(step, spec.replicas, traffic)
        weight = step.weight if _close(share, step.weight) else round(100 * share)
        if low > 0 and high < 1 and weight > (plan[-1].weight if plan else 0):
            plan.append(step.model_copy(update={"canary": step.canary.model_copy(update={"weight": weight})}))
    return plan or None


def _with_useful_pairs(spec: RolloutSpec, step: Step) -> Step:
    if not step.shadow or step.shadow.min_pairs >= (needed := useful_pairs(spec)[0]):
        return step
    return step.model_copy(update={"shadow": step.shadow.model_copy(update={"min_pairs": _round_up(needed)})})


def _judge_for(spec: RolloutSpec, plan: list[Step]) -> Judge:
    """Without margins that only a shadow could judge, if the plan has none."""
    if plan[0].shadow:
        return spec.judge
    margins = spec.judge.margins.model_copy(update=dict.fromkeys(SHADOW_ONLY))
    sliced = any(getattr(margins, name) is not None for name in SLICED)
    return spec.judge.model_copy(update={"margins": margins, "slices": spec.judge.slices if sliced else None})


def _deadline_for(it: StepForecast) -> float | None:
    """The step's own deadline if it is long enough, else a better one; None when a week is too short."""
    if it.in_time >= (1 + IN_TIME) / 2:
        return it.step.deadline_s
    return next((nice for nice in _NICE_S if nice >= max(ROOM * it.seconds_p90, it.step.deadline_s)), None)


def _with_deadline(step: Step, deadline_s: float) -> Step:
    if step.shadow:
        return step.model_copy(update={"shadow": step.shadow.model_copy(update={"deadline": deadline_s})})
    assert step.canary
    return step.model_copy(update={"canary": step.canary.model_copy(update={"deadline": deadline_s})})


def _widened(spec: RolloutSpec, ahead: Forecast) -> RolloutSpec:
    """The margins that take too long, twice as wide; where slices do, waiting only for larger ones."""
    slow = {
        metric.metric
        for it in ahead.steps
        if _deadline_for(it) is None
        for metric in it.metrics
        if not ROOM * metric.pairs_p90 / it.compared_per_s <= _NICE_S[-1]
    }
    changes, (low, high) = {}, spec.judge.score_range
    widest = {**_WIDEST, "score_shift": 0.9 * (high - low), "score_delta": 0.9 * (high - low)}
    slices = spec.judge.slices
    if slices:
        widest |= {name: value / slices.margin_factor for name, value in widest.items() if name in SLICED}
        if slow & set(slices_of(spec)):
            slices = slices.model_copy(update={"min_share": min(1.0, 2 * slices.min_share)})
    for name, value in spec.judge.margins.__dict__.items():
        if value is not None and to_camel(name) in slow:
            base = 1.0 if to_camel(name) in QUANTILES else 0.0
            changes[name] = min(base + 2 * (value - base), widest.get(name, math.inf))
    margins = spec.judge.margins.model_copy(update=changes)
    return spec.model_copy(update={"judge": spec.judge.model_copy(update={"margins": margins, "slices": slices})})


def _close(share: float, weight: int) -> bool:
    return abs(share - weight / 100) <= max(NEAR, weight / 400)


def _round_up(figure: int) -> int:
    """To one digit and a half: 713 is 750."""
    unit = 10 ** max(0, len(str(figure)) - 1) // 2 or 1
    return math.ceil(figure / unit) * unit
