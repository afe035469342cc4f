"""Adapter: bad days, kept whole. One folder per delivery: all rows as Parquet, the failures as JSON, text and HTML.

Folder: `<quarantine>/<table>/<day>/<digest of the rows>/`. The same bad delivery, tried again, is the same folder. A
later good delivery of the day resolves its folders: they stay, marked with `resolved.json`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import html
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipelines.data.checks import Failure

ROWS, FAILURES, TEXT, PAGE, RESOLVED = "rows.parquet", "failures.json", "failures.txt", "failures.html", "resolved.json"


@dataclasses.dataclass(frozen=True)
class Quarantined:
    """One bad delivery; times are wall or clock time of whoever ingested, ISO 8601."""

    table: str
    day: dt.date
    folder: Path
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
    root: Path, table: str, day: dt.date, frame: pl.DataFrame, failures: Sequence[Failure], *, at: dt.datetime
) -> Quarantined:
    """Keep the delivery and its failures; all or nothing, and the same delivery once."""
    parent = root / table / day.isoformat()
    parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=".staged-", dir=parent))
    try:
        frame.write_parquet(staged / ROWS)
        digest = hashlib.sha256((staged / ROWS).read_bytes()).hexdigest()[:16]
        item = Quarantined(table, day, parent / digest, frame.height, at.isoformat(), tuple(failures), None)
        (staged / FAILURES).write_text(json.dumps(_as_json(item), indent=2))
        (staged / TEXT).write_text(as_text(item))
        (staged / PAGE).write_text(as_page(item))
        staged.chmod(0o755)  # made for its owner alone
        try:
            staged.rename(item.folder)  # atomic: readers see the folder whole or not at all
        except OSError:
            if not item.folder.is_dir():
                raise
            # Delivered before, or by another process just now; bad again, so no longer resolved.
            (item.folder / RESOLVED).unlink(missing_ok=True)
            shutil.rmtree(staged)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return item


def resolve(root: Path, table: str, day: dt.date, *, at: dt.datetime) -> int:
    """Mark the day's quarantined deliveries as healed by a later good one. Returns how many were open."""
    opened = [item for item in find(root, table, day) if item.resolved is None]
    for item in opened:
        staged = item.folder / f".{RESOLVED}.{os.getpid()}"
        staged.write_text(json.dumps({"resolved_at": at.isoformat()}))
        staged.rename(item.folder / RESOLVED)
    return len(opened)


def find(root: Path, table: str | None = None, day: dt.date | None = None) -> list[Quarantined]:
    """Quarantined deliveries, by table and day, resolved ones among them."""
    pattern = f"{table or '*'}/{day.isoformat() if day else '*'}/*/{FAILURES}"
    return [_read(path.parent) for path in sorted(root.glob(pattern)) if not path.parent.name.startswith(".")]


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


def _read(folder: Path) -> Quarantined:
    content = json.loads((folder / FAILURES).read_text())
    resolved = folder / RESOLVED
    return Quarantined(
        table=content["table"],
        day=dt.date.fromisoformat(content["day"]),
        folder=folder,
        rows=content["rows"],
        at=content["quarantined_at"],
        failures=tuple(Failure(**{**item, "examples": tuple(item["examples"])}) for item in content["failures"]),
        resolved=json.loads(resolved.read_text())["resolved_at"] if resolved.exists() else None,
    )
