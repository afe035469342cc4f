"""The judge: from evidence and margins to fail, pass, watching or no data, with the figures. Pure.

Each metric is one or more means of differences between matched requests (evidence.py), each with a margin. A metric
fails when a lower bound of a mean is beyond the margin, and passes when all upper bounds are within. Bounds hold at all
looks together (sequences.py).

alpha is divided over metrics, and within one over its components: any of them could abort a good candidate. beta is not
divided: a candidate passes only when every metric does, so one that is beyond a margin needs just that metric to err
(intersection-union test; R. L. Berger, "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24,
1982).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from flightdeck.contracts.rollout import SHADOW_ONLY, Judge, Step
from services.rollout_operator.evidence import CANDIDATE, CHAMPION, Evidence
from services.rollout_operator.sequences import Array, level, lower_bound, upper_bound
from services.rollout_operator.skew import Skew
from services.rollout_operator.verdict import Judgement, MetricVerdict, Verdict


@dataclasses.dataclass(frozen=True)
class Metric:
    """How one metric is judged.

    Args:
        field: of `Margins`. lo: smallest difference that is possible.
        unit: of the margin, in units of the difference; a latency ratio compares shares and its margin is 0.
        parts: series in the evidence; each counts as one component.
        two_sided: a mean below -margin is as bad as one above; doubles the components.
        anew: under weight it begins anew: a copy in the shadow and a user's request are different exposures.
        required: whether a step waits for its pass.
    """

    name: str
    field: str
    lo: float = -1.0
    unit: float = 1.0
    parts: tuple[str, ...] = ()
    two_sided: bool = False
    anew: bool = False
    required: bool = True

    @property
    def shadow_only(self) -> bool:
        """Whether only the shadow shows it."""
        return self.field in SHADOW_ONLY

    def components(self, plan: Sequence[Step]) -> int:
        """Tests that share its part of alpha; one that begins anew is tested in the shadow and under weight."""
        if self.anew:
            return 2 if plan[0].shadow else 1
        return (len(self.parts) or 1) * (2 if self.two_sided else 1)


def metrics_of(settings: Judge) -> list[Metric]:
    """Those with a margin, in the order of the schema."""
    low, high = settings.score_range
    every = [
        Metric("errorRate", "error_rate", parts=("errorRate/shadow", "errorRate/canary"), anew=True),
        Metric("latencyP50Ratio", "latency_p50_ratio"),
        Metric("latencyP99Ratio", "latency_p99_ratio"),
        Metric("degradedRate", "degraded_rate"),
        Metric(
            "scoreShift", "score_shift", unit=high - low, parts=("scoreShift/mean", "scoreShift/spread"), two_sided=True
        ),
        Metric("scoreDelta", "score_delta", lo=0.0, unit=high - low),
        Metric("labelFlips", "label_flips", lo=0.0),
        Metric("featureSkew", "feature_skew", lo=0.0),
        Metric("labelLoss", "label_loss", unit=high - low, required=False),
    ]
    return [metric for metric in every if getattr(settings.margins, metric.field) is not None]


def judge(settings: Judge, plan: Sequence[Step], step: int, evidence: Evidence) -> Judgement:
    """What the evidence says in this step of the plan."""
    metrics = metrics_of(settings)
    verdicts = [_judged(settings, plan, step, evidence, metric, settings.alpha / len(metrics)) for metric in metrics]
    by_verdict = {
        kind: [item for item in verdicts if item.verdict is kind and (item.required or kind is Verdict.FAIL)]
        for kind in Verdict
    }
    seen, least, what = _minimum(plan[step], step, evidence)
    counted = f"{seen:,} {what}"
    if failed := by_verdict[Verdict.FAIL]:
        verdict, reason = Verdict.FAIL, "; ".join(item.sentence for item in failed)
    elif absent := by_verdict[Verdict.NO_DATA]:
        verdict, reason = Verdict.NO_DATA, f"no data for {_names(absent)}; {counted} so far"
    elif open_ := by_verdict[Verdict.WATCHING]:
        verdict, reason = Verdict.WATCHING, f"{_names(open_)} could still be either after {counted}"
    elif seen < least:
        verdict, reason = Verdict.WATCHING, f"all metrics within their margins, {counted} of at least {least:,}"
    else:
        verdict, reason = Verdict.PASS, f"all metrics within their margins after {counted}"
    return Judgement(verdict, reason, tuple(verdicts))


def _minimum(step: Step, index: int, evidence: Evidence) -> tuple[int, int, str]:
    """Seen in this step, at least to be seen, and what."""
    tally = evidence.tallies.get(index)
    if step.shadow:
        return (tally.pairs if tally else 0), step.shadow.min_pairs, "pairs"
    assert step.canary is not None
    return (tally.answers if tally else 0), step.canary.min_requests, "answers of the candidate"


def _names(items: Sequence[MetricVerdict]) -> str:
    return ", ".join(item.metric for item in items)


def _judged(  # noqa: PLR0917 - all that it depends on
    settings: Judge, plan: Sequence[Step], step: int, evidence: Evidence, metric: Metric, alpha: float
) -> MetricVerdict:
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
    share = alpha / metric.components(plan)
    bounds = [
        _bounds(series, len(plan), metric.lo, share, settings.beta, sign)
        for series in found
        for sign in ((1, -1) if metric.two_sided else (1,))
    ]
    estimate, lower, upper = (max(values) for values in zip(*bounds, strict=True))
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


def _bounds(  # noqa: PLR0917 - all that it depends on
    series: dict[int, dict[int, int]], steps: int, lo: float, alpha: float, beta: float, sign: int
) -> tuple[float, float, float]:
    """Mean, lower and upper bound of one component; with sign -1 of the mean of -d."""
    slots = sorted({at for histogram in series.values() for at in histogram})
    levels: Array = sign * level(slots)
    counts = np.array([[series.get(step, {}).get(at, 0) for at in slots] for step in range(steps)], dtype=np.float64)
    since = np.cumsum(counts[::-1], axis=0)[::-1]  # since each step's beginning: a start for the test of failure
    total = since[0]
    low = float(lower_bound(since, levels, lo, alpha))
    high = float(upper_bound(total, levels, beta))
    return float(total @ levels / total.sum()), low, high


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
