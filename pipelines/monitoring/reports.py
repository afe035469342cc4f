"""Adapter: the monitor's reports in the lake table `monitor_reports`; of a day looked at twice the newest counts."""

from __future__ import annotations

import datetime as dt

import polars as pl

from flightdeck.contracts.alarm import MonitorReport
from pipelines.data.lake import Lake, newest

TABLE = "monitor_reports"
KEY = ["model", "version", "day"]


def save(lake: Lake, report: MonitorReport) -> None:
    """Append a report.

    Raises:
        LakeError: the lake does not answer; nothing was written.
    """
    row = {
        "model": report.model, "version": report.version, "day": report.day, "status": report.status.value,
        "alarms": len(report.alarms), "report": report.model_dump_json(), "ingested_at": report.at,
    }  # fmt: skip
    frame = pl.DataFrame([row]).with_columns(
        pl.col("alarms").cast(pl.Int32), pl.col("ingested_at").cast(pl.Datetime("us", "UTC"))
    )
    lake.append(TABLE, frame)


def reports_of(
    lake: Lake, model: str, first: dt.date, last: dt.date, version: str | None = None
) -> list[MonitorReport]:
    """The newest report of each version and day, in order of day and version; none when nothing was looked at yet.

    Raises:
        LakeError: the lake does not answer.
    """
    if not lake.exists(TABLE):
        return []
    filters = [("model", "=", model), ("day", ">=", first), ("day", "<=", last)]
    rows = pl.from_arrow(lake.read(TABLE, filters=filters))
    assert isinstance(rows, pl.DataFrame)
    if version is not None:
        rows = rows.filter(pl.col("version") == version)
    ordered = newest(rows, KEY).sort("day", "version")
    return [MonitorReport.model_validate_json(text) for text in ordered["report"]]
