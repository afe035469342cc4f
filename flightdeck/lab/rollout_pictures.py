"""The lab's picture of its rollouts as inline SVG: users' answers by version."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from flightdeck.lab.rollouts import Owners, Result
from flightdeck.lab.users import Outcome
from flightdeck.pages.drawing import BAD, FAINT, INK, STYLE, WIDE, A, B, svg

COLOURS = (A, B, "#2f8f5b", "#8a5fb0", "#b08a2f", "#2a9d9d", "#c2527c", "#6b7f1f", "#5566cc", "#a0522d")


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
