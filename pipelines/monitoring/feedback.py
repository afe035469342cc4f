"""Feedback bias: do the answers change which outcomes are logged, or the outcomes themselves? Pure.

Two traces of it can be seen in a log, and both are looked for over the last four weeks:

* selective labels (Lakkaraju et al., The Selective Labels Problem, KDD 2017): outcomes are lost more often where the
  answer is high (or low). Measured as the difference of the lost share between the upper and the lower half of a
  day's scores;
* a jump at the decision threshold (regression discontinuity; Thistlethwaite and Campbell 1960; Imbens and Lemieux,
  Journal of Econometrics 2008): cases just above and just below it are alike but for the decision, so a step in label
  minus score right there is the decision's own effect.

Both are averaged over days and divided by the standard error between days, since the rows of a day are dependent; from
4.5 standard errors on it is an alarm (with 28 days about once in ten thousand looks).

What cannot be seen: an effect that is equal everywhere, one away from the threshold, users who never ask again, and
alternatives that were not taken. Only answers that are withheld or randomised on purpose would show those.
"""

from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
import polars as pl

from flightdeck.contracts.alarm import Check, Kind, Remedy, Status
from pipelines.data.labels import Maturity
from pipelines.monitoring.finding import Finding, Found, no_data

SPAN_DAYS = 28
LEAST_DAYS = 10
LEAST_ROWS = 20  # of a day, and 3 on each side of the threshold
NEAR = 0.1  # of the threshold
STANDARD_ERRORS = 4.5
LEAST_LOST, LEAST_JUMP = 0.02, 0.05  # smaller effects are not worth a word, however certain


@dataclasses.dataclass(frozen=True)
class _Effect:
    value: float
    error: float
    days: int
    rows: int


def feedback(rows: pl.DataFrame, *, decision_threshold: float | None) -> Found:
    """Both traces.

    Args:
        rows: the last 28 days of `with_labels`: `day_local`, `maturity`, `value`, `score`.
        decision_threshold: None: there is no decision, e.g. in a regression.
    """
    if rows.is_empty():
        return no_data(Kind.FEEDBACK, "outcomes", "no answers")
    newest = rows["day_local"].max()
    old = rows.filter(pl.col("maturity") != Maturity.WAITING.value)
    found = _judged(
        "lost outcomes", _lost(old), LEAST_LOST, newest,
        sentence="outcomes are lost {value:+.1%} more often where the score is in the upper half of its day",
        what_to_do="find out why outcomes go missing by score; until then quality is measured on a selection",
    )  # fmt: skip
    if decision_threshold is not None:
        matured = old.filter(pl.col("maturity") == Maturity.MATURED.value)
        found = found.add(
            _judged(
                "decisions", _jump(matured, decision_threshold), LEAST_JUMP, newest,
                sentence="outcomes step by {value:+.3f} at the threshold, where cases differ only by the decision",
                what_to_do="somebody acts on the answers: keep a share of cases untouched to measure and to train on",
            )
        )  # fmt: skip
    return found


def _judged(
    subject: str, effect: _Effect | None, least: float, newest: object, *, sentence: str, what_to_do: str
) -> Found:
    if effect is None:
        return no_data(Kind.FEEDBACK, subject, f"fewer than {LEAST_DAYS} days with enough matured answers")
    size = abs(effect.value) / effect.error if effect.error else 0.0
    alarm = size > STANDARD_ERRORS and abs(effect.value) > least
    words = sentence.format(value=effect.value)
    check = Check(
        kind=Kind.FEEDBACK, subject=subject, status=Status.ALARM if alarm else Status.OK, value=effect.value,
        threshold=max(least, STANDARD_ERRORS * effect.error), reason=f"{words} (± {2 * effect.error:.3f})",
    )  # fmt: skip
    if not alarm:
        return Found([check], [])
    assert isinstance(newest, dt.date)
    return Found(
        [check],
        [
            Finding(
                kind=Kind.FEEDBACK, subject=subject, since=newest - dt.timedelta(days=SPAN_DAYS - 1), rows=effect.rows,
                value=abs(effect.value), threshold=max(least, STANDARD_ERRORS * effect.error), false_per_month=0.01,
                sentence=words, how_sure=f"{size:.1f} standard errors between {effect.days} days",
                what_to_do=what_to_do, remedy=Remedy.LOOK,
            )
        ],
    )  # fmt: skip


def _lost(rows: pl.DataFrame) -> _Effect | None:
    differences, used = [], 0
    for part in rows.partition_by("day_local"):
        if part.height < LEAST_ROWS:
            continue
        score, lost = part["score"].to_numpy(), (part["maturity"] == Maturity.LOST.value).to_numpy()
        upper = score > np.median(score)
        if upper.any() and not upper.all():
            differences.append(float(lost[upper].mean() - lost[~upper].mean()))
            used += part.height
    return _effect(differences, used)


def _jump(rows: pl.DataFrame, threshold: float) -> _Effect | None:
    """Step of label minus score at the threshold, beside a slope that both sides share; days are the units."""
    near = rows.filter((pl.col("score") - threshold).abs() <= NEAR)
    days, used = [], 0
    for part in near.partition_by("day_local"):
        away = part["score"].to_numpy() - threshold
        if min((away >= 0).sum(), (away < 0).sum()) < 3:
            continue
        days.append((away, part["value"].to_numpy() - part["score"].to_numpy()))
        used += part.height
    if len(days) < LEAST_DAYS:
        return None

    def design(away: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(away)), away, away >= 0])

    # The day's own level is taken off first: a stormy day lifts both sides.
    x = np.concatenate([design(away) - design(away).mean(axis=0) for away, _ in days])[:, 1:]
    y = np.concatenate([error - error.mean() for _, error in days])
    inverse = np.linalg.pinv(x.T @ x)
    slope = inverse @ x.T @ y
    residual = y - x @ slope
    at, meat = 0, np.zeros((2, 2))
    for away, _ in days:  # standard errors that allow for dependence within a day (Liang and Zeger, Biometrika 1986)
        score = x[at : at + len(away)].T @ residual[at : at + len(away)]
        meat += np.outer(score, score)
        at += len(away)
    variance = (inverse @ meat @ inverse)[1, 1] * len(days) / (len(days) - 1)
    return _Effect(float(slope[1]), float(np.sqrt(variance)), len(days), used)


def _effect(differences: list[float], rows: int) -> _Effect | None:
    if len(differences) < LEAST_DAYS:
        return None
    error = float(np.std(differences, ddof=1) / np.sqrt(len(differences)))
    return _Effect(float(np.mean(differences)), error, len(differences), rows)
