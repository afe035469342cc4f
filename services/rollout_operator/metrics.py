"""The metrics that a judge knows: how each is counted, on which sides it is tested, and its bounds. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from flightdeck.contracts.rollout import SHADOW_ONLY, SLICED, Judge, Step
from services.rollout_operator.sequences import Array, level, lower_bound, upper_bound


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

    @property
    def signs(self) -> tuple[int, ...]:
        """Sides of each part that are tested."""
        return (1, -1) if self.two_sided else (1,)

    def components(self, plan: Sequence[Step]) -> int:
        """Tests that share its part of alpha; one that begins anew is tested in the shadow and under weight."""
        if self.anew:
            return 2 if plan[0].shadow else 1
        return (len(self.parts) or 1) * len(self.signs)

    def sliced(self, settings: Judge) -> bool:
        """Whether it is judged by slice too."""
        return settings.slices is not None and self.field in SLICED

    def alpha(self, settings: Judge, plan: Sequence[Step]) -> float:
        """Of each test over all answers: half of the metric's part where slices have the other half."""
        part = settings.alpha / len(metrics_of(settings)) / self.components(plan)
        return part / 2 if self.sliced(settings) else part

    def alpha_of_slice(self, settings: Judge, plan: Sequence[Step]) -> float:
        """Of each test of each slice. The number of slices is fixed before anything is seen, the common one included;
        which value gets which of them may come with the traffic."""
        slices = settings.slices
        assert slices
        return self.alpha(settings, plan) / len(slices.by) / (slices.max_values + 1)


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


def counts_of(every: Sequence[dict[int, dict[int, int]]], steps: int) -> tuple[Array, list[int]]:
    """Series as an array, shape (len(every), steps, n_slots), and the slots that occur in any of them."""
    slots = sorted({at for series in every for histogram in series.values() for at in histogram})
    found = [[[series.get(step, {}).get(at, 0) for at in slots] for step in range(steps)] for series in every]
    return np.array(found, dtype=np.float64).reshape(len(every), steps, len(slots)), slots


def since_each_step(counts: Array) -> Array:
    """What came since each step's beginning, a start for the test of failure; shape (..., steps, n_slots)."""
    return np.asarray(np.cumsum(counts[..., ::-1, :], axis=-2)[..., ::-1, :])


def bounds(  # noqa: PLR0917 - all that it depends on
    series: dict[int, dict[int, int]], steps: int, lo: float, alpha: float, beta: float, sign: int
) -> tuple[float, float, float]:
    """Mean, lower and upper bound of one component; with sign -1 of the mean of -d."""
    (counts,), slots = counts_of([series], steps)
    levels = sign * level(slots)
    since = since_each_step(counts)
    low = float(lower_bound(since, levels, lo, alpha))
    high = float(upper_bound(since[0], levels, beta))
    return float(since[0] @ levels / since[0].sum()), low, high
