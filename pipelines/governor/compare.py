"""The pre-test's answer: would training on recent data beat the champion? Pure: of scores on the same rows.

Compared is the score's root mean squared error (of a probability: the root of its Brier score), since that falls with
both what a model has to win: order and calibration. A champion that has lost its calibration keeps its AUC.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy.typing as npt

from flightdeck.contracts.model_spec import Gates, Task
from flightdeck.contracts.retrain import Answer, Pretest
from pipelines.gates.metrics import (
    Floats,
    NotComputable,
    RmseByDay,
    checked,
    day_numbers,
    interval,
    measure_of,
    point,
    resample,
)

SEED = 4


@dataclasses.dataclass(frozen=True)
class Scored:
    """The newest matured holdout as two models scored it; arrays of shape (rows,).

    small: scores of the small model. day: local dates. words: what the small model was trained on.
    """

    label: Floats
    day: npt.NDArray[Any]
    small: Floats
    champion: Floats
    version: str
    words: str
    train_rows: int


def answer(task: Task, unit: str, scored: Scored, gates: Gates, *, min_gain: float) -> Pretest:
    """Would win: the whole paired interval of the gain lies above `min_gain`; would not: it lies at or below it.

    The bootstrap draws whole days, for both models the same ones (`gates.bootstrap_rounds`, `gates.confidence`).
    What cannot be computed is "cannot tell", with the reason.
    """
    rows = len(scored.label)
    common: dict[str, Any] = {"champion": scored.version, "train_rows": scored.train_rows, "holdout_rows": rows}
    try:
        number, days = day_numbers(scored.day)
        small, champion = (
            RmseByDay.of(*checked(scored.label, score), number, days) for score in (scored.small, scored.champion)
        )
        counts = resample(days, gates.bootstrap_rounds, SEED)
        ours, theirs = point(small, days), point(champion, days)
        gain = interval(theirs - ours, champion.value(counts) - small.value(counts), gates.confidence)
    except NotComputable as error:
        return Pretest(answer=Answer.CANNOT_TELL, reason=f"{rows:,} rows: {error}", **common)
    assert gain.low is not None and gain.high is not None
    said = (
        f"RMSE of {scored.words} {ours:.4f}, of champion {scored.version} {theirs:.4f} on the same {rows:,} rows of "
        f"{days} days: gain {theirs - ours:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] {_unit(unit)}at "
        f"{gates.confidence:.0%}, must exceed {min_gain:g}{_auc(task, scored)}"
    )
    found = (
        Answer.WOULD_WIN if gain.low > min_gain else Answer.WOULD_NOT if gain.high <= min_gain else Answer.CANNOT_TELL
    )
    return Pretest(answer=found, reason=said, gain=gain, small_rmse=ours, champion_rmse=theirs, **common)


def _unit(unit: str) -> str:
    return "" if unit == "probability" else f"{unit} "


def _auc(task: Task, scored: Scored) -> str:
    """For the reader; the answer does not depend on it."""
    if task is not Task.CLASSIFICATION:
        return ""
    try:
        days = day_numbers(scored.day)[1]
        small, champion = (
            point(measure_of(task, scored.label, score, scored.day), days) for score in (scored.small, scored.champion)
        )
    except NotComputable:
        return ""
    return f" (AUC {small:.4f} against {champion:.4f})"


def nothing_to_beat() -> Pretest:
    """Without a champion."""
    return Pretest(answer=Answer.WOULD_WIN, reason="there is no champion yet: whatever passes the gates is a gain")


def not_made(reason: str, champion: str) -> Pretest:
    """When the small model could not be made."""
    return Pretest(answer=Answer.CANNOT_TELL, reason=reason, champion=champion)
