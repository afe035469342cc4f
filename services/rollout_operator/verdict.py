"""What a judge says: four answers, with the figures behind them."""

from __future__ import annotations

import enum

import msgspec


class Verdict(enum.StrEnum):
    """Of one metric, or of the whole evidence."""

    FAIL = "fail"  # surely beyond the margin
    PASS = "pass"  # surely within the margin  # noqa: S105
    WATCHING = "watching"  # could still be either
    NO_DATA = "no data"  # nothing to look at; never a pass and never a fail


class MetricVerdict(msgspec.Struct, frozen=True):
    """One metric: what was measured, and between which bounds it surely lies.

    Args:
        metric: as in the spec's margins, e.g. `errorRate`; its unit is the margin's.
        required: whether a step waits for its pass.
        estimate, lower, upper: None without data; a bound is None where the evidence gives none yet.
        observations: pairs, or requests of the candidate.
        sentence: all of it for a person.
    """

    metric: str
    verdict: Verdict
    required: bool
    margin: float
    estimate: float | None
    lower: float | None
    upper: float | None
    observations: int
    sentence: str


class Judgement(msgspec.Struct, frozen=True):
    """The whole: `fail` when one metric fails, `pass` when all required ones pass and the step's minimum is reached."""

    verdict: Verdict
    reason: str
    metrics: tuple[MetricVerdict, ...] = ()
