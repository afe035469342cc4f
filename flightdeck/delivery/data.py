"""Entry point of the gate `data`: the checks of the lake over a committed sample and over the source's newest days.

Both go through the very ingest that fills the lake, into a lake of this run.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from flightdeck.delivery import drift
from flightdeck.delivery.outcome import Finding, Outcome
from pipelines.data.ingest import DayResult, Status, ingest_days
from pipelines.data.lake import Lake
from pipelines.use_case import SourceTable, UseCase

GATE = "data"
NEWEST_DAYS = 7
TRAILING_DAYS = 28  # before the newest ones: what the volume of a day is compared with
HEAD = ("data", "table", "days", "rows", "result")
DRIFT_HEAD = ("table", "column", "PSI")
DRIFT_ROWS = 8
MEND = (
    "mend what delivers it (pipelines/flights/source.py, or the file), not the rule; where the rule is wrong, change "
    "it in pipelines/flights/schema.py and say why (docs/data.md)"
)


def check(use_case: UseCase) -> Outcome:
    """Run the suites, and note what drifted."""
    findings: list[Finding] = []
    rows: list[tuple[str, ...]] = []
    says: list[str] = []
    not_run: list[str] = []
    for what, judge in (("the committed sample", _sample), ("the newest days", _newest)):
        try:
            results = judge(use_case)
        except Exception as error:  # whatever the code of a source does: data that cannot be read are not good
            findings.append(Finding(what=f"{what} cannot be read: {type(error).__name__}: {error}", do=MEND))
            continue
        if results is None:
            not_run.append(f"the sample: the use case {use_case.name} commits none (UseCase.sample, docs/data.md)")
            continue
        findings += refused(what, results)
        rows += summary(what, results)
        says += remarks(what, results)
    tables = {"Data checks": (HEAD, *rows)} if rows else {}
    try:
        said, moved = _drift(use_case)
        says.append(said)
        tables |= {"Drift note (blocks nothing)": (DRIFT_HEAD, *moved)} if moved else {}
    except Exception as error:  # a note is no gate
        not_run.append(f"the drift note: {type(error).__name__}: {error}")
    return Outcome(gate=GATE, findings=tuple(findings), says=tuple(says), tables=tables, not_run=tuple(not_run))


def refused(what: str, results: Sequence[DayResult]) -> list[Finding]:
    """Days that the lake would quarantine, and tables of which nothing came."""
    found = [
        Finding(what=f"{what}, {it.table} of {it.day} ({it.delivered:,} rows): {it.reason}", do=MEND)
        for it in results
        if it.status is Status.QUARANTINED
    ]
    for table in dict.fromkeys(it.table for it in results):
        if all(it.status in {Status.MISSING, Status.PENDING} for it in results if it.table == table):
            found.append(Finding(what=f"{what}: the source gives no rows of {table} at all", do=MEND))
    return found


def summary(what: str, results: Sequence[DayResult]) -> list[tuple[str, ...]]:
    """A row per table."""
    rows: list[tuple[str, ...]] = []
    for table in dict.fromkeys(it.table for it in results):
        mine = [it for it in results if it.table == table and it.status is not Status.MISSING]
        days = sorted(it.day for it in mine)
        bad = sum(it.status is Status.QUARANTINED for it in mine)
        span = "none" if not days else str(days[0]) if len(days) == 1 else f"{len(days)}, {days[0]} to {days[-1]}"
        total = sum(it.delivered for it in mine)
        rows.append((what, table, span, f"{total:,}", f"{bad} refused" if bad or not days else "fit for the lake"))
    return rows


def remarks(what: str, results: Sequence[DayResult]) -> list[str]:
    """Which days the source does not have, and how many rows were fit."""
    absent = [f"{it.table} of {it.day}" for it in results if it.status is Status.MISSING]
    good = sum(it.delivered for it in results if it.status is not Status.QUARANTINED)
    told = [f"{what}: {good:,} rows are fit for the lake"]
    return told + ([f"{what}: the source has no {', no '.join(absent)}"] if absent else [])


def _sample(use_case: UseCase) -> list[DayResult] | None:
    if use_case.sample is None:
        return None
    frames = use_case.sample()
    days = sorted({day for name, frame in frames.items() if not use_case.table(name).static for day in frame["day"]})
    if not days:
        raise ValueError("it has no rows of any day")

    def only(table: SourceTable) -> SourceTable:
        frame = frames.get(table.name)
        if frame is None:
            raise ValueError(f"it has no table {table.name}")
        if table.static:
            return dataclasses.replace(table, read_day=lambda _: frame)
        return dataclasses.replace(table, read_day=lambda day: frame.filter(pl.col("day") == day))

    sampled = dataclasses.replace(use_case, tables=tuple(map(only, use_case.tables)))
    kept = set(days) | {use_case.first_day}
    return [it for it in _ingested(sampled, days[0], days[-1]) if it.day in kept]


def _newest(use_case: UseCase) -> list[DayResult]:
    last = use_case.last_day
    begins = last - dt.timedelta(days=NEWEST_DAYS - 1)
    static = {table.name for table in use_case.tables if table.static}
    results = _ingested(use_case, begins - dt.timedelta(days=TRAILING_DAYS), last)
    return [it for it in results if it.day >= begins or it.table in static]


def _ingested(use_case: UseCase, first: dt.date, last: dt.date) -> list[DayResult]:
    with tempfile.TemporaryDirectory(prefix="flightdeck-data-") as folder:
        root = Path(folder)
        return list(ingest_days(use_case, Lake(root / "lake"), root / "quarantine", first, last))


def _drift(use_case: UseCase) -> tuple[str, list[tuple[str, ...]]]:
    found = drift.spans(use_case.first_day, use_case.last_day)
    if found is None:
        return "drift note: the source has fewer than eight weeks, too few to compare", []
    moved: list[tuple[float, str, str]] = []
    for table in use_case.tables:
        if not table.static:
            before, after = (
                pl.concat([table.read_day(day) for day in use_case.days(*span)])
                for span in (found.reference, found.newest)
            )
            moved += [(value, table.name, column) for column, value in drift.moves(before, after).items()]
    moved.sort(reverse=True)
    against = "the same season a year before" if found.season else (
        "the four weeks before, since the source has no same season of an earlier year"
    )  # fmt: skip
    many = sum(value > drift.MOVED for value, _, _ in moved)
    said = (
        f"drift note, blocks nothing: {found.newest[0]} to {found.newest[1]} against {against}: {many} of {len(moved)} "
        f"columns moved (PSI above {drift.MOVED:g})"
    )
    return said, [(table, column, f"{value:.2f}") for value, table, column in moved[:DRIFT_ROWS]]
