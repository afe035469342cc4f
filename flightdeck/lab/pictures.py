"""Pictures of the report as inline SVG. Colours are CSS variables, so one picture serves light and dark."""

from __future__ import annotations

import collections
import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flightdeck.lab import quality
from flightdeck.lab.findings import Findings
from flightdeck.pages.drawing import BAD, FAINT, HALF, INK, PAPER, STYLE, WIDE, A, B, svg

if TYPE_CHECKING:
    from pipelines.data.ingest import DayResult


def all_pictures(findings: Findings) -> dict[str, str]:
    """Name -> SVG; a picture whose stage was not reached is left out."""
    makers: dict[str, Callable[[Findings], Figure | None]] = {
        "rows": rows_per_day,
        "late_share": late_share,
        "roc": roc,
        "calibration": calibration,
        "months_late": lambda found: months(found, "late", "AUC"),
        "months_delay": lambda found: months(found, "delay", "RMSE, minutes"),
        "latency_time": latency_over_time,
        "latency_histogram": latency_histogram,
        "ages": feature_ages,
        "rate": request_rate,
        "daily_quality": daily_quality,
        "importances": importances,
    }
    found = {}
    with matplotlib.rc_context(STYLE):
        for name, maker in makers.items():
            figure = maker(findings)
            if figure is not None:
                found[name] = svg(figure, name)
    return found


def _axes(size: tuple[float, float], title: str = "") -> tuple[Figure, Axes]:
    figure = Figure(figsize=size)
    axes = figure.add_subplot()
    if title:
        axes.set_title(title)
    return figure, axes


def _legend_above(axes: Axes) -> None:
    """Beside the title's height, where no curve runs."""
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.2)


def _date_axis(axes: Axes, fmt: str = "%d %b") -> None:
    from matplotlib.dates import AutoDateLocator, DateFormatter, DayLocator

    days = axes.get_xlim()[1] - axes.get_xlim()[0]
    axes.xaxis.set_major_locator(DayLocator() if days < 9 else AutoDateLocator(minticks=4, maxticks=9))
    axes.xaxis.set_major_formatter(DateFormatter(fmt))


def rows_per_day(findings: Findings) -> Figure | None:
    """Flights that came in per day; the quarantined day stands out."""
    days = [day for day in findings.days if day.table == "flights"]
    if not days:
        return None
    figure, axes = _axes(WIDE)
    good = [day for day in days if day.status != "quarantined"]
    bad = [day for day in days if day.status == "quarantined"]
    axes.bar(_days(good), [day.written for day in good], width=1.0, color=A, label="into the lake")
    axes.bar(_days(bad), [day.delivered for day in bad], width=1.6, color=BAD, label="quarantined")
    for day in bad:
        axes.annotate(
            f"{day.day:%d %b}: quarantined", (day.day, day.delivered), xytext=(6, 6), textcoords="offset points",
            color=BAD, fontsize=9,
        )  # fmt: skip
    axes.set_ylabel("flights a day")
    axes.set_ylim(0, max(max(day.written, day.delivered) for day in days) * 1.16)
    _date_axis(axes, "%b")
    return figure


def _days(results: Sequence[DayResult]) -> Any:
    return [result.day for result in results]  # matplotlib takes dates, its types do not say so


def late_share(findings: Findings) -> Figure | None:
    """Share of late flights by month: the drift that a model must live with."""
    if not findings.monthly_late:
        return None
    figure, axes = _axes(HALF)
    names = [month[-2:] for month, _, _ in findings.monthly_late]
    labels = [dt.date(2013, int(name), 1).strftime("%b") for name in names]
    shares = [share for _, share, _ in findings.monthly_late]
    axes.bar(labels, shares, color=A, width=0.7)
    for at, share in enumerate(shares):
        axes.annotate(f"{share:.0%}", (at, share), ha="center", xytext=(0, 3), textcoords="offset points", fontsize=9)
    axes.set_ylabel("late share")
    axes.set_ylim(0, max(shares) * 1.18)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(axis="x", visible=False)
    return figure


def _live(findings: Findings) -> tuple[Any, Any] | None:
    matured = findings.predictions
    if matured is None or not matured.height:
        return None
    return matured["label"].to_numpy(), matured["score"].to_numpy()


def roc(findings: Findings) -> Figure | None:
    """ROC curve of what was really answered, once the flights had landed."""
    live = _live(findings)
    if live is None:
        return None
    figure, axes = _axes(HALF)
    false, true = quality.roc(*live)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--")
    axes.plot(false, true, color=A, linewidth=2, label=f"champion, AUC {quality.auc(*live):.3f}")
    axes.set_xlabel("share of punctual flights called late")
    axes.set_ylabel("share of late flights found")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.01)
    axes.legend(loc="lower right")
    return figure


def calibration(findings: Findings) -> Figure | None:
    """Said against happened, in bins of equally many answers."""
    live = _live(findings)
    if live is None:
        return None
    figure, axes = _axes(HALF)
    said, happened = quality.calibration(*live)
    top = float(max(said.max(), happened.max())) * 1.08
    axes.plot([0, top], [0, top], color=FAINT, linewidth=1, linestyle="--")
    axes.plot(said, happened, color=A, marker="o", markersize=4.5, linewidth=1.5)
    axes.set_xlabel("probability said")
    axes.set_ylabel("share that was late")
    axes.set_xlim(0, top)
    axes.set_ylim(0, top)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


def months(findings: Findings, model: str, unit: str) -> Figure | None:
    """Quality by month of both models; hollow where a model was trained on (part of) the month."""
    points = findings.months.get(model)
    if not points:
        return None
    figure, axes = _axes(HALF)
    champion = findings.champion_versions.get(model)
    for version in sorted({point.version for point in points}, key=lambda version: version != champion):
        colour, name = (A, "champion") if version == champion else (B, "candidate")
        own = sorted((point for point in points if point.version == version), key=lambda point: point.month)
        at = [int(point.month[-2:]) for point in own]
        values = [point.metric for point in own]
        axes.plot(at, values, color=colour, linewidth=1.5, label=f"{name} v{version}", zorder=2)
        for month, point in zip(at, own, strict=True):
            face = PAPER if point.seen else colour
            axes.plot([month], [point.metric], marker="o", markersize=6, color=colour, markerfacecolor=face, zorder=3)
    ticks = sorted({int(point.month[-2:]) for point in points})
    axes.set_xticks(ticks, [dt.date(2013, month, 1).strftime("%b") for month in ticks])
    axes.set_ylabel(unit)
    axes.legend(loc="best", fontsize=9)
    return figure


def _real_seconds(findings: Findings) -> tuple[Any, Any]:
    start = min(outcome.intended_s for outcome in findings.outcomes)
    return np.array([outcome.intended_s - start for outcome in findings.outcomes]), start


def latency_over_time(findings: Findings) -> Figure | None:
    """Median and 99th percentile per second of the replay."""
    if not findings.outcomes:
        return None
    figure, axes = _axes(WIDE)
    seconds, _ = _real_seconds(findings)
    latencies = np.array([outcome.latency_ms for outcome in findings.outcomes])
    bins = seconds.astype(int)
    shown = [number for number in np.unique(bins) if np.count_nonzero(bins == number) >= 20]
    for share, colour, name in ((0.99, B, "p99"), (0.5, A, "p50")):
        axes.plot(
            shown, [np.quantile(latencies[bins == number], share) for number in shown], color=colour, linewidth=1.4,
            label=name,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylabel("latency, ms")
    axes.set_xlabel("seconds of the replay")
    _legend_above(axes)
    return figure


def latency_histogram(findings: Findings) -> Figure | None:
    """All latencies, from the intended start and at the server."""
    if not findings.outcomes:
        return None
    figure, axes = _axes(HALF)
    whole = np.array([max(outcome.latency_ms, 0.1) for outcome in findings.outcomes])
    served = np.array([max(outcome.service_ms, 0.1) for outcome in findings.outcomes])
    edges = np.logspace(np.log10(min(whole.min(), served.min())), np.log10(whole.max() * 1.05), 50).tolist()
    axes.hist(served, bins=edges, color=B, histtype="step", linewidth=1.4, label="from sending")
    axes.hist(whole, bins=edges, color=A, alpha=0.75, label="from the intended start")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("requests")
    axes.legend(loc="upper right", fontsize=9)
    return figure


def feature_ages(findings: Findings) -> Figure | None:
    """How old the served values of each view were, in virtual hours."""
    matured = findings.predictions
    if matured is None or not matured.height:
        return None
    ages = (
        matured.select("age_views", "ages_s").explode("age_views", "ages_s")
        .filter(pl.col("ages_s").is_not_null()).sort("age_views")
    )  # fmt: skip
    views = ages["age_views"].unique().sort().to_list()
    figure, axes = _axes(HALF)
    hours = [ages.filter(pl.col("age_views") == view)["ages_s"].to_numpy() / 3600 for view in views]
    drawn = axes.boxplot(
        hours, orientation="horizontal", tick_labels=[view.replace("_", " ") for view in views], whis=(1, 99),
        showfliers=False, patch_artist=True, widths=0.55,
        boxprops={"facecolor": A, "edgecolor": A, "alpha": 0.75}, medianprops={"color": INK, "linewidth": 1.5},
        whiskerprops={"color": A}, capprops={"color": A},
    )  # fmt: skip
    assert drawn
    axes.set_xlabel("age when served, virtual hours (1 to 99 %)")
    axes.set_xlim(left=0)
    axes.grid(axis="y", visible=False)
    return figure


def request_rate(findings: Findings) -> Figure | None:
    """Requests per second, and those among them with a degraded answer."""
    if not findings.outcomes:
        return None
    figure, axes = _axes(WIDE)
    seconds, _ = _real_seconds(findings)
    edges = np.arange(0, seconds.max() + 0.5, 0.5)
    degraded = np.array([bool(outcome.degraded) or not outcome.ok for outcome in findings.outcomes])
    for mask, colour, name in ((np.ones(len(seconds), bool), A, "all"), (degraded, BAD, "degraded or failed")):
        counts, _ = np.histogram(seconds[mask], bins=edges)
        axes.fill_between(edges[:-1], counts / 0.5, step="post", color=colour, alpha=0.75, linewidth=0, label=name)
    axes.set_ylabel("requests per second")
    axes.set_xlabel("seconds of the replay")
    axes.set_ylim(bottom=0)
    _legend_above(axes)
    return figure


def daily_quality(findings: Findings) -> Figure | None:
    """Live quality by virtual day: AUC, and what was said against what happened."""
    matured = findings.predictions
    if matured is None or not matured.height:
        return None
    by_day: dict[dt.date, list[tuple[int, float]]] = collections.defaultdict(list)
    for asked, label, score in matured.select("asked_at_utc", "label", "score").iter_rows():
        by_day[(asked - dt.timedelta(hours=4)).date()].append((label, score))
    days = [day for day in sorted(by_day) if len(by_day[day]) >= 200]
    if not days:
        return None
    figure = Figure(figsize=(WIDE[0], 3.9))
    top, bottom = figure.subplots(2, 1, sharex=True)
    values = [np.array(by_day[day]) for day in days]
    top.plot(days, [quality.auc(value[:, 0], value[:, 1]) for value in values], color=A, marker="o", markersize=3)
    top.set_ylabel("AUC")
    bottom.plot(days, [value[:, 1].mean() for value in values], color=A, label="said")
    bottom.plot(days, [value[:, 0].mean() for value in values], color=B, label="happened")
    bottom.set_ylabel("late share")
    bottom.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    _legend_above(bottom)
    _date_axis(bottom)
    return figure


def importances(findings: Findings) -> Figure | None:
    """The ten features whose shuffling costs the champion most."""
    card = findings.card("late", version=findings.champion_versions.get("late"))
    if card is None or not card.importances:
        return None
    figure, axes = _axes(HALF)
    top = sorted(card.importances.items(), key=lambda item: item[1])[-10:]
    axes.barh([name.replace("_", " ") for name, _ in top], [value for _, value in top], color=A, height=0.65)
    axes.set_xlabel("AUC lost when shuffled")
    axes.tick_params(axis="y", labelsize=9)
    axes.grid(axis="y", visible=False)
    return figure
