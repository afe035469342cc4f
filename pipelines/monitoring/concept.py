"""Concept drift: outcomes follow the answers otherwise than on the holdout. Pure.

Two figures per matured day, against the days of the holdout: how well the answers tell outcomes apart (AUC, or RMSE),
and by how much they miss on average (label minus score). Each is summed up by a CUSUM (Page, Continuous Inspection
Schemes, Biometrika 1954): small losses add up over days, a large one is seen after two. When it began is where a step
fits best in the days since the sum was last zero (Hinkley, Inference about the Change-Point, Biometrika 1970).

A figure enters in standard deviations of the holdout's days, which hold the luck that the rows of a day share. The
slack of half of one forgives what nobody would retrain for; the uncertainty of the holdout's own mean comes on top.
The limit is the least that whole days drawn from the holdout stay below in all but a tenth of the simulated months.

Assumed: a clean day is exchangeable with the holdout's days. A season that the holdout did not see breaks that, and is
told as what it is: the model is worse than the gate measured.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Sequence

import numpy as np
import polars as pl

from flightdeck.contracts.alarm import Check, Kind, Remedy, Status
from flightdeck.contracts.model_spec import Task
from pipelines.gates.metrics import Floats, Ints, NotComputable, measure_of, point
from pipelines.monitoring.finding import Finding, Found, no_data
from pipelines.monitoring.quality import metric_error

LEAST_ROWS = 60  # of a day that counts
LEAST_DAYS = 10  # of the holdout
SLACK = 0.5  # standard deviations of a day
LOCATION = 1.5  # standard errors of the holdout's own mean, on top
LEAST_LIMIT = 5.0  # the textbook's for normal days (Montgomery, Introduction to Statistical Quality Control)
FALSE_PER_MONTH = 0.1  # of each of the two figures
MONTHS = 2000  # simulated per limit
WORST = 5.5  # standard deviations that a day counts at most: less than limit and slack, so one day never alarms


@dataclasses.dataclass(frozen=True)
class DayQuality:
    """One matured day. metric: AUC, higher is better, or RMSE; error: mean of label minus score.

    metric_noise, error_noise: standard errors from the number of rows alone.
    """

    day: int
    rows: int
    metric: float
    error: float
    mean_score: float
    mean_label: float
    metric_noise: float
    error_noise: float


@dataclasses.dataclass(frozen=True)
class Series:
    """One figure of the holdout's days: where it lies, how days move it, and the limit of its CUSUM."""

    mean: float
    deviation: float
    noise: float  # part of the deviation, of a typical day's rows
    slack: float
    limit: float


@dataclasses.dataclass(frozen=True)
class Promise:
    """What the holdout promised."""

    task: Task
    metric: Series
    error: Series


def day_quality(rows: pl.DataFrame, task: Task) -> list[DayQuality]:
    """Figures of each day with enough rows, in order; a day with one class only is left out.

    Args:
        rows: `day_local` (date), `value`, `score`; matured.
    """
    found = []
    for (day,), part in sorted(rows.partition_by("day_local", as_dict=True).items()):
        label, score = part["value"].to_numpy().astype(float), part["score"].to_numpy().astype(float)
        if len(label) < LEAST_ROWS:
            continue
        try:
            metric = point(measure_of(task, label, score, np.zeros(len(label))), 1)
        except NotComputable:
            continue
        difference = label - score
        found.append(
            DayQuality(
                dt.date.toordinal(day), len(label), metric, float(difference.mean()), float(score.mean()),
                float(label.mean()), metric_error(task, metric, label, score),
                float(difference.std() / math.sqrt(len(label))),
            )
        )  # fmt: skip
    return found


def promise(days: Sequence[DayQuality], task: Task, *, seed: int = 0) -> Promise:
    """What the days of the holdout promise.

    Raises:
        ValueError: fewer than LEAST_DAYS days.
    """
    if len(days) < LEAST_DAYS:
        raise ValueError(f"{len(days)} days of the holdout with enough rows; {LEAST_DAYS} are needed")
    sign = 1.0 if task is Task.REGRESSION else -1.0  # a loss counts upwards
    return Promise(
        task,
        _series(
            sign * np.array([item.metric for item in days]),
            np.array([item.metric_noise for item in days]),
            seed,
            two_sided=False,
        ),
        _series(
            np.array([item.error for item in days]), np.array([item.error_noise for item in days]), seed, two_sided=True
        ),
    )


def _series(values: Floats, noise: Floats, seed: int, *, two_sided: bool) -> Series:
    count = len(values)
    deviation = float(values.std(ddof=1)) * (1 + 1 / math.sqrt(2 * (count - 1)))  # its own standard error on top
    deviation = max(deviation, float(np.median(noise)), 1e-9)
    slack = SLACK + LOCATION / math.sqrt(count)
    standard = (values - values.mean()) / deviation
    drawn = np.random.default_rng(seed).choice(standard, size=(MONTHS, 30)).clip(-WORST, WORST)
    highest = np.max([_cusum(drawn * side, slack)[0].max(axis=1) for side in ((1, -1) if two_sided else (1,))], axis=0)
    limit = max(LEAST_LIMIT, float(np.quantile(highest, 1 - FALSE_PER_MONTH)))
    return Series(float(values.mean()), deviation, float(np.median(noise)), slack, limit)


def _cusum(standard: Floats, slack: float) -> tuple[Floats, Ints]:
    """Running sums that never fall below 0, and how many days each has been above: shapes as given, days last."""
    total, length = np.zeros(standard.shape), np.zeros(standard.shape, dtype=int)
    sum_so_far, days = np.zeros(standard.shape[:-1]), np.zeros(standard.shape[:-1], dtype=int)
    for day in range(standard.shape[-1]):
        sum_so_far = np.maximum(0.0, sum_so_far + standard[..., day] - slack)
        days = np.where(sum_so_far > 0, days + 1, 0)
        total[..., day], length[..., day] = sum_so_far, days
    return total, length


def concept(of: Promise, days: Sequence[DayQuality], *, unit: str) -> Found:
    """Concept drift up to the newest matured day.

    Args:
        days: matured ones, in order; where days are missing the sums wait.
        unit: of the label, for the words.
    """
    if not days:
        return no_data(Kind.CONCEPT, "outcomes", f"no matured day with {LEAST_ROWS} answers")
    sign = 1.0 if of.task is Task.REGRESSION else -1.0
    name = "RMSE" if of.task is Task.REGRESSION else "AUC"
    losses = np.array([sign * item.metric for item in days]), np.array([item.metric_noise for item in days])
    errors = np.array([item.error for item in days]), np.array([item.error_noise for item in days])
    found = Found()
    for subject, series, (values, noise), sides in (
        (name, of.metric, losses, (1.0,)),
        ("calibration", of.error, errors, (1.0, -1.0)),
    ):
        standard = _standard(series, values, noise)
        sums = [(_cusum(standard * side, series.slack), side) for side in sides]
        (total, length), side = max(sums, key=lambda item: float(item[0][0][-1]))
        value = float(total[-1])
        begun = _begun(standard * side, max(1, int(length[-1])))
        recent = days[-begun:]
        rows = sum(item.rows for item in recent)
        figure = (
            f"{name} {_mean(recent, 'metric'):.3f}"
            if subject == name
            else f"label minus score {_mean(recent, 'error'):+.3f} {unit}"
        )
        before = f"{abs(series.mean):.3f}" if subject == name else f"{series.mean:+.3f}"
        band = 2 * series.deviation / math.sqrt(len(recent))
        reason = f"{figure} over {len(recent)} day(s), {before} on the holdout (± {band:.3f} for so many days)"
        alarm = value > series.limit
        found.checks.append(
            Check(
                kind=Kind.CONCEPT, subject=subject, status=Status.ALARM if alarm else Status.OK, value=round(value, 3),
                threshold=round(series.limit, 3), reason=reason,
            )
        )  # fmt: skip
        if alarm:
            found.findings.append(
                Finding(
                    kind=Kind.CONCEPT, subject=subject, since=dt.date.fromordinal(recent[0].day), rows=rows,
                    value=round(value, 3), threshold=round(series.limit, 3), false_per_month=FALSE_PER_MONTH,
                    sentence=reason,
                    how_sure=f"the sum of daily losses is {value:.1f} standard deviations; days of the holdout stay "
                    f"below {series.limit:.1f} in nine of ten months",
                    what_to_do="no input is broken? Then the world moved: train on newer data; else mend it first",
                    remedy=Remedy.RETRAIN,
                )
            )  # fmt: skip
    return _together(found)


def _begun(standard: Floats, most: int) -> int:
    """How many days ago, at most so many, a step of unknown height fits best."""
    back = np.arange(1, most + 1)
    sums = np.cumsum(standard[::-1][:most])
    return int(back[(np.maximum(sums, 0) ** 2 / back).argmax()])


def _together(found: Found) -> Found:
    """One alarm when both figures moved: the earlier, with the other told."""
    if len(found.findings) < 2:
        return found
    first, second = sorted(found.findings, key=lambda item: -item.value / item.threshold)
    merged = dataclasses.replace(first, subject="outcomes", also=(f"{second.subject}: {second.sentence}",))
    return Found(found.checks, [merged])


def _standard(series: Series, values: Floats, noise: Floats) -> Floats:
    """In standard deviations of a day; a day of few rows counts less."""
    extra = np.maximum(0.0, noise**2 - series.noise**2)
    return ((values - series.mean) / np.sqrt(series.deviation**2 + extra)).clip(-WORST, WORST)


def _mean(days: Sequence[DayQuality], name: str) -> float:
    return float(np.average([getattr(item, name) for item in days], weights=[item.rows for item in days]))


def expected(of: Promise, days: Sequence[DayQuality], score: Floats, task: Task) -> Check:
    """What the answers alone say before their outcomes are in: the mean outcome that calibrated scores announce.

    Sound only while the calibration holds, which the newest matured days tell; it can show that the mix of cases moved,
    and never that the concept did (Garg et al., Leveraging Unlabeled Data to Predict Out-of-Distribution Performance,
    ICLR 2022, show that no such estimate can without assumptions). So it is reported and never alarms.
    """
    if not len(score):
        return no_data(Kind.CONCEPT, "expected outcomes", "no answers").checks[0]
    mean = float(np.mean(score))
    settled = concept(of, days, unit="") if days else None
    if settled is None or any(item.subject == "calibration" and item.status is Status.ALARM for item in settled.checks):
        why = "no matured day yet" if settled is None else "the newest matured days are out of calibration"
        return no_data(Kind.CONCEPT, "expected outcomes", f"{why}: the answers announce nothing").checks[0]
    what = "share of positives" if task is Task.CLASSIFICATION else "mean outcome"
    return Check(
        kind=Kind.CONCEPT, subject="expected outcomes", status=Status.REPORTED, value=mean, threshold=None,
        reason=f"calibrated answers announce a {what} of {mean:.3f}; their outcomes are not in yet",
    )  # fmt: skip
