"""Adapter: bad days, kept whole. One folder per delivery: all rows as Parquet, the failures as JSON, text and HTML.

Folder: `<quarantine>/<table>/<day>/<digest of the rows>/`. The same bad delivery, tried again, is the same folder. A
later good delivery of the day resolves its folders: they stay, marked with `resolved.json`.

The root is a folder or an object store, which knows no rename of folders: `failures.json` is written last and read
first, so a delivery is there when this one file is.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import html
import io
import json
from collections.abc import Sequence

import polars as pl

from pipelines.data.checks import Failure
from pipelines.data.files import Files, Root, files_at

ROWS, FAILURES, TEXT, PAGE, RESOLVED = "rows.parquet", "failures.json", "failures.txt", "failures.html", "resolved.json"


@dataclasses.dataclass(frozen=True)
class Quarantined:
    """One bad delivery; `folder` is a path or URL, times are wall or clock time of whoever ingested, ISO 8601."""

    table: str
    day: dt.date
    folder: str
    rows: int
    at: str
    failures: tuple[Failure, ...]
    resolved: str | None

    @property
    def reason(self) -> str:
        """In one line."""
        return reason(self.failures)


def reason(failures: Sequence[Failure]) -> str:
    """The failures in one line, for logs and tables."""
    parts = [f"{item.check} of {item.column}: expected {item.expected}, found {item.found}" for item in failures[:3]]
    more = f"; and {len(failures) - 3} more" if len(failures) > 3 else ""
    return "; ".join(parts) + more


def put(
    root: Root, table: str, day: dt.date, frame: pl.DataFrame, failures: Sequence[Failure], *, at: dt.datetime
) -> Quarantined:
    """Keep the delivery and its failures; all or nothing, and the same delivery once.

    Raises:
        OSError: the place does not answer, or is full; the delivery does not show, and the same call again mends it.
    """
    files, buffer = files_at(root), io.BytesIO()
    frame.write_parquet(buffer)
    content = buffer.getvalue()
    name = f"{table}/{day.isoformat()}/{hashlib.sha256(content).hexdigest()[:16]}"
    item = Quarantined(table, day, files.where(name), frame.height, at.isoformat(), tuple(failures), None)
    if not files.exists(f"{name}/{FAILURES}"):
        files.write(f"{name}/{ROWS}", content)
        files.write(f"{name}/{TEXT}", as_text(item).encode())
        files.write(f"{name}/{PAGE}", as_page(item).encode())
        files.write(f"{name}/{FAILURES}", json.dumps(_as_json(item), indent=2).encode())
    else:  # delivered before, or by another process just now; bad again, so no longer resolved
        files.delete(f"{name}/{RESOLVED}")
    return item


def resolve(root: Root, table: str, day: dt.date, *, at: dt.datetime) -> int:
    """Mark the day's quarantined deliveries as healed by a later good one. Returns how many were open."""
    files = files_at(root)
    opened = [item for item in find(files, table, day) if item.resolved is None]
    for item in opened:
        name = item.folder.removeprefix(f"{files.root}/")
        files.write(f"{name}/{RESOLVED}", json.dumps({"resolved_at": at.isoformat()}).encode())
    return len(opened)


def find(root: Root, table: str | None = None, day: dt.date | None = None) -> list[Quarantined]:
    """Quarantined deliveries, by table and day, resolved ones among them."""
    files = files_at(root)
    names = [
        f"{of}/{on}/{digest}"
        for of in ([table] if table else files.folders())
        for on in ([day.isoformat()] if day else files.folders(of))
        for digest in files.folders(f"{of}/{on}")
    ]
    return [_read(files, name) for name in names if files.exists(f"{name}/{FAILURES}")]


def as_text(item: Quarantined) -> str:
    """The failures as a plain table."""
    head = ("check", "column", "expected", "found", "rows", "for example")
    lines = [head, *_cells(item)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    body = "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=True)), line[-1]]).rstrip()
        for line in lines
    )
    return f"{_title(item)}\n\n{body}\n"


def as_page(item: Quarantined) -> str:
    """The failures as a self-contained HTML page."""
    rows = "\n".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in _cells(item)
    )
    title = html.escape(_title(item))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2rem;max-width:75rem}}table{{border-collapse:collapse}}
th,td{{text-align:left;padding:.35rem .7rem;border-bottom:1px solid #ccc;vertical-align:top}}
th{{background:#f3f3f3}}</style>
</head><body><h1>{title}</h1>
<table><tr><th>check</th><th>column</th><th>expected</th><th>found</th><th>rows</th><th>for example</th></tr>
{rows}
</table>
<p>All {item.rows} rows are kept beside this page in {ROWS}; none of them entered the lake.</p>
</body></html>
"""


def _title(item: Quarantined) -> str:
    return f"{item.table} of {item.day}: {item.rows} rows quarantined, {len(item.failures)} check(s) failed"


def _cells(item: Quarantined) -> list[tuple[str, ...]]:
    return [
        (failure.check, failure.column, failure.expected, failure.found, str(failure.rows), "; ".join(failure.examples))
        for failure in item.failures
    ]


def _as_json(item: Quarantined) -> dict[str, object]:
    return {
        "table": item.table,
        "day": item.day.isoformat(),
        "rows": item.rows,
        "quarantined_at": item.at,
        "failures": [dataclasses.asdict(failure) for failure in item.failures],
    }


def _read(files: Files, name: str) -> Quarantined:
    content, resolved = json.loads(files.read(f"{name}/{FAILURES}")), f"{name}/{RESOLVED}"
    return Quarantined(
        table=content["table"],
        day=dt.date.fromisoformat(content["day"]),
        folder=files.where(name),
        rows=content["rows"],
        at=content["quarantined_at"],
        failures=tuple(Failure(**{**item, "examples": tuple(item["examples"])}) for item in content["failures"]),
        resolved=json.loads(files.read(resolved))["resolved_at"] if files.exists(resolved) else None,
    )
