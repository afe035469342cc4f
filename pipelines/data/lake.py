"""Adapter: the lake, one Delta table per folder. The only module of the pipelines that writes Delta tables.

A commit is atomic: a killed process leaves either the whole commit or nothing (at most an unreferenced file, which
`vacuum` removes). Writers that build on what they read go through `append_once`: Delta's optimistic transactions
(protocol action `txn`) refuse the second of two commits with one application id, and it starts again on the new state.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from pipelines.data.files import Files
from pipelines.data.object_store import delta_options, is_url, polars_options, words

Frame: TypeAlias = Any  # pl.DataFrame or pa.Table: anything that exports Arrow
Filters: TypeAlias = Sequence[tuple[str, str, Any]]

# The log is never cleaned up behind our back: a version that a model pins stays readable however old it is. Its
# entries are small; checkpoints keep opening fast, and `pipelines.data.upkeep` removes the data that nobody needs.
CONFIGURATION = {"delta.enableExpiredLogCleanup": "false"}
MAX_ATTEMPTS = 12  # with backoff below: about 10 s against a writer that never stops


class LakeError(RuntimeError):
    """A table is absent, the store does not answer, or a commit did not get through."""


@contextlib.contextmanager
def _clear(place: str, what: str) -> Iterator[None]:
    """Turn delta-rs's, polars's and the store's errors into ours, in one line."""
    try:
        yield
    except (DeltaError, OSError, pl.exceptions.PolarsError) as error:
        raise LakeError(f"{place.rstrip('/')}: {what}: {words(error)}") from error


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """One version of a table, on which a commit is built; `table` is None before the first commit."""

    table: DeltaTable | None

    @property
    def version(self) -> int:
        """The table's version, -1 before the first commit."""
        return -1 if self.table is None else int(self.table.version())

    def read(self, columns: Sequence[str] | None = None, filters: Filters | None = None) -> pl.DataFrame:
        """Rows of this version; an empty frame without columns before the first commit."""
        if self.table is None:
            return pl.DataFrame()
        return _rows(self.table, columns, filters)

    def rows(self) -> int:
        """Rows of this version, every correction counted, from the log alone."""
        if self.table is None:
            return 0
        return int(_files(self.table)["num_records"].sum())

    def rows_per_day(self) -> dict[dt.date, int]:
        """Rows per partition `day`, from the log alone; empty before the first commit."""
        if self.table is None:
            return {}
        actions = _files(self.table)
        if "partition.day" not in actions.columns:
            return {}
        totals = actions.group_by("partition.day").agg(pl.col("num_records").sum())
        return {day: int(rows) for day, rows in totals.iter_rows()}


class Lake:
    """The lake under one root folder (or an object-store URL).

    Args:
        root: a folder per table below it; a folder, or `s3://bucket[/folder]`.
        storage_options: what delta-rs needs for an object store (default: what the environment says).
    """

    def __init__(self, root: Path | str, storage_options: Mapping[str, str] | None = None) -> None:
        self._root = str(root).rstrip("/")
        self._options = dict(storage_options or delta_options()) if is_url(self._root) else None

    @property
    def root(self) -> str:
        """The folder or URL above the tables."""
        return self._root

    def path(self, table: str) -> str:
        """Folder or URL of one table."""
        return f"{self._root}/{table}"

    def exists(self, table: str) -> bool:
        """Whether the table has a first commit."""
        with self._clear(table, "cannot be looked up"):
            return bool(DeltaTable.is_deltatable(self.path(table), self._options))

    def tables(self) -> list[str]:
        """Names of the tables, sorted."""
        with self._clear("", "cannot be listed"):
            found = Files(self._root, self._options).folders()
        return [name for name in found if self.exists(name)]

    def version(self, table: str) -> int:
        """Newest version of a table.

        Raises:
            LakeError: no such table.
        """
        return int(self._open(table).version())

    def versions(self) -> dict[str, int]:
        """Newest version of every table: what a training run records to be repeatable."""
        return {table: self.version(table) for table in self.tables()}

    def snapshot(self, table: str) -> Snapshot:
        """The newest version, or an empty snapshot when there is no table yet."""
        return Snapshot(self._open(table) if self.exists(table) else None)

    def read(
        self,
        table: str,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        filters: Filters | None = None,
    ) -> pa.Table:
        """All rows, every correction of a record among them, of one version (the newest when None).

        Args:
            table: name of the table.
            version: a version of `versions()`.
            columns: only these.
            filters: a conjunction of (column, operator, value); operators =, !=, <, <=, >, >=, in, not in.
        Raises:
            LakeError: no such table or version.
        """
        return _arrow(_rows(self._open(table, version), columns, filters))

    def as_of(
        self,
        table: str,
        ingested_by_utc: dt.datetime,
        key: Sequence[str],
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        filters: Filters | None = None,
    ) -> pa.Table:
        """What was known at `ingested_by_utc`: per key the row with the newest `ingested_at` not after it.

        `columns` need not name the key or `ingested_at`. Filters must be on columns that corrections never change
        (the key, the day): they apply before the newest row is chosen.

        Raises:
            LakeError: no such table or version.
            ValueError: `ingested_by_utc` is not timezone-aware.
        """
        if ingested_by_utc.tzinfo is None:
            raise ValueError(f"as_of needs a timezone-aware time; got {ingested_by_utc}")
        wanted = None if columns is None else list(dict.fromkeys([*columns, *key, "ingested_at"]))
        rows = _rows(self._open(table, version), wanted, filters)
        frame = newest(rows.filter(pl.col("ingested_at") <= ingested_by_utc), key)
        return _arrow(frame.select(columns if columns is not None else pl.all()))

    def append(self, table: str, frame: Frame, *, partition_by: Sequence[str] = ()) -> int:
        """Append rows without reading; the table is made when absent. Returns the version after the commit."""
        return self.append_once(table, (), lambda _: frame, partition_by=partition_by)

    def append_once(
        self,
        table: str,
        transactions: Sequence[str],
        build: Callable[[Snapshot], Frame | None],
        *,
        partition_by: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> int:
        """Append what `build` makes of the current state; start again when another writer got there first.

        Args:
            table: name of the table, made when absent.
            transactions: application ids that name what is written (e.g. `ingest/2013-01-01`). Of two concurrent
                commits that share one, the second is refused and rebuilt on the new state.
            build: the rows to append given a snapshot; None or no rows appends nothing. Called again on conflict.
            partition_by: columns, for a table that is made now.
            metadata: kept with the commit.
        Returns:
            The version that holds the rows (the current one when nothing was appended).
        Raises:
            LakeError: `MAX_ATTEMPTS` conflicts in a row, or a commit that cannot succeed (a full disk, other columns).
        """
        error: Exception | None = None
        for attempt in range(MAX_ATTEMPTS):
            snapshot = self.snapshot(table)
            frame = build(snapshot)
            if frame is None or len(frame) == 0:
                return snapshot.version
            properties = CommitProperties(
                custom_metadata=dict(metadata) if metadata else None,
                app_transactions=[
                    Transaction(name, _next(snapshot, name), int(time.time() * 1000)) for name in transactions
                ],
            )
            try:
                if snapshot.table is None:
                    self._create(table, frame, partition_by)
                    continue
                write_deltalake(snapshot.table, frame, mode="append", commit_properties=properties)
            except (CommitFailedError, DeltaError, OSError) as problem:
                if not _is_conflict(problem):
                    raise LakeError(f"{self.path(table)}: nothing was written: {words(problem)}") from problem
                error = problem
                time.sleep(random.uniform(0, min(2.0, 0.02 * 2**attempt)))  # noqa: S311  jitter, not a secret
                continue
            return int(snapshot.table.version())
        raise LakeError(
            f"{self.path(table)}: {MAX_ATTEMPTS} commits in a row met another writer ({error}); run it again"
        )

    def replace(self, table: str, frame: Frame, *, where: str | None = None, partition_by: Sequence[str] = ()) -> int:
        """Replace the whole table, or the rows that the SQL predicate `where` selects, in one commit.

        Earlier versions stay readable. `frame` must satisfy `where`. Returns the new version.

        Raises:
            LakeError: another writer replaced rows meanwhile, or the commit cannot succeed; nothing was written.
        """
        with self._clear(table, "nothing was written"):
            if where is not None and self.exists(table):
                write_deltalake(self._open(table), frame, mode="overwrite", predicate=where)
            else:
                write_deltalake(
                    self.path(table),
                    frame,
                    mode="overwrite",
                    schema_mode="overwrite",
                    partition_by=list(partition_by) or None,
                    storage_options=self._options,
                    configuration=CONFIGURATION,
                )
        return self.version(table)

    def compact(self, table: str) -> int:
        """Merge small files within each partition, then write a checkpoint. Returns the version.

        Raises:
            LakeError: no such table, or another writer changed the same files meanwhile; nothing was changed.
        """
        opened = self._open(table)
        with self._clear(table, "was not compacted"):
            opened.optimize.compact()
            opened.create_checkpoint()
        return int(opened.version())

    def vacuum(self, table: str, *, keep_versions: Sequence[int], keep_days: int, dry_run: bool) -> int:
        """Remove data files that no kept version reads; returns how many. Nothing to remove makes no commit.

        Files that were removed from the table, or written by a run that was killed, within `keep_days` stay: the
        versions of that time stay readable, and so do `keep_versions` and the newest. Others lose their data.

        Raises:
            LakeError: no such table, or the store does not answer.
        """
        opened = self._open(table)
        kept = sorted({version for version in keep_versions if 0 <= version <= opened.version()})

        def listed(*, dry: bool) -> set[str]:
            files = opened.vacuum(
                keep_days * 24, dry_run=dry, enforce_retention_duration=False, full=True, keep_versions=kept or None
            )
            return {name.rpartition("/")[2] for name in files}

        with self._clear(table, "was not vacuumed"):
            # delta-rs lists what the log calls removed, again and again although it is gone, and commits each time.
            found = listed(dry=True) & Files(self._root, self._options).below(table)
            if found and not dry_run:
                listed(dry=False)
            return len(found)

    def files(self, table: str) -> int:
        """Data files of the newest version."""
        return int(_files(self._open(table)).height)

    def checkpoint(self, table: str) -> None:
        """Fold the log into a checkpoint, so that opening the table reads one file instead of hundreds."""
        opened = self._open(table)
        with self._clear(table, "no checkpoint was written"):
            opened.create_checkpoint()

    def _create(self, table: str, frame: Frame, partition_by: Sequence[str]) -> None:
        """Make the table without rows: version 0 says only what it looks like.

        (Measured with deltalake 1.6: of two first commits that carry rows, both get in, whatever they have in common.)
        """
        schema = frame.schema if isinstance(frame, pa.Table) else _arrow_schema(frame)
        DeltaTable.create(
            self.path(table),
            schema=schema,
            mode="ignore",
            partition_by=list(partition_by) or None,
            storage_options=self._options,
            configuration=CONFIGURATION,
        )

    def _clear(self, table: str, what: str) -> contextlib.AbstractContextManager[None]:
        return _clear(self.path(table), what)

    def _open(self, table: str, version: int | None = None) -> DeltaTable:
        try:
            return DeltaTable(self.path(table), version=version, storage_options=self._options)
        except TableNotFoundError as error:
            raise LakeError(f"{self.path(table)}: no such table; run `flightdeck data ingest` first") from error
        except (DeltaError, OSError) as error:
            which = "the newest version" if version is None else f"version {version}"
            raise LakeError(f"{self.path(table)}: {which} cannot be read: {words(error)}") from error


def newest(frame: pl.DataFrame, key: Sequence[str]) -> pl.DataFrame:
    """Per key the row with the newest `ingested_at`."""
    if not frame.select(key).is_duplicated().any():
        return frame
    return frame.sort("ingested_at").unique(subset=list(key), keep="last", maintain_order=True)


def _arrow_schema(frame: pl.DataFrame) -> pa.Schema:
    return _arrow(frame.head(0)).schema


def _rows(table: DeltaTable, columns: Sequence[str] | None, filters: Filters | None) -> pl.DataFrame:
    """Rows that pass; files of other days are not even opened (the log names each file's day).

    Polars reads the files itself. deltalake's pyarrow dataset calls back into Python for each file, is many times
    slower on hundreds of small ones, and in one of six runs aborted the process at its end (measured, deltalake 1.6).
    """
    # a file that the log names is gone or broken, a wrong column, a store that went away
    with _clear(table.table_uri, f"version {table.version()} cannot be read"):
        scan = pl.scan_delta(table, storage_options=polars_options(table._storage_options))
        for column, operator, value in filters or ():
            scan = scan.filter(_OPERATORS[operator](pl.col(column), value))
        return (scan if columns is None else scan.select(list(columns))).collect()


def _files(table: DeltaTable) -> pl.DataFrame:
    """The data files of a version, with their rows and partition, from the log."""
    with _clear(table.table_uri, f"version {table.version()} cannot be read"):
        return pl.DataFrame(table.get_add_actions(flatten=True))


def _arrow(frame: pl.DataFrame) -> pa.Table:
    """Without string views, which not every reader of Arrow knows."""
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


_OPERATORS: dict[str, Callable[[pl.Expr, Any], pl.Expr]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
    "in": lambda column, value: column.is_in(list(value)),
    "not in": lambda column, value: ~column.is_in(list(value)),
}


def _next(snapshot: Snapshot, transaction: str) -> int:
    if snapshot.table is None:
        return 1
    with _clear(snapshot.table.table_uri, f"version {snapshot.version} cannot be read"):
        return (snapshot.table.transaction_version(transaction) or 0) + 1


def _is_conflict(error: Exception) -> bool:
    """delta-rs has one exception type for several ends of a commit: the words tell a conflict from a full disk."""
    text = str(error).lower()
    return any(word in text for word in ("concurrent", "conflict", "already exists", "failed to commit transaction"))
