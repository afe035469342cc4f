"""Draws the pictures of docs/judge.md from simulated requests: `python benchmarks/judge_pictures.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from services.rollout_operator.sequences import lower_bound, surely_above, upper_bound  # noqa: E402

matplotlib.use("Agg")
FOLDER = ROOT / "docs" / "pictures"
LEVELS = np.array([-1.0, 0.0, 1.0])
MARGIN, ALPHA, BETA = 0.02, 0.05, 0.05
BLUE, ORANGE, RED, GREY = "#1f5fa8", "#c8641e", "#b92c2c", "#8a95a3"


def counts(differences: np.ndarray, looks: np.ndarray) -> np.ndarray:
    """How many of each level came until each look, shape (..., n_looks, 3), from differences (..., n_pairs)."""
    return np.stack([np.cumsum(differences == level, axis=-1)[..., looks - 1] for level in LEVELS], axis=-1)


def pairs(rng: np.random.Generator, shape: tuple[int, ...], champion: float, candidate: float) -> np.ndarray:
    """Differences of failures between matched requests."""
    return (rng.random(shape) < candidate).astype(float) - (rng.random(shape) < champion)


def bounds(axes: Axes, differences: np.ndarray, title: str) -> None:
    """Estimate and bounds of one rollout at each look."""
    looks = np.arange(10, differences.size + 1, 10)
    found = counts(differences, looks)
    low, high = lower_bound(found[:, None, :], LEVELS, -1.0, ALPHA), upper_bound(found, LEVELS, BETA)
    axes.fill_between(looks, low, high, color=BLUE, alpha=0.2, linewidth=0, label="surely between, at all looks")
    axes.plot(looks, found @ LEVELS / looks, color=BLUE, label="errors above the champion's")
    axes.axhline(MARGIN, color=RED, linestyle="--", linewidth=1.2, label="margin")
    decided = np.nonzero((high < MARGIN) | (low > MARGIN))[0]
    if decided.size:
        at = looks[decided[0]]
        word = "pass" if high[decided[0]] < MARGIN else "fail"
        axes.axvline(at, color=GREY, linewidth=1)
        axes.annotate(f"{word} after {at}", (at, 0.135), xytext=(5, 0), textcoords="offset points", fontsize=9)
    axes.set_ylim(-0.05, 0.15)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("pairs of requests")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")


def draw_bounds() -> Figure:
    """A good and a bad candidate."""
    rng = np.random.default_rng(4)
    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    bounds(left, pairs(rng, (600,), 0.002, 0.002), "as good as the champion")
    bounds(right, pairs(rng, (600,), 0.002, 0.06), "6 % errors")
    left.legend(loc="upper right", fontsize=8, frameon=False)
    return figure


def draw_looks() -> Figure:
    """Good candidates aborted by the n-th look: an ordinary test that is repeated, and the judge's."""
    rng = np.random.default_rng(7)
    rollouts, every = 2000, 50
    looks = np.arange(every, 100 * every + 1, every)
    differences = pairs(rng, (rollouts, int(looks[-1])), 0.05, 0.05)
    found = counts(differences, looks)  # (rollouts, looks, 3)
    mean = found @ LEVELS / looks
    spread = np.sqrt(np.maximum((found @ LEVELS**2) / looks - mean**2, 1e-12) / looks)
    ordinary = np.maximum.accumulate(mean / spread > 1.645, axis=1).mean(axis=0)
    # The same question for both: are there more errors than the champion's, margin 0, where the two are equal.
    ours = np.maximum.accumulate(surely_above(found[:, :, None, :], LEVELS, 0.0, -1.0, ALPHA), axis=1).mean(axis=0)
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, 101), ordinary, color=ORANGE, label="an ordinary 5 % test, repeated")
    axes.plot(range(1, 101), ours, color=BLUE, label="the judge")
    axes.axhline(ALPHA, color=RED, linestyle="--", linewidth=1.2, label="alpha: 5 %")
    axes.set_xlabel("looks")
    axes.set_ylabel("good candidates aborted so far")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=9, frameon=False)
    print(f"aborted after 20 looks: ordinary {ordinary[19]:.1%}, judge {ours[19]:.1%}; "
          f"after 100: {ordinary[-1]:.1%}, {ours[-1]:.1%}")  # fmt: skip
    return figure


def draw_matching() -> Figure:
    """A busy hour falls into the 50 % step: what averages say, and what matched differences say."""
    rng = np.random.default_rng(11)
    seconds, rate = 240, 100
    weight = np.where(np.arange(seconds) < 120, 0.1, 0.5)
    errors = np.where(np.arange(seconds) < 120, 0.01, 0.06)  # of both alike: a shared dependency suffers
    taken = rng.binomial(rate, weight)
    failed = {"candidate": rng.binomial(taken, errors), "champion": rng.binomial(rate - taken, errors)}
    matched_n = np.minimum(taken, rate - taken)
    matched = np.cumsum(rng.binomial(matched_n, errors) - rng.binomial(matched_n, errors)) / np.cumsum(matched_n)
    averages = np.cumsum(failed["candidate"]) / np.cumsum(taken) - np.cumsum(failed["champion"]) / np.cumsum(
        rate - taken
    )
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(120, color=GREY, linewidth=1)
    axes.annotate("10 % | 50 %, and a busy hour", (120, 0.024), xytext=(-24, 0), textcoords="offset points", fontsize=9)
    axes.plot(averages, color=ORANGE, label="average of the candidate minus average of the champion")
    axes.plot(matched, color=BLUE, label="mean of matched differences")
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    axes.set_ylim(-0.02, 0.03)
    axes.set_xlabel("seconds of the rollout")
    axes.set_ylabel("errors above the champion's")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.legend(fontsize=8, frameon=False, loc="lower left")
    return figure


def main() -> int:
    """Write all pictures."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    makers = {"judge-bounds": draw_bounds, "judge-looks": draw_looks, "judge-matching": draw_matching}
    for name, maker in makers.items():
        figure = maker()
        for axes in figure.axes:
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(FOLDER / f"{name}.png", dpi=110)
        print(f"docs/pictures/{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
