"""Train/serve skew: served feature vectors against a recomputation as of the request, and the cause by name. Pure.

The comparison is exact, value by value: no distribution is assumed, and a clean system differs in no row. Causes are
looked for in the order of what they explain: a view that was missing or stale explains all of its features at once;
then columns in another order; then what one function of the right value explains: a cut type, a shift, a factor,
anything that keeps the order of values.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from flightdeck.contracts.alarm import Cause, Check, Kind, Remedy, Status
from pipelines.monitoring.finding import Finding, Found, no_data

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

RELATIVE, ABSOLUTE = 1e-5, 1e-6  # float32 sums in another order differ by less
LEAST_ROWS = 20
TOLERATED_SHARE, TOLERATED_ROWS = 0.02, 3  # a row may be corrected between the answer and its recomputation
NEARLY_ALL = 0.95
SHIFTS = 3  # a clock's shift wraps at midnight: two differences, three with a spring night
LEAST_SAME_NAME = 10  # wrong rows from which a function is named

WHAT_TO_DO = {
    Cause.MISSING: "the online store had nothing: run the materialization, compare the keys written and asked for",
    Cause.STALE: "the online store lags behind: look at the materialization and the stream of {view}",
    Cause.ORDER: "the vector is put together in another order: compare the manifest with the service's code",
    Cause.TYPE: "the value is cut on its way to the model: look at the types of the store and the request",
    Cause.UNIT: "serving and training speak two units: mend the conversion; train anew only if training had it wrong",
    Cause.TRANSFORM: "serving runs another version of the transform: deploy the code that the model was trained with",
    Cause.CONSTANT: "the value stands still on its way to the model: look at what writes and reads {view}",
    Cause.VALUE: "serving and training compute it differently: recompute one answer by hand",
}


@dataclasses.dataclass(frozen=True)
class Compared:
    """A sample of answers of one day beside their recomputation; n rows, F features.

    Args:
        views: feature -> its view. stored: features that come from a store; the others are computed from the request.
        served, recomputed: shape (n, F); defaults stand for what is not known.
        defaults: shape (F,).
        age_s: stored view -> age of the served values, shape (n,), NaN where there were none.
        lag_s: stored view -> by how much the served values are older than what was known, shape (n,); NaN where
            they are those of no earlier time.
        max_age_s: stored view -> what the policy accepts.
        uncompared: answers of the sample that could not be recomputed, and why, for the words.
    """

    names: tuple[str, ...]
    views: Mapping[str, str]
    stored: frozenset[str]
    served: Floats
    recomputed: Floats
    defaults: Floats
    age_s: Mapping[str, Floats]
    lag_s: Mapping[str, Floats]
    max_age_s: Mapping[str, float]
    uncompared: str = ""

    def at(self, view: str) -> list[int]:
        """Columns of a view."""
        return [at for at, name in enumerate(self.names) if self.views[name] == view]


@dataclasses.dataclass(frozen=True)
class _Named:
    """What explains wrong rows of some features of one view."""

    cause: Cause
    view: str
    features: tuple[str, ...]
    rows: int
    words: str
    tolerated: bool = False


def skew(of: Compared, day: dt.date) -> Found:
    """Skew of one day: a finding per view and cause; the check tells how many answers were compared."""
    rows = len(of.served)
    if rows < LEAST_ROWS:
        reason = f"{rows} answers could be recomputed; {LEAST_ROWS} are needed" + (
            f"; {of.uncompared}" if of.uncompared else ""
        )
        return no_data(Kind.SKEW, "served features", reason)
    wrong = ~same(of.served, of.recomputed)
    least = max(TOLERATED_ROWS, TOLERATED_SHARE * rows)
    named = causes(of, wrong)
    alarms = [item for item in named if not item.tolerated and item.rows > least]
    other = [item for item in named if item.tolerated or item.rows <= least]
    share = float(wrong.any(axis=1).mean())
    words = "; ".join(item.words for item in named) or "every value equals its recomputation"
    status = Status.ALARM if alarms else Status.REPORTED if other else Status.OK
    reason = f"{rows} answers recomputed: {words}" + (f"; {of.uncompared}" if of.uncompared else "")
    check = Check(
        kind=Kind.SKEW, subject="served features", status=status, value=share, threshold=least / rows, reason=reason
    )
    return Found([check], [_finding(item, rows, least, day) for item in alarms])


def _finding(item: _Named, rows: int, least: float, day: dt.date) -> Finding:
    return Finding(
        kind=Kind.SKEW, cause=item.cause, subject=item.view, features=item.features, since=day, rows=item.rows,
        value=item.rows / rows, threshold=least / rows, sentence=item.words,
        how_sure=f"{item.rows} of {rows} recomputed answers; the comparison is exact, clean serving differs in none",
        what_to_do=WHAT_TO_DO[item.cause].format(view=item.view), remedy=Remedy.INCIDENT,
    )  # fmt: skip


def same(a: Floats, b: Floats) -> Flags:
    """Whether values are equal but for float32 rounding."""
    return np.isclose(a, b, rtol=RELATIVE, atol=ABSOLUTE)


def causes(of: Compared, wrong: Flags) -> list[_Named]:
    """Every explanation of the wrong values, shape (n, F)."""
    found: list[_Named] = []
    left = wrong.copy()
    for view in dict.fromkeys(of.views[name] for name in of.names if name in of.stored):
        for item, rows in _of_view(of, view, wrong):
            found.append(item)
            for column in of.at(view):
                left[rows, column] = False
    moved, places = _order(of, left)
    found += moved
    left[:, places] = False
    by_cause: dict[tuple[Cause, str], list[tuple[str, int, str]]] = {}
    for at in np.flatnonzero(left.any(axis=0)):
        chosen = left[:, at]
        cause, words = function_of(of.recomputed[chosen, at], of.served[chosen, at], float(of.defaults[at]))
        name = of.names[at]
        by_cause.setdefault((cause, of.views[name]), []).append((name, int(chosen.sum()), words))
    for (cause, view), items in by_cause.items():
        items.sort(key=lambda item: -item[1])
        told = ", ".join(f"{name} {words}" for name, _, words in items[:4])
        found.append(_Named(cause, view, tuple(name for name, _, _ in items), items[0][1], told))
    return found


def _of_view(of: Compared, view: str, wrong: Flags) -> list[tuple[_Named, npt.NDArray[np.intp]]]:
    """A stored view that was missing, or stale, and the rows that this explains."""
    columns = of.at(view)
    touched = wrong[:, columns].any(axis=1)
    defaults = same(of.served[:, columns], of.defaults[columns]).all(axis=1)
    age, lag, most = of.age_s[view], of.lag_s[view], of.max_age_s[view]
    too_old = np.nan_to_num(age, nan=-1.0) > most
    features = tuple(of.names[at] for at in columns if wrong[touched, at].any())
    found = []
    missing = np.flatnonzero(touched & defaults & ~too_old & ~(lag > 0))
    if len(missing):
        found.append(
            (
                _Named(Cause.MISSING, view, features, len(missing), f"{view} was missing, its defaults were served"),
                missing,
            )
        )
    stale = np.flatnonzero(touched & ((defaults & too_old) | (~defaults & (lag > 0))))
    if len(stale):
        behind = float(np.median(np.where(too_old[stale], age[stale], lag[stale])))
        tolerated = not too_old[stale].any() and bool((age[stale] <= most).all())
        words = f"{view} is {behind / 3600:.1f} h behind" + (" (the policy accepts that)" if tolerated else "")
        found.append((_Named(Cause.STALE, view, features, len(stale), words, tolerated), stale))
    return found


def _order(of: Compared, left: Flags) -> tuple[list[_Named], list[int]]:
    """Features that hold another feature's value, and their columns."""
    suspects = [int(at) for at in np.flatnonzero(left.sum(axis=0) >= LEAST_SAME_NAME)]
    taken: dict[int, int] = {}
    for at in suspects:
        off = left[:, at]
        served = of.served[off, at]
        if len(np.unique(served)) < 2:
            continue
        matches = same(of.recomputed[off], served[:, None]).mean(axis=0)
        matches[at] = 0
        if matches.max() >= NEARLY_ALL:
            taken[at] = int(matches.argmax())
    places = sorted(taken)
    if not places:
        return [], []
    words = ", ".join(f"{of.names[at]} holds {of.names[taken[at]]}" for at in places[:6])
    views = {of.views[of.names[at]] for at in places}
    rows = int(left[:, places].any(axis=1).sum())
    view = views.pop() if len(views) == 1 else "vector"
    return [_Named(Cause.ORDER, view, tuple(of.names[at] for at in places), rows, words)], places


def function_of(right: Floats, served: Floats, default: float) -> tuple[Cause, str]:
    """Which function of the right values was served: the cause, and words for it. Of wrong rows only."""
    for cause, words in (
        _default(served, default),
        _constant(right, served),
        _cut(right, served),
        _shift(right, served),
        _linear(right, served),
        _keeps_order(right, served),
    ):
        if cause is not None:
            return cause, words
    return Cause.VALUE, f"differs in {len(right)} answers, e.g. {served[0]:g} instead of {right[0]:g}"


_Answer = tuple[Cause | None, str]


def _default(served: Floats, default: float) -> _Answer:
    missing = same(served, np.full(len(served), default)).mean() >= NEARLY_ALL
    return (Cause.MISSING if missing else None), f"was missing, its default {default:g} was served"


def _constant(right: Floats, served: Floats) -> _Answer:
    stands = len(right) >= LEAST_SAME_NAME and len(np.unique(right)) >= 3 and np.ptp(served) == 0
    return (Cause.CONSTANT if stands else None), f"stands at {served[0]:g}"


def _cut(right: Floats, served: Floats) -> _Answer:
    for how, cut in (("cut to", np.trunc(right)), ("rounded to", np.round(right)), ("cut to", np.floor(right))):
        if same(served, cut).mean() >= NEARLY_ALL:
            return Cause.TYPE, f"is {how} a whole number"
    half = right.astype(np.float16).astype(float)
    return (Cause.TYPE if same(served, half).mean() >= NEARLY_ALL else None), "is cut to half precision"


def _shift(right: Floats, served: Floats) -> _Answer:
    """One difference for all, or few where the value wraps; the right values must vary, or it may be a factor."""
    if len(right) < LEAST_SAME_NAME or len(np.unique(right)) < 3:
        return None, ""
    scale = max(float(np.abs(right).max()), float(np.abs(served).max()), 1e-6)
    differences, counts = np.unique(np.round((served - right) / scale, 4), return_counts=True)
    ordered = np.argsort(-counts)
    few = counts[ordered[:SHIFTS]].sum() >= NEARLY_ALL * len(right) and len(np.unique(right)) > 2 * SHIFTS
    common = float(np.median((served - right)[np.round((served - right) / scale, 4) == differences[ordered[0]]]))
    return (Cause.TRANSFORM if few or len(differences) == 1 else None), f"is shifted by {common:+g}"


def _linear(right: Floats, served: Floats) -> _Answer:
    if len(right) < LEAST_SAME_NAME or len(np.unique(right)) < 3:
        return None, ""
    factor, offset = np.polyfit(right, served, 1)
    spread = max(float(np.ptp(served)), 1e-9)
    if (np.abs(served - factor * right - offset) > 1e-3 * spread).mean() > 1 - NEARLY_ALL or abs(factor) < 1e-9:
        return None, ""
    added = f" {offset:+.4g}" if abs(offset) > 1e-3 * spread else ""
    return (Cause.UNIT if factor > 0 else Cause.TRANSFORM), f"is {factor:.4g} times the right value{added}"


def _keeps_order(right: Floats, served: Floats) -> _Answer:
    """Equal values stay equal, and their order is kept or turned around: some other function of the same input."""
    values, first = np.unique(right, return_index=True)
    if len(right) < LEAST_SAME_NAME or len(values) < 5:
        return None, ""
    image = served[first]
    single = same(served, image[np.searchsorted(values, right)]).mean() >= NEARLY_ALL
    steps = np.diff(image)
    monotone = max((steps >= 0).mean(), (steps <= 0).mean()) >= NEARLY_ALL and len(np.unique(image)) >= 3
    return (Cause.TRANSFORM if single and monotone else None), "is another function of the right value"
