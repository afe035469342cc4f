"""The evidence page of one rollout: each metric with its bounds at each look, and the history. Pure."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from flightdeck.contracts.release import Release
from flightdeck.pages.drawing import BAD, FAINT, HALF, INK, STYLE, A, svg
from flightdeck.pages.page import page
from services.rollout_operator.remembered import Look
from services.rollout_operator.state import Phase, Transition
from services.rollout_operator.verdict import Judgement

SHOWN_WIDTH = 4.0  # of the margin: bounds further away are cut off


class NothingToShow(LookupError):
    """No such rollout has begun; the message says which there were."""


def rollout_of(history: Sequence[Transition], candidate: str | None) -> list[Transition]:
    """The entries of the newest rollout of this candidate (of any, when None), from its beginning to its end."""
    begins = [
        index
        for index, item in enumerate(history)
        if item.target == "pending" and item.source in (None, "done", "aborted")
    ]
    ends = [*begins[1:], len(history)] if begins else []
    for first, behind in reversed(list(zip(begins, ends, strict=True))):
        if candidate in (None, history[first].candidate):
            return list(history[first:behind])
    return []


def evidence_page(
    name: str, history: Sequence[Transition], looks: Sequence[Look], releases: Sequence[Release], *,
    candidate: str | None = None, judgement: Judgement | None = None, note: str = "",
) -> str:  # fmt: skip
    """The page about the newest rollout, or the newest of the release with the id `candidate`.

    Args:
        history: oldest first. looks: of any rollouts, oldest first. releases: those whose ids are told by name.
        judgement: the last one, where no look tells it.
        note: what a reader must know about the page itself, e.g. that the looks could not be read.
    Raises:
        NothingToShow: there was no such rollout.
    """
    chosen = rollout_of(history, candidate)
    if not chosen:
        there = ", ".join(dict.fromkeys(item.candidate for item in history if item.candidate)) or "none"
        what = f"of the release {candidate}" if candidate else "whose beginning the history still has"
        raise NothingToShow(f"{name}: no rollout {what}; releases in the history: {there}")
    first, last = chosen[0], chosen[-1]
    mine = [look for look in looks if first.at_s - 0.01 <= look.started_s <= last.at_s]
    return page(
        "rollout.html.j2",
        {
            "name": name,
            "history": [(dt.datetime.fromtimestamp(item.at_s, dt.UTC), item) for item in chosen],
            "ended": last,
            "seconds": last.at_s - first.at_s,
            "judgement": mine[-1].judgement if mine else judgement,
            "looks": len(mine),
            "pictures": evidence(mine, "e"),
            "releases": {release.id: release for release in releases},
            "note": note,
        },
    )


def evidence(looks: Sequence[Look], title: str) -> dict[str, str]:
    """Metric -> SVG: estimate and bounds at each look against the margin; without an observation there is none."""
    pictures = {}
    names = [item.metric for item in looks[-1].judgement.metrics] if looks else []
    with matplotlib.rc_context(STYLE):
        for name in names:
            figure = _metric(looks, name)
            if figure is not None:
                pictures[name] = svg(figure, f"{title}-{name}")
    return pictures


def _metric(looks: Sequence[Look], name: str) -> Figure | None:
    rows = []
    for look in looks:
        for item in look.judgement.metrics:
            if item.metric == name and item.estimate is not None and item.observations:
                rows.append((look.at_s - looks[0].at_s, item))
    if not rows:
        return None
    figure = Figure(figsize=HALF)
    axes = figure.add_subplot()
    at = np.array([seconds for seconds, _ in rows])
    margin = rows[-1][1].margin
    estimates = np.array([item.estimate for _, item in rows], dtype=float)
    lower, upper = (np.array([_number(getattr(item, side)) for _, item in rows]) for side in ("lower", "upper"))
    zero = min(0.0, float(np.nanmin(estimates)))
    span = max(margin, float(np.nanmax(np.abs(estimates))), 1e-9)
    bottom, top = zero - 0.4 * span, max(SHOWN_WIDTH * margin, 1.3 * float(np.nanmax(estimates)), 0.25 * span)
    axes.fill_between(
        at, np.nan_to_num(lower, nan=bottom), np.nan_to_num(upper, nan=top), color=A, alpha=0.22, linewidth=0,
        label="surely between",
    )  # fmt: skip
    axes.plot(at, estimates, color=A, linewidth=1.8, marker="o" if len(at) < 3 else "", label="estimate")
    axes.axhline(margin, color=BAD, linewidth=1.3, linestyle="--", label=f"margin {margin:g}")
    _steps(axes, looks)
    axes.set_ylim(bottom, top)
    axes.set_xlabel("seconds of the rollout")
    axes.set_ylabel(name)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=8, borderaxespad=0.2)
    return figure


def _steps(axes: Any, looks: Sequence[Look]) -> None:
    """A line where phase or weight changed."""
    for at_s, words in changes(looks):
        axes.axvline(at_s, color=FAINT, linewidth=1)
        axes.annotate(
            words, (at_s, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -10), textcoords="offset points",
            fontsize=8, color=INK,
        )  # fmt: skip


def changes(looks: Sequence[Look]) -> list[tuple[float, str]]:
    """When phase or weight changed, in seconds of the rollout, and to what.

    Of changes that come so close after each other that their words would lie upon each other only the last.
    """
    room_s = 0.08 * (looks[-1].at_s - looks[0].at_s)
    found: list[tuple[float, str]] = []
    for before, look in itertools.pairwise(looks):
        if (look.phase, look.weight) == (before.phase, before.weight):
            continue
        at_s = look.at_s - looks[0].at_s
        if found and at_s - found[-1][0] < room_s:
            found.pop()
        found.append((at_s, f"{look.weight} %" if look.weight and look.phase is Phase.CANARY else str(look.phase)))
    return found


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
