"""Decisions: is a delivered day fit for the lake? Pure; columns, keys and cross-column rules through pandera.

Rules are data (`TableRules`), so that a use case states them and the table of failures can repeat them in words.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

if TYPE_CHECKING:  # pandera brings pandas: two seconds that nobody but a check should pay
    import pandera.polars as pa
    from pandera.errors import SchemaErrors

ROUNDING = 1e-6  # rows: a share times a count may miss a whole number by a rounding error
EXAMPLES = 5  # rows and values shown per failed check


@dataclasses.dataclass(frozen=True)
class ColumnRule:
    """One column: its type, and what its values may be.

    Args:
        dtype: polars type, exact.
        low, high: inclusive bounds.
        null_share: largest share of nulls in a day, 0 to 1; 0 allows none.
        allowed: the only values, when given.
        pattern: regular expression that the whole string matches, when given.
    """

    dtype: Any
    low: float | None = None
    high: float | None = None
    null_share: float = 0.0
    allowed: tuple[str, ...] | None = None
    pattern: str | None = None


@dataclasses.dataclass(frozen=True)
class RowRule:
    """A rule across the columns of a row: `holds` is true (or null: cannot be told) on every good row."""

    name: str
    holds: pl.Expr
    meaning: str


@dataclasses.dataclass(frozen=True)
class Volume:
    """How many rows a day has: within fixed bounds, and near the median of the trailing days once there are enough."""

    min_rows: int
    max_rows: int
    trailing_days: int = 28
    min_history: int = 7
    low_factor: float = 0.6
    high_factor: float = 1.5


@dataclasses.dataclass(frozen=True)
class Freshness:
    """How late records may be.

    Args:
        max_lag: a first delivery is at most this long after the event...
        lag_share: ...for this share of the day's rows.
        complete_after: from this long after the end of the local day on, the day must be complete (lower volume
            bound); before, a delivery of what is known so far is not blamed for being short.
    """

    max_lag: dt.timedelta
    lag_share: float = 0.99
    complete_after: dt.timedelta = dt.timedelta(hours=4)


@dataclasses.dataclass(frozen=True)
class TableRules:
    """What a day of one table must satisfy."""

    columns: Mapping[str, ColumnRule]
    unique: tuple[str, ...]
    volume: Volume
    freshness: Freshness
    rows: tuple[RowRule, ...] = ()


@dataclasses.dataclass(frozen=True)
class Failure:
    """One failed check, in words, with how many rows failed and a few of them."""

    check: str
    column: str
    expected: str
    found: str
    rows: int
    examples: tuple[str, ...] = ()


def pandera_schema(rules: TableRules) -> pa.DataFrameSchema:
    """The rules as a pandera schema: exact columns and types, ranges, values, patterns, and where no null may be."""
    import pandera.polars as pa

    columns = {}
    for name, rule in rules.columns.items():
        checks = []
        if rule.low is not None or rule.high is not None:
            low = -float("inf") if rule.low is None else rule.low
            high = float("inf") if rule.high is None else rule.high
            checks.append(pa.Check.in_range(low, high, name="range", error=f"{low:g} to {high:g}"))
        if rule.allowed is not None:
            checks.append(pa.Check.isin(rule.allowed, name="allowed", error=f"one of {', '.join(rule.allowed)}"))
        if rule.pattern is not None:
            checks.append(pa.Check.str_matches(rule.pattern, name="pattern", error=f"matches {rule.pattern}"))
        columns[name] = pa.Column(rule.dtype, checks, nullable=rule.null_share > 0)
    return pa.DataFrameSchema(columns, strict=True, ordered=False)


def check_rows(frame: pl.DataFrame, rules: TableRules, schema: pa.DataFrameSchema, key: Sequence[str]) -> list[Failure]:
    """Schema, ranges, nulls, patterns, uniqueness and row rules; empty when all hold.

    Args:
        frame: one day, or several (null shares then hold over all of them: check the days one by one on failure).
        rules: of the table.
        schema: `pandera_schema(rules)`, built once.
        key: columns that name a row in the examples.
    """
    from pandera.errors import SchemaErrors

    failures: list[Failure] = []
    try:
        schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        failures = _from_pandera(error, frame, rules, key)
    except Exception as error:  # a check that cannot run is a failed check, whatever broke it
        failures = [
            Failure("checks", "(table)", "every check can run", f"{type(error).__name__}: {error}", frame.height)
        ]
    if any(item.check in {"checks", "column", "type"} for item in failures):
        return failures  # what follows needs the columns
    measures: dict[str, pl.Expr] = {}
    for name, rule in rules.columns.items():
        if 0 < rule.null_share < 1:
            measures[f"null:{name}"] = pl.col(name).null_count()
    for row_rule in rules.rows:
        measures[f"row:{row_rule.name}"] = (~row_rule.holds).fill_null(value=False).sum()
    counts = frame.select(**measures).row(0, named=True) if measures and frame.height else {}
    for name, rule in rules.columns.items():
        nulls = counts.get(f"null:{name}", 0)
        if nulls > rule.null_share * frame.height + ROUNDING:
            failures.append(
                Failure("nulls", name, f"at most {rule.null_share:.0%} null", f"{nulls / frame.height:.1%} null", nulls)
            )
    for row_rule in rules.rows:
        if broken := counts.get(f"row:{row_rule.name}", 0):
            bad = frame.filter((~row_rule.holds).fill_null(value=False))
            failures.append(
                Failure(row_rule.name, "(row)", row_rule.meaning, "does not hold", broken, _examples(bad, key))
            )
    doubled = frame.select(rules.unique).is_duplicated()
    if doubled.any():
        bad = frame.filter(doubled)
        failures.append(
            Failure(
                "unique", ", ".join(rules.unique), "each once", f"{bad.select(rules.unique).n_unique()} repeated",
                bad.height, _examples(bad, key),
            )
        )  # fmt: skip
    return failures


def check_volume(rows: int, volume: Volume, trailing: Sequence[int], *, complete: bool) -> list[Failure]:
    """Rows of one day against fixed bounds and the trailing median; a day still being delivered has no lower bound."""
    low, high, source = volume.min_rows, volume.max_rows, "stated bounds"
    if len(trailing) >= volume.min_history:
        median = statistics.median(trailing)
        low = max(low, int(volume.low_factor * median))
        high = min(high, int(volume.high_factor * median))
        source = f"median of the last {len(trailing)} days {median:g}"
    if not complete:
        low = 0
    if low <= rows <= high:
        return []
    return [Failure("volume", "(table)", f"{low} to {high} rows ({source})", f"{rows} rows", rows)]


def check_freshness(
    frame: pl.DataFrame, day: dt.date, zone: str, freshness: Freshness, *, now_utc: dt.datetime | None
) -> list[Failure]:
    """Events belong to the day, no record comes from the future, and few arrive later than they should."""
    if not frame.height:
        return []
    event, ingested = pl.col("event_time"), pl.col("ingested_at")
    local = event.dt.convert_time_zone(zone).dt.date()
    counts = frame.select(
        elsewhere=((local != day) | (pl.col("day") != day)).fill_null(value=True).sum(),
        lagging=((ingested - event) > freshness.max_lag).sum(),
        before=(ingested < event - dt.timedelta(days=1)).sum(),
        future=(ingested > now_utc).sum() if now_utc is not None else pl.lit(0),
        newest=ingested.max(),
    ).row(0, named=True)
    failures = []
    if counts["elsewhere"]:
        failures.append(Failure("day", "event_time", f"on {day} in {zone}", "another day", counts["elsewhere"]))
    if frame.height - counts["lagging"] < freshness.lag_share * frame.height - ROUNDING:
        hours = freshness.max_lag.total_seconds() / 3600
        failures.append(
            Failure(
                "freshness", "ingested_at", f"{freshness.lag_share:.0%} of rows within {hours:g} h of the event",
                f"{counts['lagging'] / frame.height:.1%} later", counts["lagging"],
            )
        )  # fmt: skip
    if counts["future"]:
        failures.append(
            Failure(
                "freshness", "ingested_at", f"not after the clock, {now_utc:%Y-%m-%d %H:%MZ}",
                f"up to {counts['newest']:%Y-%m-%d %H:%MZ}", counts["future"],
            )
        )  # fmt: skip
    if counts["before"]:
        failures.append(
            Failure("freshness", "ingested_at", "not a day before the event", "delivered before it", counts["before"])
        )
    return failures


def _from_pandera(error: SchemaErrors, frame: pl.DataFrame, rules: TableRules, key: Sequence[str]) -> list[Failure]:
    failures = []
    for (check, column), part in error.failure_cases.group_by("check", "column", maintain_order=True):
        name, found = str(column), part["failure_case"].unique(maintain_order=True).to_list()
        shown = ", ".join(map(str, found[:EXAMPLES])) + (", ..." if len(found) > EXAMPLES else "")
        if check == "column_in_dataframe":
            failures.append(Failure("column", shown, "present", "missing", frame.height))
        elif check == "column_in_schema":
            failures.append(Failure("column", shown, "no other columns", "not in the schema", frame.height))
        elif str(check).startswith("dtype"):
            failures.append(Failure("type", name, str(rules.columns[name].dtype), shown, frame.height))
        else:
            bad = frame[part["index"].drop_nulls().to_list()]
            kind, expected = ("nulls", "a value") if check == "not_nullable" else ("range", str(check))
            failures.append(Failure(kind, name, expected, shown, part.height, _examples(bad, key)))
    return failures


def _examples(bad: pl.DataFrame, key: Sequence[str]) -> tuple[str, ...]:
    names = [name for name in key if name in bad.columns]
    return tuple(" ".join(str(value) for value in row) for row in bad.select(names).head(EXAMPLES).iter_rows())
