"""The metrics as simulator and forecast count them: levels, margins, alpha; of all answers and of a slice. Pure."""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
import numpy.typing as npt

from flightdeck.contracts.rollout import RolloutSpec
from services.rollout_operator import metrics, sequences
from services.rollout_operator.evidence import TAIL_ROWS, YARDSTICK_ROWS
from services.rollout_operator.sliced import by_slice
from services.rollout_operator.slices import GRAIN

Counts = npt.NDArray[np.float64]
QUANTILES = {"latencyP50Ratio": (0.5, YARDSTICK_ROWS), "latencyP99Ratio": (0.99, TAIL_ROWS)}  # answers before it
SIGNS = np.array([-1.0, 0.0, 1.0])
LEVELS = sequences.level(np.arange(sequences.SLOTS))


class Said(enum.IntEnum):
    """A verdict as a number, so that an array can hold many."""

    NO_DATA = 0
    WATCHING = 1
    PASS = 2
    FAIL = 3


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric of judge.py: how its differences are counted, and what its mean must stay below.

    Args:
        levels: values that its differences can have, rising.
        parts: means that are tested, each on both sides if the rule says so; `alpha` is the share of each test.
        share: of the compared requests that it gets; below 1 for a slice that is just large enough to be waited for.
        pieces: how many such slices there can be.
    """

    rule: metrics.Metric
    levels: Counts
    parts: int
    margin: float
    alpha: float
    share: float = 1.0
    pieces: int = 1


def metrics_of(spec: RolloutSpec) -> dict[str, Metric]:
    """Those that a step may wait for, in the order of the schema. Outcomes are not simulated."""
    found, rules = {}, metrics.metrics_of(spec.judge)
    for rule in rules:
        if rule.required:
            fine = rule.name in ("scoreShift", "scoreDelta")
            levels = LEVELS if fine else SIGNS
            given = getattr(spec.judge.margins, rule.field) / rule.unit
            found[rule.name] = Metric(
                rule,
                levels[levels >= rule.lo],
                parts=len(rule.parts) if rule.two_sided else 1,
                margin=0.0 if rule.name in QUANTILES else given,
                alpha=rule.alpha(spec.judge, spec.plan),
            )
    return found


def slices_of(spec: RolloutSpec) -> dict[str, Metric]:
    """The same of a slice, by what sliced.py calls them; empty when the judge looks at none."""
    found, slices = {}, spec.judge.slices
    for name, it in metrics_of(spec).items() if slices else ():
        assert slices
        if it.rule.sliced(spec.judge):
            levels = it.levels if it.levels.size <= SIGNS.size else LEVELS[::GRAIN][LEVELS[::GRAIN] >= it.rule.lo]
            pieces = min(int(1 / slices.min_share), slices.max_values + 1) * len(slices.by)
            found[by_slice(name)] = dataclasses.replace(
                it, levels=levels, margin=it.margin * slices.margin_factor, share=slices.min_share, pieces=pieces,
                alpha=it.rule.alpha_of_slice(spec.judge, spec.plan),
            )  # fmt: skip
    return found
