"""The monitor's page of one day of one model version: alarms, checks, and where the inputs lie. Pure."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from flightdeck.contracts.alarm import MonitorReport
from flightdeck.pages.drawing import BAD, FAINT, HALF, STYLE, WIDE, A, B, svg
from flightdeck.pages.page import page

FURTHEST = 15  # features drawn by how far they moved
DRAWN = 6  # features whose distribution is drawn


def monitor_page(report: MonitorReport) -> str:
    """One file that loads nothing."""
    pictures: list[tuple[str, str]] = []
    with matplotlib.rc_context(STYLE):
        for name, figure in (("Days", _days(report)), ("How far the inputs moved", _moved(report))):
            if figure is not None:
                pictures.append((name, svg(figure, f"m-{len(pictures)}")))
        tenths = [(name, svg(_tenths(report, name), f"t-{at}")) for at, name in enumerate(_shown(report))]
    return page("monitor.html.j2", {"report": report, "pictures": pictures, "tenths": tenths})


def _days(report: MonitorReport) -> Figure | None:
    if not report.daily:
        return None
    figure = Figure(figsize=WIDE)
    rows, quality = figure.subplots(1, 2)
    days = [item.day for item in report.daily]
    rows.plot(days, [_number(item.mean_score) for item in report.daily], color=A, marker=".", label="mean answer")
    rows.plot(
        days, [_number(item.mean_label) for item in report.daily], color=B, marker=".", label="mean outcome, matured"
    )
    rows.legend(fontsize=8)
    quality.plot(
        days, [_number(item.metric) for item in report.daily], color=A, marker=".", label=f"{report.metric} of the day"
    )
    quality.legend(fontsize=8)
    for axes in (rows, quality):
        for alarm in report.alarms:
            axes.axvline(alarm.since, color=BAD, linewidth=1, linestyle="--")
        axes.tick_params(axis="x", labelrotation=30)
    return figure


def _moved(report: MonitorReport) -> Figure | None:
    if not report.drift:
        return None
    furthest = sorted(report.drift, key=lambda name: report.drift[name])[-FURTHEST:]
    figure = Figure(figsize=(WIDE[0], 0.26 * len(furthest) + 0.9))
    axes = figure.add_subplot()
    alarmed = {name for alarm in report.alarms for name in alarm.features}
    axes.barh(
        furthest, [report.drift[name] for name in furthest], color=[BAD if name in alarmed else A for name in furthest]
    )
    axes.axvline(1, color=FAINT, linewidth=1)
    axes.set_xlabel("population stability index of the day, by that of the furthest training day")
    return figure


def _tenths(report: MonitorReport, name: str) -> Figure:
    figure = Figure(figsize=HALF)
    axes = figure.add_subplot()
    shares = np.array(report.shares[name])
    axes.bar(np.arange(len(shares)) + 0.5, shares, width=0.9, color=A)
    axes.axhline(0.1, color=FAINT, linewidth=1.2, linestyle="--")
    axes.set_xlabel("tenth of the training values of the same hour and weekday")
    axes.set_ylabel("share of the day's rows")
    return figure


def _shown(report: MonitorReport) -> list[str]:
    """Features whose distribution is drawn: those of alarms, then the furthest moved."""
    alarmed = [name for alarm in report.alarms for name in alarm.features]
    furthest = sorted(report.drift, key=lambda name: -report.drift[name])
    return [name for name in dict.fromkeys([*alarmed, *furthest]) if name in report.shares][:DRAWN]


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
