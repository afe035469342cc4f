"""The report: one self-contained HTML page with pictures, from what the story found."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path

from flightdeck.contracts.card import Interval
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.lab import pictures, quality, rollout_pictures
from flightdeck.lab.findings import Findings
from flightdeck.lab.rollouts import Owners, Result, Rollouts
from flightdeck.lab.users import Outcome, percentile, reason_counts
from flightdeck.pages.page import page, write_page
from flightdeck.pages.rollout import evidence
from flightdeck.progress import Board

TEMPLATES = Path(__file__).with_name("templates")


def write_report(layout: StateLayout, findings: Findings, board: Board) -> Path:
    """Write reports/lab.html; parts that were not reached say so. Returns its path."""
    return write_page(layout.reports / "lab.html", render(findings, board))


def render(findings: Findings, board: Board) -> str:
    """The page as HTML; nothing in it points outside of it."""
    content = {
        "found": findings,
        "board": board,
        "pictures": pictures.all_pictures(findings),
        "rollouts": findings.rollouts,
        "rollout_pictures": rollout_pictures_of(findings.rollouts, findings.rollout_outcomes, findings.owners),
        "tiles": tiles(findings, board),
        "quarantined": [day for day in findings.days if day.status == "quarantined"],
        "reasons": reason_counts(findings.outcomes).most_common(),
        "releases": releases(findings),
        "day": dt.timedelta(days=1),
    }
    return page("lab.html.j2", content, TEMPLATES)


def rollout_pictures_of(rollouts: Sequence[Result], outcomes: Sequence[Outcome], owners: Owners) -> dict[str, object]:
    """Traffic by release over all rollouts, and the evidence of each."""
    return {
        "traffic": rollout_pictures.traffic(outcomes, rollouts, owners),
        "evidence": [evidence(result.looks, f"r{index}") for index, result in enumerate(rollouts)],
    }


def write_faults(layout: StateLayout, board: Board, rollouts: Rollouts, outcomes: Sequence[Outcome]) -> Path:
    """Write reports/faults.html: what became of each planted fault. Returns its path."""
    shown = {
        "board": board, "rollouts": rollouts.results, "outcomes": outcomes, "now": dt.datetime.now(dt.UTC),
        "rollout_pictures": rollout_pictures_of(rollouts.results, outcomes, rollouts.owners),
    }  # fmt: skip
    content = page("faults.html.j2", shown, TEMPLATES)
    return write_page(layout.reports / "faults.html", content)


def tiles(findings: Findings, board: Board) -> list[tuple[str, str]]:
    """The figures that a reader sees first."""
    found: list[tuple[str, str]] = []
    if findings.days:
        rows = sum(day.written for day in findings.days)
        found.append((f"{rows:,}", "rows checked into the lake"))
    outcomes = findings.outcomes
    if outcomes:
        latencies = [outcome.latency_ms for outcome in outcomes]
        failed = sum(not outcome.ok for outcome in outcomes)
        found += [
            (f"{len(outcomes):,}", "requests replayed"),
            (f"{failed:,}", "failed requests"),
            (f"{percentile(latencies, 0.5):.0f} / {percentile(latencies, 0.99):.0f}", "ms latency, p50 / p99"),
            (f"{sum(bool(outcome.degraded) for outcome in outcomes) / len(outcomes):.1%}", "degraded answers"),
        ]
    live = findings.predictions
    if live is not None and live.height:
        value = quality.auc(live["label"].to_numpy(), live["score"].to_numpy())
        found.append((f"{value:.3f}" if value is not None else "-", "live AUC of the champion"))
    refused = sum(trained.verdict == "REJECT" for trained, _ in findings.trained if trained.drill)
    drills = sum(bool(trained.drill) for trained, _ in findings.trained)
    if drills:
        found.append((f"{refused} of {drills}", "planted faults refused"))
    if findings.rollouts:
        caught = sum(result.ok for result in findings.rollouts)
        found += [
            (f"{caught} of {len(findings.rollouts)}", "rollouts ended as they must"),
            (f"{sum(not item.ok for item in findings.rollout_outcomes)}", "failed requests in rollouts"),
        ]
    seconds = board.seconds
    found.append((f"{int(seconds // 60)}:{int(seconds % 60):02d}", "minutes in all"))
    return found


def releases(findings: Findings) -> list[tuple[str, Release, str, str]]:
    """Champion and candidate side by side: role, release, AUC on the newest matured weeks, verdict."""
    if findings.champion is None:
        return []
    candidate = findings.candidate
    card = findings.card(candidate.model.name, version=candidate.model.version) if candidate else None
    shown = [("champion", findings.champion, _metric(card.champion_metrics) if card else "-", "")]
    if candidate and card:
        shown.append(("candidate", candidate, _metric(card.metrics), card.verdict.value))
    return shown


def _metric(metrics: Mapping[str, Interval]) -> str:
    item = metrics.get("auc")
    if item is None or item.value is None:
        return "-"
    return f"{item.value:.3f}" + (f" ({item.low:.3f} to {item.high:.3f})" if item.low and item.high else "")
