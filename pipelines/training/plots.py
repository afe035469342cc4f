"""Pictures of a candidate, as PNG bytes: for MLflow and for the report page."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
import polars as pl
from matplotlib.figure import Figure

from flightdeck.contracts.model_spec import Task
from pipelines.gates.metrics import CALIBRATION_BINS, Floats, bin_of
from pipelines.training.candidate import BASELINE_SCORE, DAY, SKLEARN_SCORE, Candidate

matplotlib.use("Agg")

CANDIDATE, BASELINE, CHAMPION = "#1f5fa8", "#9a9a9a", "#c8641e"


def candidate_pictures(candidate: Candidate, champion_score: Floats | None = None) -> dict[str, bytes]:
    """Name -> PNG: quality, calibration, days and importances on the holdout."""
    rows, label = candidate.holdout, candidate.label
    scores = {"candidate": rows[SKLEARN_SCORE].to_numpy(), "baseline": rows[BASELINE_SCORE].to_numpy()}
    if champion_score is not None:
        scores["champion"] = champion_score
    unit = candidate.spec.target.unit
    pictures = {
        "calibration": calibration(label, scores, unit),
        "importances": importances(candidate.facts.importances),
    }
    if candidate.spec.task is Task.CLASSIFICATION:
        pictures["roc"] = roc(label, scores)
    pictures["days"] = days(rows, label, scores, unit)
    return pictures


def roc_points(label: Floats, score: Floats, steps: int = 200) -> tuple[Floats, Floats]:
    """False and true positive share, each shape (steps,), thinned evenly."""
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum(label[order] > 0.5)
    misses = np.arange(1, len(order) + 1) - hits
    at = np.linspace(0, len(order) - 1, min(steps, len(order))).astype(int)
    false_share, true_share = misses[at] / max(1, misses[-1]), hits[at] / max(1, hits[-1])
    return np.concatenate([[0.0], false_share]), np.concatenate([[0.0], true_share])


def calibration_points(label: Floats, score: Floats, bins: int = CALIBRATION_BINS) -> tuple[Floats, Floats, Floats]:
    """Mean score, mean label and rows of each bin of equally many rows."""
    which = bin_of(score, bins)
    rows = np.bincount(which, minlength=bins).astype(float)
    used = rows > 0
    mean = [np.bincount(which, weights=item, minlength=bins)[used] / rows[used] for item in (score, label)]
    return mean[0], mean[1], rows[used]


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110, bbox_inches="tight")
    return out.getvalue()


def _colour(name: str) -> str:
    return {"candidate": CANDIDATE, "baseline": BASELINE, "champion": CHAMPION}[name]


def roc(label: Floats, scores: dict[str, Floats]) -> bytes:
    """ROC curve of each."""
    figure = Figure(figsize=(4.2, 3.8))
    axes = figure.add_subplot()
    for name, score in scores.items():
        axes.plot(*roc_points(label, score), color=_colour(name), label=name)
    axes.plot([0, 1], [0, 1], ":", color="#bbbbbb")
    axes.set(xlabel="false positive share", ylabel="true positive share", title="ROC on the holdout")
    axes.legend(loc="lower right", frameon=False)
    return _png(figure)


def calibration(label: Floats, scores: dict[str, Floats], unit: str) -> bytes:
    """Mean target against mean score in bins of equally many rows."""
    figure = Figure(figsize=(4.2, 3.8))
    axes = figure.add_subplot()
    top = 0.0
    for name, score in scores.items():
        mean_score, mean_label, _ = calibration_points(label, score)
        axes.plot(mean_score, mean_label, "o-", color=_colour(name), label=name, markersize=4)
        top = max(top, float(mean_score.max()), float(mean_label.max()))
    low = min(0.0, float(min(score.min() for score in scores.values()))) if unit != "probability" else 0.0
    axes.plot([low, top], [low, top], ":", color="#bbbbbb")
    axes.set(xlabel=f"mean score ({unit})", ylabel=f"mean outcome ({unit})", title="Calibration on the holdout")
    axes.legend(loc="upper left", frameon=False)
    return _png(figure)


def days(rows: pl.DataFrame, label: Floats, scores: dict[str, Floats], unit: str) -> bytes:
    """Mean score and mean outcome of each day of the holdout."""
    table = pl.DataFrame({DAY: rows[DAY], "outcome": label, **scores}).group_by(DAY).mean().sort(DAY)
    figure = Figure(figsize=(8.6, 2.8))
    axes = figure.add_subplot()
    axes.bar(table[DAY].to_list(), table["outcome"].to_list(), color="#dddddd", label="outcome")
    for name in scores:
        axes.plot(table[DAY].to_list(), table[name].to_list(), "o-", color=_colour(name), label=name, markersize=3)
    axes.set(ylabel=f"mean ({unit})", title="Each day of the holdout")
    axes.tick_params(axis="x", rotation=30)
    axes.legend(frameon=False, ncols=4, fontsize=8)
    return _png(figure)


def importances(lost: dict[str, float], most: int = 20) -> bytes:
    """Permutation importance of the most important features."""
    top = list(lost.items())[:most][::-1]
    figure = Figure(figsize=(5.2, 0.24 * len(top) + 1))
    axes = figure.add_subplot()
    axes.barh([name for name, _ in top], [value for _, value in top], color=CANDIDATE)
    axes.set(xlabel="metric lost when shuffled", title="Permutation importance")
    axes.tick_params(axis="y", labelsize=7)
    return _png(figure)
