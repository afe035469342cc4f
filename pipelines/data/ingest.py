"""Entry to the lake: days of a source, checked, then committed. Safe to repeat, to interrupt and to run twice at once.

A record is written when its content differs from the newest version of its key in the lake, so running a day twice
changes nothing, late records join their day, and a corrected record is appended beside the one it corrects.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from pipelines.data import quarantine
from pipelines.data.checks import Failure, check_freshness, check_rows, check_volume, pandera_schema
from pipelines.data.files import Root
from pipelines.data.lake import Lake, Snapshot, newest
from pipelines.use_case import SourceTable, UseCase

if TYPE_CHECKING:
    from pandera.polars import DataFrameSchema

Fault = Callable[[pl.DataFrame], pl.DataFrame]  # what a day as delivered becomes: for tests and the lab

DAYS_PER_COMMIT = 7  # one commit and one pandera pass cost about 40 ms together, whether for one day or seven
CHECKPOINT_FROM_COMMITS = 20


class Status(enum.StrEnum):
    """What became of one day of one table."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    QUARANTINED = "quarantined"
    MISSING = "missing"  # the source has no such day
    PENDING = "pending"  # nothing of the day is known yet by the clock


@dataclasses.dataclass(frozen=True)
class DayResult:
    """One day of one table after ingest.

    Args:
        delivered: rows the source gave.
        written: rows appended to the lake, of which `corrected` replace an earlier version.
        skipped: rows the lake had already, with equal content.
        healed: quarantined deliveries of this day that this good one resolves.
        reason: why, when quarantined, missing or pending.
        seconds: of work, the day's share of its commit.
    """

    table: str
    day: dt.date
    status: Status
    delivered: int = 0
    written: int = 0
    corrected: int = 0
    skipped: int = 0
    healed: int = 0
    reason: str = ""
    seconds: float = 0.0


def ingest_day(
    use_case: UseCase,
    lake: Lake,
    quarantine_root: Root,
    day: dt.date,
    *,
    tables: Sequence[str] | None = None,
    faults: Mapping[str, Fault] | None = None,
    now_utc: dt.datetime | None = None,
) -> list[DayResult]:
    """Ingest one day; `faults` by table name. See `ingest_days`."""
    planted = {(table, day): fault for table, fault in (faults or {}).items()}
    return list(ingest_days(use_case, lake, quarantine_root, day, day, tables=tables, faults=planted, now_utc=now_utc))


def ingest_days(
    use_case: UseCase,
    lake: Lake,
    quarantine_root: Root,
    first: dt.date | None = None,
    last: dt.date | None = None,
    *,
    tables: Sequence[str] | None = None,
    faults: Mapping[tuple[str, dt.date], Fault] | None = None,
    now_utc: dt.datetime | None = None,
    days_per_commit: int = DAYS_PER_COMMIT,
    progress: Callable[[DayResult], None] | None = None,
) -> Iterator[DayResult]:
    """Ingest the source's days from `first` to `last`, inclusive, and yield each day's result once it is committed.

    Args:
        use_case: whose tables to ingest; `tables` names some of them, all when None.
        lake: where good days go.
        quarantine_root: where bad days go, whole: a folder, a URL or `Files`.
        faults: planted faults by (table, day): what the checks see is `fault(delivered frame)`.
        now_utc: the clock. Records that the source delivers later are left for a later run, records from the future
            are a failure, and corrections and healed days count as known from now. None: a backfill, in which the
            source's own delivery times count.
        days_per_commit: neighbouring days that share a commit; each day is still judged by itself.
        progress: called with each result before it is yielded.
    Raises:
        ValueError: the range lies outside the source's days, or a name is no table.
        LakeError, OSError: lake or quarantine do not answer; whole commits are left, run it again.
    """
    days = list(use_case.days(first, last))
    if not days:
        raise ValueError(
            f"no days from {first} to {last}; {use_case.name} has {use_case.first_day} to {use_case.last_day}"
        )
    if now_utc is not None and now_utc.tzinfo is None:
        raise ValueError(f"now_utc must be timezone-aware; got {now_utc}")
    chosen = use_case.tables if tables is None else tuple(use_case.table(name) for name in tables)
    runs = [
        _TableIngest(use_case, lake, quarantine_root, table, dict(faults or {}), now_utc) for table in chosen
    ]  # fmt: skip
    for start in range(0, len(days), max(1, days_per_commit)):
        block = days[start : start + max(1, days_per_commit)]
        for run in runs:
            if run.table.static and start:
                continue
            for result in run.ingest([use_case.first_day] if run.table.static else block):
                if progress is not None:
                    progress(result)
                yield result
    for run in runs:
        if run.commits >= CHECKPOINT_FROM_COMMITS:
            lake.checkpoint(run.table.name)


@dataclasses.dataclass
class _TableIngest:
    """One table over one run: the schema and the row counts are read once."""

    use_case: UseCase
    lake: Lake
    quarantine_root: Root
    table: SourceTable
    faults: dict[tuple[str, dt.date], Fault]
    now_utc: dt.datetime | None
    commits: int = 0

    def __post_init__(self) -> None:
        self.schema: DataFrameSchema = pandera_schema(self.table.rules)
        self.rows_per_day = self.lake.snapshot(self.table.name).rows_per_day()

    def ingest(self, days: Sequence[dt.date]) -> list[DayResult]:
        """Deliver, check and commit neighbouring days together."""
        started = time.perf_counter()
        results: dict[dt.date, DayResult] = {}
        delivered: dict[dt.date, pl.DataFrame] = {}
        for day in days:
            frame, absent = self._deliver(day)
            if absent is None:
                delivered[day] = frame
            else:
                results[day] = absent
        good: dict[dt.date, pl.DataFrame] = {}
        for day, failures in self._check(delivered).items():
            if failures:
                results[day] = self._quarantine(day, delivered[day], failures)
            else:
                good[day] = delivered[day]
        if good:
            results |= self._commit(good)
        seconds = (time.perf_counter() - started) / len(days)
        return [dataclasses.replace(results[day], seconds=seconds) for day in days]

    def _deliver(self, day: dt.date) -> tuple[pl.DataFrame, DayResult | None]:
        name = self.table.name
        frame = self.table.read_day(day)
        fault = self.faults.get((name, day))
        if fault is None and not frame.height:
            return frame, DayResult(name, day, Status.MISSING, reason=f"the source has no {name} of {day}")
        if self.now_utc is not None:
            known = frame.filter(pl.col("ingested_at") <= self.now_utc)
            if frame.height and not known.height:
                reason = f"nothing of {day} is known by {self.now_utc:%Y-%m-%d %H:%MZ}"
                return known, DayResult(name, day, Status.PENDING, reason=reason)
            frame = known
        return (frame if fault is None else fault(frame)), None

    def _check(self, delivered: Mapping[dt.date, pl.DataFrame]) -> dict[dt.date, list[Failure]]:
        """Failures per day. All days go through the schema at once; only when that fails, one by one."""
        rows = dict.fromkeys(delivered, True)
        if len(delivered) > 1 and not self._row_failures(delivered.values()):
            rows = dict.fromkeys(delivered, False)
        failures: dict[dt.date, list[Failure]] = {}
        for day, frame in delivered.items():
            found = self._row_failures([frame]) if rows[day] else []
            broken = any(item.check in {"checks", "column", "type"} for item in found)
            found += [] if broken else self._day_failures(day, frame)
            failures[day] = found
            if not found:
                self.rows_per_day[day] = frame.height
        return failures

    def _row_failures(self, frames: Iterable[pl.DataFrame]) -> list[Failure]:
        try:
            together = pl.concat(list(frames))
        except pl.exceptions.PolarsError as error:  # columns or types differ between the days
            return [Failure("column", "(table)", "equal columns on all days", str(error), 0)]
        return check_rows(together, self.table.rules, self.schema, self.table.key)

    def _day_failures(self, day: dt.date, frame: pl.DataFrame) -> list[Failure]:
        rules = self.table.rules
        first = day - dt.timedelta(days=rules.volume.trailing_days)
        trailing = [rows for past, rows in self.rows_per_day.items() if first <= past < day]
        end = self.use_case.day_start_utc(day + dt.timedelta(days=1))
        complete = self.now_utc is None or self.now_utc >= end + rules.freshness.complete_after
        failures = check_volume(frame.height, rules.volume, trailing, complete=complete)
        return failures + check_freshness(
            frame, day, self.use_case.time_zone.key, rules.freshness, now_utc=self.now_utc
        )

    def _quarantine(self, day: dt.date, frame: pl.DataFrame, failures: Sequence[Failure]) -> DayResult:
        quarantine.put(self.quarantine_root, self.table.name, day, frame, failures, at=self._at())
        return DayResult(
            self.table.name, day, Status.QUARANTINED, delivered=frame.height, reason=quarantine.reason(failures)
        )

    def _commit(self, good: Mapping[dt.date, pl.DataFrame]) -> dict[dt.date, DayResult]:
        name = self.table.name
        opened = {
            day for day in good if any(i.resolved is None for i in quarantine.find(self.quarantine_root, name, day))
        }
        frame = _with_content_sha(pl.concat(good.values()))
        written: list[pl.DataFrame] = []

        def build(snapshot: Snapshot) -> pl.DataFrame | None:
            restamp = opened if self.now_utc is not None else set()
            late = pl.col("day").is_in(sorted(restamp))
            now = pl.lit(self.now_utc).cast(frame.schema["ingested_at"])
            stamped = frame.with_columns(ingested_at=pl.when(late).then(now).otherwise("ingested_at"))
            rows = new_rows(stamped, snapshot, self.table.key, now_utc=self.now_utc)
            written[:] = [rows]
            return rows.drop("corrects")

        before = self.lake.append_once(
            name,
            [f"ingest/{day}" for day in good],
            build,
            partition_by=["day"],
            metadata={"flightdeck.source": self.use_case.name, "flightdeck.days": f"{min(good)}/{max(good)}"},
        )
        assert before >= 0, "a good day was neither written nor there"
        self.commits += bool(written[0].height)
        counts = {
            day: (rows, corrected)
            for day, rows, corrected in written[0].group_by("day").agg(pl.len(), pl.col("corrects").sum()).iter_rows()
        }
        results = {}
        for day, part in good.items():
            rows, corrected = counts.get(day, (0, 0))
            healed = quarantine.resolve(self.quarantine_root, name, day, at=self._at()) if day in opened else 0
            results[day] = DayResult(
                name, day, Status.WRITTEN if rows else Status.UNCHANGED, delivered=part.height, written=rows,
                corrected=corrected, skipped=part.height - rows, healed=healed,
            )  # fmt: skip
        return results

    def _at(self) -> dt.datetime:
        return self.now_utc or dt.datetime.now(dt.UTC)


def new_rows(
    frame: pl.DataFrame, snapshot: Snapshot, key: Sequence[str], *, now_utc: dt.datetime | None
) -> pl.DataFrame:
    """The rows of `frame` whose content the lake does not have as the newest of their key; adds `corrects` (bool).

    A correction must be newer than what it corrects: when the source did not stamp it so, it counts as known from
    `now_utc`, and never less than a microsecond after the version it corrects.
    """
    days = sorted(set(frame["day"].unique()) & set(snapshot.rows_per_day()))
    if not days:
        return frame.with_columns(corrects=pl.lit(value=False))
    columns = [*key, "ingested_at", "content_sha"]
    known = newest(snapshot.read(columns, [("day", "in", days)]), key)
    joined = frame.join(known, on=list(key), how="left", suffix="_known", nulls_equal=True)
    changed = joined.filter(
        pl.col("content_sha_known").is_null() | (pl.col("content_sha") != pl.col("content_sha_known"))
    )
    stale = pl.col("ingested_at") <= pl.col("ingested_at_known")
    clock = pl.lit(now_utc).cast(frame.schema["ingested_at"])
    after = pl.max_horizontal(clock, pl.col("ingested_at_known") + pl.duration(microseconds=1))
    return changed.with_columns(
        corrects=pl.col("ingested_at_known").is_not_null(),
        ingested_at=pl.when(stale.fill_null(value=False)).then(after).otherwise("ingested_at"),
    ).drop("ingested_at_known", "content_sha_known")


def _with_content_sha(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `content_sha`: 16 hex digits of the sha256 of all columns but `ingested_at`; null differs from empty."""
    columns = [name for name in sorted(frame.columns) if name != "ingested_at"]
    values = [pl.col(name).cast(pl.String).fill_null("\x00") for name in columns]
    text = frame.select(pl.concat_str(values, separator="\x1f"))
    shas = [hashlib.sha256(line.encode()).hexdigest()[:16] for line in text.to_series()]
    return frame.with_columns(content_sha=pl.Series(shas, dtype=pl.String))
