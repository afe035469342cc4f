"""Build feature tables in the lake from its source tables: Ibis expressions on DuckDB, Arrow in and out.

A snapshot at T depends only on rows that were known at T, so building a range again gives the same rows, and a longer
history can be built in pieces. The rows of the range are replaced in one commit per view.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
import warnings
from collections.abc import Callable, Mapping, Sequence

import ibis
import pyarrow as pa
import pyarrow.compute as pc

from feature_repo.transforms import BUILDS
from feature_repo.view_build import ViewBuild, grid
from pipelines.data.lake import Filters, Lake
from pipelines.use_case import UseCase

TABLE_PREFIX = "feature_"
UTC_TYPE = pa.timestamp("us", tz="UTC")
NAIVE_TYPE = pa.timestamp("us")
# A record's day (local, of its event) may precede the time at which it is known: an event may last, or come late.
# Sources are read from that much before the lookback.
DAY_MARGIN = dt.timedelta(days=4)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True)
class ViewResult:
    """One view after a build: rows of the range, the table's version, and how long it took."""

    view: str
    rows: int
    version: int
    seconds: float


def feature_table(view: str) -> str:
    """Name of the lake table that holds a view's rows."""
    return f"{TABLE_PREFIX}{view}"


def build_features(
    use_case: UseCase,
    lake: Lake,
    from_utc: dt.datetime,
    until_utc: dt.datetime,
    *,
    views: Sequence[str] | None = None,
    rebuild: bool = False,
    progress: Callable[[ViewResult], None] | None = None,
) -> list[ViewResult]:
    """Build every view's rows with `event_timestamp` in [from, until] and replace them in the lake.

    A view that settles late (its events reach the lake when all of the record is known) is rebuilt from that much
    earlier, so rows that were provisional in the run before become final in this one.

    Args:
        use_case: what says which source tables are static.
        lake: holds the sources and receives the feature tables.
        from_utc, until_utc: range of event timestamps, both included.
        views: only these.
        rebuild: replace each table whole, rows outside the range and columns of an older definition too.
        progress: called after each view.
    Raises:
        ValueError: a time without zone, an empty range, a view that has no build, or a table whose columns differ from
            the view's and `rebuild` is False.
        LakeError: a source table is not in the lake.
    """
    if not from_utc <= until_utc:
        raise ValueError(f"build_features: {from_utc} lies after {until_utc}")
    results = []
    for name in views or list(BUILDS):
        if name not in BUILDS:
            raise ValueError(f"no view {name!r} to build; there are: {', '.join(BUILDS)}")
        started = time.perf_counter()
        build = BUILDS[name]
        start = from_utc - build.settle
        tables = {
            table: read_source(use_case, lake, table, build, from_utc=start, until_utc=until_utc)
            for table in build.tables
        }
        rows = build_view(build, tables, start, until_utc)
        _same_columns(lake, build, rebuild=rebuild)
        where = None if rebuild else f"event_timestamp >= '{_sql(start)}' AND event_timestamp <= '{_sql(until_utc)}'"
        version = lake.replace(feature_table(name), rows, where=where)
        results.append(ViewResult(name, rows.num_rows, version, time.perf_counter() - started))
        if progress:
            progress(results[-1])
    return results


def build_view(
    build: ViewBuild, tables: Mapping[str, pa.Table], from_utc: dt.datetime, until_utc: dt.datetime
) -> pa.Table:
    """The view's rows with `event_timestamp` in [from, until], out of Arrow source tables.

    Returns:
        Columns: join keys, `event_timestamp`, `created_timestamp` (equal to it: the row says what was known then),
        features as float32; ordered by key and time.
    Raises:
        ValueError: a feature came out NaN or infinite, or a key has two rows at one time.
    """
    sources = [ibis.memtable(without_zone(tables[table])) for table in build.tables]
    if build.period is None:
        expression = build.expression(*sources)
    else:
        try:
            snapshots = grid(from_utc, until_utc, period=build.period, offset=build.offset)
        except ValueError:
            return _schema(build).empty_table()
        expression = build.expression(*sources, snapshots)
    start, end = (time_utc.astimezone(dt.UTC).replace(tzinfo=None) for time_utc in (from_utc, until_utc))
    expression = expression.filter(expression.event_timestamp.between(ibis.literal(start), ibis.literal(end)))
    expression = expression.select(
        *build.keys,
        event_timestamp=expression.event_timestamp,
        created_timestamp=expression.event_timestamp,
        **{name: expression[name].cast("float32") for name in build.features},
    ).order_by([*build.keys, "event_timestamp"])
    connection = ibis.duckdb.connect()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ibis 12 calls DuckDB 2 by an older name
            rows = connection.to_pyarrow(expression)
    finally:
        connection.disconnect()
    rows = _with_zone(rows).cast(_schema(build))
    _check(build, rows)
    return rows


def read_source(
    use_case: UseCase, lake: Lake, table: str, build: ViewBuild, *, from_utc: dt.datetime, until_utc: dt.datetime
) -> pa.Table:
    """The source rows, every version of each, that a build of [from, until] can need."""
    filters: Filters | None = None
    if not use_case.table(table).static:
        first = (from_utc - build.lookback - DAY_MARGIN).date()
        # East of Greenwich the local day of what is known by then may be the next one.
        last = (until_utc.astimezone(dt.UTC) + dt.timedelta(days=1)).date()
        filters = [("day", ">=", first), ("day", "<=", last)]
    return lake.read(table, filters=filters)


def without_zone(table: pa.Table) -> pa.Table:
    """UTC timestamps as naive ones, so that no session time zone can touch them inside the expressions.

    Raises:
        ValueError: a timestamp column is not in UTC.
    """
    fields = []
    for field in table.schema:
        if pa.types.is_timestamp(field.type):
            if field.type.tz not in {"UTC", "Etc/UTC", "+00:00"}:
                raise ValueError(f"column {field.name} must hold UTC timestamps; its type is {field.type}")
            fields.append(pa.field(field.name, NAIVE_TYPE))
        else:
            fields.append(field)
    return table.cast(pa.schema(fields))


def _with_zone(table: pa.Table) -> pa.Table:
    return table.cast(
        pa.schema(
            [pa.field(item.name, UTC_TYPE if pa.types.is_timestamp(item.type) else item.type) for item in table.schema]
        )
    )


def _schema(build: ViewBuild) -> pa.Schema:
    return pa.schema(
        [
            *(pa.field(key, pa.string()) for key in build.keys),
            pa.field("event_timestamp", UTC_TYPE),
            pa.field("created_timestamp", UTC_TYPE),
            *(pa.field(name, pa.float32()) for name in build.features),
        ]
    )


def _check(build: ViewBuild, rows: pa.Table) -> None:
    for name in build.features:
        finite = pc.all(pc.is_finite(rows[name])).as_py()  # nulls are skipped
        if finite is False:
            raise ValueError(f"view {build.name}: feature {name} came out NaN or infinite; its expression must not")
    if rows.num_rows:
        distinct = rows.group_by([*build.keys, "event_timestamp"]).aggregate([]).num_rows
        if distinct != rows.num_rows:
            raise ValueError(
                f"view {build.name}: {rows.num_rows - distinct} rows share {', '.join(build.keys)} and event_timestamp"
            )


def _same_columns(lake: Lake, build: ViewBuild, *, rebuild: bool) -> None:
    table = feature_table(build.name)
    if rebuild or not lake.exists(table):
        return
    there, wanted = set(lake.read(table, filters=[("event_timestamp", "<", _EPOCH)]).column_names), _schema(build).names
    if there != set(wanted):
        differ = ", ".join(sorted(there ^ set(wanted)))
        raise ValueError(f"{table} was built with other columns ({differ}); build the whole range with `--rebuild`")


def _sql(time_utc: dt.datetime) -> str:
    return time_utc.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
