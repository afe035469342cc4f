"""A day's inputs of one model version against what is usual: drift, constants, outliers, new categories. Pure."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from flightdeck.contracts.alarm import Check, Kind, Remedy, Status
from pipelines.monitoring.finding import Finding, Found, no_data
from pipelines.monitoring.limits import WINDOWS_DAYS, stability_index
from pipelines.monitoring.profile import DayProfile, Floats, Vectors, shares_of, unseen_share
from pipelines.monitoring.watch import RARE, Watch, run_of_one_value

LEAST_ROWS = 25  # of a day: fewer say nothing
OUTLIER_ROWS, OUTLIER_SHARE = 3, 0.002
BEYOND_SHARE = 0.5  # of a day's rows beyond the training range
UNSEEN_ROWS, UNSEEN_SHARE = 5, 0.01


def inputs(of: Watch, rows: Vectors, recent: Sequence[DayProfile]) -> Found:
    """All checks of the inputs of one day.

    Args:
        rows: of the day.
        recent: profiles of the days up to and with this one, in order; days without rows are absent.
    """
    found = Found()
    if len(rows.values) < LEAST_ROWS:
        reason = f"{len(rows.values)} rows; at least {LEAST_ROWS} are needed"
        for kind in (Kind.DRIFT, Kind.CONSTANT, Kind.OUTLIERS, Kind.UNSEEN):
            found = found.add(no_data(kind, "inputs", reason))
        return found
    return found.add(drifted(of, recent)).add(standing(of, recent)).add(outlying(of, rows)).add(unseen(of, rows))


def drift_ratios(of: Watch, profile: DayProfile) -> Floats:
    """How far the day moved, by the furthest training day; shape (F,)."""
    return stability_index(shares_of(profile.below, profile.rows)) / of.limits.scale(1)


def drifted(of: Watch, recent: Sequence[DayProfile]) -> Found:
    """Data drift over the last 1, 3 and 7 days: one finding per view, the checks of every window length."""
    by_view: dict[str, list[tuple[float, str, int, float]]] = {}
    checks = []
    today = recent[-1].day
    for days in WINDOWS_DAYS:
        window = [item for item in recent if item.day > today - days]
        if len(window) < days:
            reason = f"{len(window)} of the last {days} days have rows"
            checks += no_data(Kind.DRIFT, f"inputs over {days} d", reason).checks
            continue
        rows = sum(item.rows for item in window)
        try:
            limit = of.limits.of(days, rows / days)
        except ValueError as error:
            checks += no_data(Kind.DRIFT, f"inputs over {days} d", str(error)).checks
            continue
        index = stability_index(shares_of(np.sum([item.below for item in window], axis=0), rows))
        ratio = of.limits.ratios(index, limit)
        furthest = int(ratio.argmax())
        beyond = list(np.flatnonzero(ratio > limit.most))
        for at in beyond:
            name = of.names[at]
            by_view.setdefault(of.views.get(name, name), []).append((ratio[at] / limit.most, name, days, limit.most))
        seasonal = [
            name for at, name in enumerate(of.names) if not of.limits.watched[at] and index[at] > of.limits.usual[at]
        ]
        words = f"; moved, and bound to the season: {', '.join(seasonal)}" if seasonal else ""
        status = Status.ALARM if beyond else Status.REPORTED if seasonal else Status.OK
        checks.append(
            Check(
                kind=Kind.DRIFT, subject=f"inputs over {days} d", status=status, value=float(ratio[furthest]),
                threshold=limit.most, reason=f"{of.names[furthest]} moved furthest of those watched{words}",
            )
        )  # fmt: skip
    return Found(checks, [_drift(of, recent, view, hits) for view, hits in by_view.items()])


def _drift(of: Watch, recent: Sequence[DayProfile], view: str, hits: list[tuple[float, str, int, float]]) -> Finding:
    """The finding of one view: its features by how far they are beyond the limit."""
    best: dict[str, tuple[float, int, float]] = {}
    for beyond, name, days, most in hits:
        if name not in best or beyond > best[name][0]:
            best[name] = (beyond, days, most)
    ordered = sorted(best, key=lambda name: -best[name][0])
    first = ordered[0]
    beyond, days, most = best[first]
    at = of.names.index(first)
    index = np.array([stability_index(shares_of(item.below, item.rows))[at] for item in recent])
    since = _since(recent, index > of.limits.usual[at], days)
    rows = sum(item.rows for item in recent if item.day >= since.toordinal())
    direction = _direction(of, recent[-days:], at)
    return Finding(
        kind=Kind.DRIFT,
        subject=view,
        features=tuple(ordered),
        since=since,
        rows=rows,
        value=round(beyond * most, 3),
        threshold=round(most, 3),
        false_per_month=of.limits.false_per_month,
        sentence=f"{first} {direction} over {days} day(s)"
        + (f", with {', '.join(ordered[1:4])}" if ordered[1:] else ""),
        how_sure=f"{beyond * most:.2f} times as far, weighted by importance, as the furthest {days} day(s) of "
        f"training; the limit of {most:.2f} lets {of.limits.false_per_month:g} false alarms a month through",
        what_to_do=f"look at the source of {view}: a new unit, a new supplier, a changed code? Broken: mend it. "
        "Real: a model of newer data may do better",
        remedy=Remedy.RETRAIN,
    )


def _direction(of: Watch, window: Sequence[DayProfile], at: int) -> str:
    mean = float(np.sum([item.below[at] for item in window], axis=0).sum() / sum(item.rows for item in window))
    position = 1 - (mean + 0.5) / 10  # 0.5 when nothing moved
    if abs(position - 0.5) < 0.05:
        return "is spread otherwise than in training"
    return f"lies {'higher' if position > 0.5 else 'lower'} than at this hour and weekday in training"


def _since(recent: Sequence[DayProfile], unusual: npt.NDArray[np.bool_], days: int) -> dt.date:
    """The first of the unbroken run of unusual days up to today; else the window's first day."""
    begin = len(recent)
    while begin and unusual[begin - 1]:
        begin -= 1
    begin = min(begin, len(recent) - 1) if begin < len(recent) else max(0, len(recent) - days)
    return dt.date.fromordinal(recent[begin].day)


def standing(of: Watch, recent: Sequence[DayProfile]) -> Found:
    """Inputs that show one value for longer than chance or training explain: one finding per view."""
    if recent[-1].rows < of.limits.least_rows / 2:
        return no_data(Kind.CONSTANT, "inputs", f"{recent[-1].rows} rows; so few may be equal by chance")
    by_view: dict[str, list[tuple[str, int]]] = {}
    for at, name in enumerate(of.names):
        run = run_of_one_value(recent, at)
        if run and run >= of.standstill_days[at]:
            by_view.setdefault(of.views.get(name, name), []).append((name, run))
    findings = []
    for view, hits in by_view.items():
        name, run = max(hits, key=lambda item: item[1])
        at = of.names.index(name)
        since = dt.date.fromordinal(recent[-run].day)
        findings.append(
            Finding(
                kind=Kind.CONSTANT, subject=view, features=tuple(item for item, _ in hits), since=since,
                rows=sum(item.rows for item in recent[-run:]), value=float(run),
                threshold=float(of.standstill_days[at]),
                sentence=f"{', '.join(item for item, _ in hits[:4])} stand(s) still, {name} at "
                f"{recent[-1].commonest[at]:g} for {run} day(s)",
                how_sure=f"from {of.standstill_days[at]:g} day(s) on, chance explains it once in {1 / RARE:,.0f}",
                what_to_do=f"look whether {view} is still computed and stored: a frozen source looks like this",
                remedy=Remedy.INCIDENT,
            )
        )  # fmt: skip
    status = Status.ALARM if findings else Status.OK
    reason = "; ".join(item.sentence for item in findings) or "every input varies as it did in training"
    check = Check(
        kind=Kind.CONSTANT, subject="inputs", status=status, value=float(len(findings)), threshold=0.0, reason=reason
    )
    return Found([check], findings)


def outlying(of: Watch, rows: Vectors) -> Found:
    """Values outside of what training saw: a few far outside, or most of the day beyond its range. A finding per view.

    Categories are not meant; a feature that is bound to the season may leave its range, but not by far.
    """
    number = np.array([known is None for known in of.reference.known])
    far = ((rows.values < of.low) | (rows.values > of.high)) & number
    least = max(OUTLIER_ROWS, math.ceil(OUTLIER_SHARE * len(rows.values)))
    beyond = ((rows.values < of.reference.low) | (rows.values > of.reference.high)) & number & of.limits.watched
    most = beyond.mean(axis=0) > np.maximum(BEYOND_SHARE, 2 * of.beyond_most)
    outside = np.where(most, beyond, far)
    counts = outside.sum(axis=0)
    by_view: dict[str, list[int]] = {}
    for at in np.argsort(-counts, kind="stable"):
        if counts[at] >= least:
            by_view.setdefault(of.views.get(of.names[at], of.names[at]), []).append(int(at))
    findings = []
    for view, hits in by_view.items():
        at, name = hits[0], of.names[hits[0]]
        column = rows.values[outside[:, at], at]
        why = (
            f"no training day had more than {of.beyond_most[at]:.0%} of its rows beyond the range of the others"
            if most[at]
            else "they lie another such range further out than any training day lay beyond the others"
        )
        findings.append(
            Finding(
                kind=Kind.OUTLIERS, subject=view, features=tuple(of.names[at] for at in hits),
                since=dt.date.fromordinal(int(rows.day[0])), rows=int(counts[at]), value=float(counts[at]),
                threshold=float(least),
                sentence=f"{counts[at]} rows have {name} at {column.min():g} to {column.max():g}",
                how_sure=f"training went from {of.reference.low[at]:g} to {of.reference.high[at]:g}; {why}",
                what_to_do=f"look at the rows and the source of {name}: a placeholder, another unit, a broken sensor",
                remedy=Remedy.INCIDENT,
            )
        )  # fmt: skip
    status = Status.ALARM if findings else Status.OK
    reason = "; ".join(item.sentence for item in findings) or "no value lies far outside of training"
    check = Check(
        kind=Kind.OUTLIERS, subject="inputs", status=status, value=float(counts.max()), threshold=float(least),
        reason=reason,
    )  # fmt: skip
    return Found([check], findings)


def unseen(of: Watch, rows: Vectors) -> Found:
    """Categories that training never saw: one finding per feature."""
    share = unseen_share(of.reference.known, rows.values)
    limit = np.maximum(UNSEEN_SHARE, 2 * of.unseen_most)
    findings = []
    for at in np.flatnonzero((share > limit) & (share * len(rows.values) >= UNSEEN_ROWS)):
        known, name = of.reference.known[at], of.names[at]
        assert known is not None
        column = rows.values[:, at]
        new = np.unique(column[np.isin(column, known, invert=True)])
        findings.append(
            Finding(
                kind=Kind.UNSEEN, subject=name, features=(name,), since=dt.date.fromordinal(int(rows.day[0])),
                rows=round(share[at] * len(column)), value=float(share[at]), threshold=float(limit[at]),
                sentence=f"{share[at]:.1%} of the rows have {name} at {', '.join(f'{value:g}' for value in new[:5])}",
                how_sure=f"training had {len(known)} values, and no day more than {of.unseen_most[at]:.1%} new ones",
                what_to_do=f"a new category of {name}: teach the transform its code, then train; until then its "
                "answers are guesses",
                remedy=Remedy.INCIDENT,
            )
        )  # fmt: skip
    status = Status.ALARM if findings else Status.OK
    reason = "; ".join(item.sentence for item in findings) or "every category is known from training"
    most = int((share - limit).argmax())
    return Found(
        [
            Check(
                kind=Kind.UNSEEN,
                subject="inputs",
                status=status,
                value=float(share[most]),
                threshold=float(limit[most]),
                reason=reason,
            )
        ],
        findings,
    )
