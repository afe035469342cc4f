"""The judge's verdict over slices: one for each metric, whatever the number of slices, with the worst one named. Pure.

Each slice is tested as all answers are, with its own wider margin. Any slice that is surely beyond it fails, however
few its answers are. A step waits for the pass of the slices that have a good share of the answers: a smaller one could
not be bounded in any reasonable time.

- alpha: the metric's half for slices is divided over keys and over `maxValues + 1` slices of each: that many tests and
  no more, fixed before the first look. A slice's test begins with its first answer, which cannot depend on what comes
  after, so Ville's inequality holds for each and their sum for all (Bonferroni).
- beta is not divided: to be promoted a candidate that is beyond some slice's margin needs just that slice to err.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from flightdeck.contracts.rollout import Judge, Slices, Step
from services.rollout_operator.evidence import Evidence
from services.rollout_operator.metrics import Metric, bounds, counts_of, since_each_step
from services.rollout_operator.sequences import Array, level, log_capital_above, log_capital_below
from services.rollout_operator.slices import Slice
from services.rollout_operator.verdict import MetricVerdict, Verdict


def by_slice(name: str) -> str:
    """What the verdict over a metric's slices is called."""
    return f"{name} by slice"


@dataclasses.dataclass(frozen=True)
class _Part:
    """One component on one side, of all slices that have data for it.

    Args:
        names: "key=value" of each. above, below: log capital of either gambler, shape (n_slices,).
    """

    name: str
    sign: int
    names: list[str]
    above: Array
    below: Array


def judged_by_slice(
    settings: Judge, plan: Sequence[Step], step: int, evidence: Evidence, metric: Metric
) -> MetricVerdict:
    """One metric over all its slices."""
    slices = settings.slices
    assert slices
    margin = getattr(settings.margins, metric.field) * slices.margin_factor
    required = metric.required and (plan[step].shadow is not None or not metric.shadow_only)
    every = {f"{key}={value}": it for key, values in evidence.slices.items() for value, it in values.items()}
    waited = waited_for(evidence, slices)
    parts = [
        _part(name, sign, every, metric, margin / metric.unit, len(plan))
        for name in metric.parts or (metric.name,)
        for sign in metric.signs
    ]
    seen = {name for part in parts for name in part.names}
    called = by_slice(metric.name)
    untold = [key for key in slices.by if not evidence.slices.get(key)]
    if untold or not seen:  # a key that no answer tells must not pass as one whose slices are all well
        told = f"no answer tells its {' or '.join(untold)}" if untold else "no data"
        return MetricVerdict(called, Verdict.NO_DATA, required, margin, None, None, None, 0, f"{called}: {told}")
    alpha = metric.alpha_of_slice(settings, plan)
    sure = {sign: -np.log(level_) for sign, level_ in (("above", alpha), ("below", settings.beta))}
    beyond = {name for it in parts for name, log in zip(it.names, it.above, strict=True) if log >= sure["above"]}
    within = {
        name for name in seen
        if all(name in it.names and it.below[it.names.index(name)] >= sure["below"] for it in parts)
    }  # fmt: skip
    if beyond:
        verdict, shown = Verdict.FAIL, _most(parts, "above", beyond)
    elif waited <= within:
        verdict, shown = Verdict.PASS, _most(parts, "below", waited or seen)
    else:
        verdict, shown = Verdict.WATCHING, _most(parts, "below", (waited & seen) - within or seen)
    part, name = shown
    series = every[name].series[part.name]
    figures = bounds(series, len(plan), metric.lo, alpha, settings.beta, part.sign)
    estimate, lower, upper = (value * metric.unit for value in figures)
    count = sum(sum(histogram.values()) for histogram in series.values())
    others = f"; {len(beyond)} of {len(every)} slices are beyond" if len(beyond) > 1 else ""
    if not beyond:
        others = (
            f"; {len(waited & within)} of {len(waited)} slices that the step waits for are within, {len(every)} in all"
        )
    words = f"{estimate:.3g}, surely {lower:.3g} to {upper:.3g}, margin {margin:g}, {count:,} compared{others}"
    return MetricVerdict(called, verdict, required, margin, estimate, lower, upper, count, f"{called}: {name} {words}")


def waited_for(evidence: Evidence, slices: Slices) -> set[str]:
    """Slices with enough of the compared requests that tell the key, over all steps so far."""
    found: set[str] = set()
    for key, values in evidence.slices.items():
        total = sum(it.pairs for it in values.values())
        found |= {f"{key}={value}" for value, it in values.items() if it.pairs and it.pairs >= slices.min_share * total}
    return found


def _part(name: str, sign: int, every: dict[str, Slice], metric: Metric, margin: float, steps: int) -> _Part:  # noqa: PLR0917
    having = {key: series for key, it in every.items() if (series := it.series.get(name))}
    if not having:
        return _Part(name, sign, [], np.zeros(0), np.zeros(0))
    counts, slots = counts_of(list(having.values()), steps)
    levels, since = sign * level(slots), since_each_step(counts)
    above = log_capital_above(since, levels, margin, metric.lo)
    return _Part(name, sign, list(having), above, log_capital_below(since[:, 0], levels, margin))


def _most(parts: Sequence[_Part], which: str, among: set[str]) -> tuple[_Part, str]:
    """The worst: where the gambler against it has most, or the one for it least."""
    found = [
        (float(it.above[at] if which == "above" else -it.below[at]), number, name)
        for number, it in enumerate(parts)
        for at, name in enumerate(it.names)
        if name in among
    ]
    _, number, name = max(found)
    return parts[number], name
