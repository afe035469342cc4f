"""The page is one file that loads nothing, whatever was reached."""

from __future__ import annotations

import datetime as dt
import re

import polars as pl
import pytest

from flightdeck.contracts.card import Digests, GateResult, Interval, ModelCard
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.release import ModelRef, Release
from flightdeck.lab.findings import Findings
from flightdeck.lab.report import render
from flightdeck.lab.requests import MonthQuality, Trained
from flightdeck.lab.users import Outcome
from flightdeck.progress import Board
from pipelines.data.ingest import DayResult, Status

T0 = dt.datetime(2013, 7, 1, 4, tzinfo=dt.UTC)
SHA = "ab" * 32


def card(version: str, verdict: Verdict) -> ModelCard:
    digests = Digests(
        git_commit="c" * 40, lock_sha256=SHA, spec_sha256=SHA, holdout_sha256=SHA, table_versions={"flights": 3},
        feature_export="x1",
    )  # fmt: skip
    return ModelCard(
        model="late", version=version, sha256=SHA, created_at=T0, purpose="p", horizon_min=120,
        feature_service="late_v1", features=["a"], train_from=T0, train_until=T0, holdout_from=T0, holdout_until=T0,
        train_rows=10, holdout_rows=5, params={}, metrics={"auc": Interval(value=0.74, low=0.71, high=0.77)},
        champion_version="1", champion_metrics={"auc": Interval(value=0.73, low=0.7, high=0.76)}, slices=[],
        importances={"departures_1h": 0.02, "temp_f": 0.01}, digests=digests,
        gates=[GateResult(gate="quality", verdict=verdict, measured=0.7, margin=0.1, reason="<b>AUC</b> & more")],
        verdict=verdict, reason="because <script>",
    )  # fmt: skip


@pytest.fixture
def board() -> Board:
    board = Board(["one", "two"])
    with board.stage("one") as stage:
        stage.figure("42 rows")
        stage.expect(False, "too few")
    return board


@pytest.fixture
def findings() -> Findings:
    found = Findings(T0, commit="d" * 40)
    day = dt.date(2013, 1, 1)
    found.days = [
        DayResult("flights", day, Status.WRITTEN, delivered=900, written=900),
        DayResult("flights", day + dt.timedelta(days=1), Status.QUARANTINED, delivered=940, reason="range of delay"),
    ]
    found.monthly_late = [("2013-01", 0.25, 900), ("2013-02", 0.21, 800)]
    found.champion_versions = {"late": "1"}
    found.champion, found.candidate = (
        Release(
            image="e" * 40,
            model=ModelRef(name="late", version=version, sha256=SHA),
            feature_service="late_v1",
        )  # type: ignore[call-arg]
        for version in ("1", "2")
    )
    found.trained = [
        (Trained("r1", "1", SHA, "PROMOTE", "fine", "first champion", "", 1.0, 1.0), card("1", Verdict.PROMOTE)),
        (Trained("r2", "2", SHA, "REJECT", "no <script>", "planted leak", "leak", 1.0, 1.0), card("2", Verdict.REJECT)),
    ]
    found.months = {
        "late": [
            MonthQuality("late", f"2013-0{month}", version, 0.7, 10, month < 6)
            for month in (5, 6, 7)
            for version in "12"
        ]
    }
    found.speed, found.replayed, found.pace = 40_000.0, (T0, T0 + dt.timedelta(days=2)), "measured 900 answers/s"
    found.outcomes = [
        Outcome(
            0, f"f{n}", n / 100, n / 100, n / 100 + 0.01, 200, 0.5, ["congestion: missing"] if n % 9 == 0 else [], ""
        )
        for n in range(400)
    ]
    found.predictions = pl.DataFrame(
        {
            "asked_at_utc": [T0 + dt.timedelta(minutes=n) for n in range(400)],
            "label": [n % 3 == 0 for n in range(400)],
            "score": [(n % 7) / 7 for n in range(400)],
            "age_views": [["weather", "congestion"]] * 400,
            "ages_s": [[1800.0, None]] * 400,
        }
    ).with_columns(pl.col("label").cast(pl.Int8))
    return found


def test_a_run_that_reached_nothing_still_has_a_page(board: Board):
    page = render(Findings(T0), board)
    assert "not reached" in page
    assert "fell short: too few" in page


def test_every_part_that_was_reached_is_on_the_page(findings: Findings, board: Board):
    page = render(findings, board)
    for words in ("42 rows", "range of delay", "planted leak", "REJECT", "late v2", "congestion: missing", "1 of 1"):
        assert words in page, words
    assert page.count("<svg") == 11, "every picture but that of the delay model, which has no months here"


def test_the_page_loads_nothing_and_runs_nothing(findings: Findings, board: Board):
    page = render(findings, board)
    assert not re.search(r"""(src|href)\s*=\s*["'](?!#)""", page)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "<script" not in page, "what gates and sources say is text, never markup"


def test_pictures_take_their_colours_from_the_page_so_that_dark_is_dark(findings: Findings, board: Board):
    page = render(findings, board)
    svgs = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert all("var(--" in svg for svg in svgs)
    ids = [found for svg in svgs for found in set(re.findall(r'\bid="([^"]+)"', svg))]
    assert len(ids) == len(set(ids)), "pictures must not share ids: one would clip the other"
    for svg in svgs:
        own = set(re.findall(r'\bid="([^"]+)"', svg))
        used = set(re.findall(r"url\(#([^)]+)\)", svg)) | set(re.findall(r'href="#([^"]+)"', svg))
        assert used <= own
