"""Pictures of a rollout as inline SVG: evidence per metric with its bounds at each look, and traffic by version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from flightdeck.lab.pictures import BAD, FAINT, HALF, INK, STYLE, WIDE, A, B, svg
from flightdeck.lab.rollout.store import Look
from flightdeck.lab.rollouts import Owners, Result
from flightdeck.lab.users import Outcome

COLOURS = (A, B, "#2f8f5b", "#8a5fb0", "#b08a2f", "#2a9d9d", "#c2527c", "#6b7f1f", "#5566cc", "#a0522d")
SHOWN_WIDTH = 4.0  # of the margin: bounds further away are cut off


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
    """A line where the weight changed."""
    before = looks[0]
    for look in looks[1:]:
        if (look.phase, look.weight) != (before.phase, before.weight):
            axes.axvline(look.at_s - looks[0].at_s, color=FAINT, linewidth=1)
            words = f"{look.weight} %" if look.weight else str(look.phase)
            axes.annotate(
                words, (look.at_s - looks[0].at_s, 1.0), xycoords=("data", "axes fraction"), xytext=(3, -10),
                textcoords="offset points", fontsize=8, color=INK,
            )  # fmt: skip
        before = look


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def traffic(outcomes: Sequence[Outcome], results: Sequence[Result], owners: Owners) -> str | None:
    """Users' answers per second by the release that gave them, with each rollout's beginning and end."""
    answered = [item for item in outcomes if item.ok and item.port]
    if not answered or not results:
        return None
    start_s = min(item.sent_s for item in answered)
    seconds = np.array([item.sent_s - start_s for item in answered])
    edges = np.arange(0, seconds.max() + 1.0, 1.0)
    numbers = {result.case.release.id: index for index, result in enumerate(results)}
    who = np.array([numbers.get(owners.of(item.port, item.done_s), -1) for item in answered])
    bars, labels = [np.histogram(seconds[who == -1], bins=edges)[0]], ["first champion"]
    for index, result in enumerate(results):
        bars.append(np.histogram(seconds[who == index], bins=edges)[0])
        labels.append(result.case.title)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=WIDE)
        axes = figure.add_subplot()
        colours = [FAINT, *(COLOURS[index % len(COLOURS)] for index in range(len(results)))]
        axes.stackplot(edges[:-1], bars, step="post", labels=labels, colors=colours, alpha=0.85, linewidth=0)
        for result in results:
            for moment in (result.began_s, result.ended_s):
                axes.axvline(moment - start_s, color=INK, linewidth=0.7, linestyle=":")
        failed = np.array([item.sent_s - start_s for item in outcomes if not item.ok])
        if failed.size:
            axes.plot(failed, np.zeros(failed.size), "x", color=BAD, label="failed")
        axes.set_ylabel("answers per second")
        axes.set_xlabel("seconds")
        axes.set_xlim(0, float(edges[-1]))
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8, ncols=6, borderaxespad=0.2)
        return svg(figure, "traffic")
