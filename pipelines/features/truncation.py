"""Does a feature look into the future? Build it once with all data and once with what was known at T: rows up to T
must be equal.

The strongest test there is for a set-based feature: it knows nothing of the expression, and needs no more about what
was known when than the source tables tell.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow as pa

from feature_repo.transforms import BUILDS
from feature_repo.view_build import Knowledge, ViewBuild
from pipelines.data.lake import Lake
from pipelines.data.leakage import LeakError
from pipelines.features.build import build_view, read_source
from pipelines.use_case import UseCase

TIME = "event_timestamp"
DAY = dt.timedelta(days=1)


def as_known(rows: pl.DataFrame, key: Sequence[str], knowledge: Knowledge, at_utc: dt.datetime) -> pl.DataFrame:
    """A source table as it was known at `at_utc`.

    What the source had delivered stays. Of a record still to come the plan is known, and what is disclosed early (a
    beginning, long before the end delivers the row); everything else of it is null. Without a plan it is not there.

    Args:
        rows: every version of every record, with `ingested_at`.
        key: names a record.
        knowledge: what is planned and what is disclosed early.
        at_utc: the time.
    """
    delivered = rows.filter(pl.col("ingested_at") <= at_utc)
    if not knowledge.planned:
        return delivered
    coming = rows.join(delivered.select(key), on=list(key), how="anti").sort("ingested_at")
    coming = coming.unique(list(key), keep="first", maintain_order=True)
    early = {
        column: pl.when(pl.col(since) <= at_utc).then(pl.col(column))
        for since, columns in knowledge.early.items()
        for column in columns
    }
    hidden = [
        (pl.col(name) if name in knowledge.planned else early.get(name, pl.lit(None, dtype=dtype))).alias(name)
        for name, dtype in rows.schema.items()
    ]
    return pl.concat([delivered, coming.select(hidden)])


def future_use(
    build: ViewBuild, tables: Mapping[str, pa.Table], keys: Mapping[str, Sequence[str]], at_utc: dt.datetime
) -> list[str]:
    """Where the view's rows in the day up to `at_utc` change when everything after it is taken away; empty is good.

    Args:
        build: the view.
        tables: its source tables, with rows beyond `at_utc`.
        keys: per table what names a record.
        at_utc: the time up to which features must not depend on anything later.
    Raises:
        ValueError: the tables hold nothing that is known only after `at_utc`, so nothing can be told.
    """
    return _differences(build, *_built_twice(build, tables, keys, at_utc), at_utc)


def _built_twice(
    build: ViewBuild, tables: Mapping[str, pa.Table], keys: Mapping[str, Sequence[str]], at_utc: dt.datetime
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rows of the day up to `at_utc`: with all data, and with what was known then."""
    known: dict[str, pa.Table] = {}
    later = 0
    for name in build.tables:
        rows = pl.from_arrow(tables[name])
        assert isinstance(rows, pl.DataFrame)
        truncated = as_known(rows, keys[name], build.knowledge.get(name, Knowledge()), at_utc)
        later += rows.filter(pl.col("ingested_at") > at_utc).height
        known[name] = truncated.to_arrow().cast(tables[name].schema)
    if not later:
        raise ValueError(f"{build.name}: no source row is known only after {at_utc}; nothing can be told")
    full, cut = (pl.from_arrow(build_view(build, of, at_utc - DAY, at_utc)) for of in (tables, known))
    assert isinstance(full, pl.DataFrame)
    assert isinstance(cut, pl.DataFrame)
    return full, cut


def assert_no_future(
    use_case: UseCase, lake: Lake, at_utc: dt.datetime, *, views: Sequence[str] | None = None
) -> dict[str, int]:
    """Every view's rows up to `at_utc` are the same with and without the data after it.

    Returns:
        The rows compared per view.
    Raises:
        LeakError: names the views, features and first entities that change.
        ValueError: no such view, or the lake holds nothing after `at_utc`: never a pass.
    """
    compared: dict[str, int] = {}
    problems: list[str] = []
    for name in views or list(BUILDS):
        if name not in BUILDS:
            raise ValueError(f"no view {name!r}; there are: {', '.join(BUILDS)}")
        build = BUILDS[name]
        tables = {
            table: read_source(use_case, lake, table, build, from_utc=at_utc - DAY, until_utc=at_utc + 2 * DAY)
            for table in build.tables
        }
        keys = {table: use_case.table(table).key for table in build.tables}
        full, cut = _built_twice(build, tables, keys, at_utc)
        problems += _differences(build, full, cut, at_utc)
        compared[name] = full.height
    if problems:
        raise LeakError("features know the future: " + "; ".join(problems))
    return compared


def _differences(build: ViewBuild, full: pl.DataFrame, cut: pl.DataFrame, at_utc: dt.datetime) -> list[str]:
    on = [*build.keys, TIME]
    both = full.join(cut, on=on, how="full", suffix="_cut", coalesce=True).sort(on)
    problems = []
    for name in build.features:
        bad = both.filter(pl.col(name).ne_missing(pl.col(f"{name}_cut")))
        if bad.height:
            first = bad.row(0, named=True)
            who = ", ".join(f"{key}={first[key]}" for key in build.keys)
            problems.append(
                f"{build.name}.{name}: {bad.height} of {both.height} rows change when what became known after "
                f"{at_utc:%Y-%m-%d %H:%M} is taken away (first {who} at {first[TIME]:%H:%M}: "
                f"{first[name]} instead of {first[f'{name}_cut']})"
            )
    return problems
