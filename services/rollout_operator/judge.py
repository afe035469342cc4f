"""The judge: from evidence and margins to fail, pass, watching or no data, with the figures. Pure.

Each metric is one or more means of differences between matched requests (evidence.py), each with a margin. A metric
fails when a lower bound of a mean is beyond the margin, and passes when all upper bounds are within. Bounds hold at all
looks together (sequences.py).

alpha is divided over metrics, and within one over its components and its slices (sliced.py): any of them could abort a
good candidate. beta is not divided: a candidate passes only when every metric does, so one that is beyond a margin
needs just that metric to err (intersection-union test; R. L. Berger, "Multiparameter hypothesis testing and acceptance
sampling", Technometrics 24, 1982).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flightdeck.contracts.rollout import Judge, Step
from services.rollout_operator.evidence import CANDIDATE, CHAMPION, Evidence
from services.rollout_operator.metrics import Metric, bounds, metrics_of
from services.rollout_operator.skew import Skew
from services.rollout_operator.sliced import by_slice, judged_by_slice
from services.rollout_operator.verdict import Judgement, MetricVerdict, Verdict

__all__ = ["judge", "metrics_of"]


def judge(settings: Judge, plan: Sequence[Step], step: int, evidence: Evidence) -> Judgement:
    """What the evidence says in this step of the plan."""
    metrics = metrics_of(settings)
    verdicts = [_judged(settings, plan, step, evidence, metric) for metric in metrics]
    if settings.slices:
        sliced = [metric for metric in metrics if metric.sliced(settings)]
        verdicts += [judged_by_slice(settings, plan, step, evidence, metric) for metric in sliced]
    by_verdict = {
        kind: [item for item in verdicts if item.verdict is kind and (item.required or kind is Verdict.FAIL)]
        for kind in Verdict
    }
    seen, least, what = _minimum(plan[step], step, evidence)
    counted = f"{seen:,} {what}"
    if failed := by_verdict[Verdict.FAIL]:
        verdict, reason = Verdict.FAIL, "; ".join(item.sentence for item in _telling(failed))
    elif absent := by_verdict[Verdict.NO_DATA]:
        verdict, reason = Verdict.NO_DATA, f"no data for {_names(absent)}; {counted} so far"
    elif open_ := by_verdict[Verdict.WATCHING]:
        verdict, reason = Verdict.WATCHING, f"{_names(open_)} could still be either after {counted}"
    elif seen < least:
        verdict, reason = Verdict.WATCHING, f"all metrics within their margins, {counted} of at least {least:,}"
    else:
        verdict, reason = Verdict.PASS, f"all metrics within their margins after {counted}"
    return Judgement(verdict, reason, tuple(verdicts))


def _telling(failed: Sequence[MetricVerdict]) -> list[MetricVerdict]:
    """Without the slices of a metric that fails over all answers: they tell the same again."""
    whole = {item.metric for item in failed}
    return [item for item in failed if not any(item.metric == by_slice(name) for name in whole)]


def _minimum(step: Step, index: int, evidence: Evidence) -> tuple[int, int, str]:
    """Seen in this step, at least to be seen, and what."""
    tally = evidence.tallies.get(index)
    if step.shadow:
        return (tally.pairs if tally else 0), step.shadow.min_pairs, "pairs"
    assert step.canary is not None
    return (tally.answers if tally else 0), step.canary.min_requests, "answers of the candidate"


def _names(items: Sequence[MetricVerdict]) -> str:
    return ", ".join(item.metric for item in items)


def _judged(settings: Judge, plan: Sequence[Step], step: int, evidence: Evidence, metric: Metric) -> MetricVerdict:
    """One metric: bounds of all its components, and the worst of them."""
    shadow = plan[step].shadow is not None
    ratio = getattr(settings.margins, metric.field)
    margin = 0.0 if metric.name.startswith("latency") else ratio / metric.unit
    required = metric.required and (shadow or not metric.shadow_only)
    parts = metric.parts or (metric.name,)
    if metric.anew:
        parts = (parts[0],) if shadow else (parts[1],)
    found = [series for part in parts if (series := evidence.series.get(part))]
    count = sum(sum(histogram.values()) for histogram in found[0].values()) if found else 0
    if not count:
        sentence = f"{metric.name}: no data" + ("" if required or not metric.required else " (shadow only)")
        return MetricVerdict(
            metric.name, Verdict.NO_DATA, required, margin * metric.unit, None, None, None, 0, sentence
        )
    alpha = metric.alpha(settings, plan)
    every = [
        bounds(series, len(plan), metric.lo, alpha, settings.beta, sign) for series in found for sign in metric.signs
    ]
    estimate, lower, upper = (max(values) for values in zip(*every, strict=True))
    verdict = Verdict.WATCHING
    if lower > margin:
        verdict = Verdict.FAIL
    elif upper < margin and len(found) == len(parts):
        verdict = Verdict.PASS
    figures = [value * metric.unit for value in (estimate, lower, upper)]
    words = SENTENCES.get(metric.name, _plain)(metric.name, ratio, figures, evidence, step)
    return MetricVerdict(
        metric=metric.name, verdict=verdict, required=required, margin=margin * metric.unit, estimate=figures[0],
        lower=figures[1], upper=figures[2], observations=count, sentence=f"{metric.name}: {words}, {count:,} compared",
    )  # fmt: skip


# -- sentences: (name, the spec's margin, [estimate, lower, upper] in its unit, evidence, step) -> words ------------

_Figures = Sequence[float]
_Words = Callable[[str, float, _Figures, Evidence, int], str]


def _plain(name: str, margin: float, figures: _Figures, evidence: Evidence, step: int) -> str:
    estimate, lower, upper = figures
    return f"{estimate:.3g}, surely {lower:.3g} to {upper:.3g}, margin {margin:g}"


def _shares(what: str) -> _Words:
    def words(name: str, margin: float, figures: _Figures, evidence: Evidence, step: int) -> str:
        estimate, lower, upper = (100 * value for value in figures)
        return f"{estimate:.2f} % {what}, surely {lower:.2f} to {upper:.2f} %, margin {100 * margin:g} %"

    return words


def _errors(name: str, margin: float, figures: _Figures, evidence: Evidence, step: int) -> str:
    counts = [tally.attempts for tally in evidence.tallies.values()]
    last = evidence.tallies.get(step)
    attempts = (last.attempts if last else counts[-1] if counts else {}) or {}
    told = ", ".join(
        f"{role} {attempts[role][1]:,} of {attempts[role][0]:,}" for role in (CANDIDATE, CHAMPION) if role in attempts
    )
    return _shares("more failed attempts than the champion")(name, margin, figures, evidence, step) + (
        f" (in this step {told})" if told else ""
    )


def _latency(name: str, margin: float, figures: _Figures, evidence: Evidence, step: int) -> str:
    quantile = name.removeprefix("latency").removesuffix("Ratio").lower()
    yard_us = evidence.yardsticks.get(quantile)
    yard = f" of {yard_us / 1e3:.1f} ms" if yard_us else ""
    estimate, lower, upper = (100 * value for value in figures)
    more = "more" if estimate > 0 else "less"
    return (
        f"above {margin:g} times the champion's {quantile}{yard} {abs(estimate):.1f} % {more} often than the champion "
        f"is above that, surely {lower:.1f} to {upper:.1f} %, margin 0 %"
    )


def _skew(name: str, margin: float, figures: _Figures, evidence: Evidence, step: int) -> str:
    words = _shares("of the pairs have a feature with two values")(name, margin, figures, evidence, step)
    worst = sorted(evidence.skew.items(), key=lambda item: -item[1].share)[:3]
    named = [_named(feature, skew) for feature, skew in worst if skew.unequal]
    return words + (f"; {'; '.join(named)}" if named else "")


def _named(feature: str, skew: Skew) -> str:
    times = f"is {skew.ratio:.4g} times the champion's" if skew.ratio is not None else "differs"
    return f"{feature} {times} in {skew.share:.0%} of the pairs"


SENTENCES: dict[str, _Words] = {
    "errorRate": _errors,
    "latencyP50Ratio": _latency,
    "latencyP99Ratio": _latency,
    "degradedRate": _shares("more degraded answers than the champion"),
    "labelFlips": _shares("of the decisions differ"),
    "featureSkew": _skew,
}
