"""What a stored feature view is built from: its description, its snapshot times, sums over time windows.

Knows no use case; kept as it is when another one moves in (docs/bring-your-own.md). All times in expressions are naive
and mean UTC.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Mapping, Sequence

import ibis
import ibis.expr.types as ir


@dataclasses.dataclass(frozen=True)
class Knowledge:
    """What of a source record is known before it is delivered (`ingested_at`): its plan, and what shows early.

    Args:
        planned: columns known long before.
        early: time column -> columns known from that time on.
    """

    planned: tuple[str, ...] = ()
    early: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class ViewBuild:
    """How one stored view is built: its keys, features, source tables, snapshot grid and Ibis expression.

    Args:
        name: of the view.
        description: one line for people.
        keys: join keys, strings.
        features: in the order of the table.
        tables: lake tables, in the order of the arguments of `expression`.
        expression: source tables, then the grid where `period` is given -> keys, `event_timestamp`, features.
        lookback: how far before a snapshot its sources reach.
        ttl: older than this is missing, in the point-in-time join.
        period, offset: a snapshot every `period`, at `offset` after midnight UTC; None: the source gives the times.
        settle: rows that tell of time T may arrive in the lake until T + `settle`: only then is a snapshot final.
        streamed: computed live from events too, and pushed.
        knowledge: per source table what is known of a record before its delivery; nothing by default.
    """

    name: str
    description: str
    keys: tuple[str, ...]
    features: tuple[str, ...]
    tables: tuple[str, ...]
    expression: Callable[..., ir.Table]
    lookback: dt.timedelta
    ttl: dt.timedelta
    period: dt.timedelta | None = None
    offset: dt.timedelta = dt.timedelta(0)
    settle: dt.timedelta = dt.timedelta(0)
    streamed: bool = False
    knowledge: Mapping[str, Knowledge] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Snapshot times: `first`, `first + period`, ..., `count` of them; naive UTC."""

    first: dt.datetime
    period: dt.timedelta
    count: int

    def table(self) -> ir.Table:
        """Columns `snapshot` (0..count-1) and `event_timestamp`."""
        numbers = ibis.range(self.count).unnest().name("snapshot").as_table()
        seconds = (numbers.snapshot * int(self.period.total_seconds())).as_interval("s")
        return numbers.mutate(event_timestamp=ibis.literal(self.first, type="timestamp(6)") + seconds)

    def at_or_after(self, time: ir.TimestampValue) -> ir.IntegerValue:
        """Number of the first snapshot at or after `time`; negative before the grid."""
        first = ibis.literal(self.first, type="timestamp(6)")
        return -((-time.delta(first, unit="microsecond")) // int(self.period / dt.timedelta(microseconds=1)))


def grid(from_utc: dt.datetime, until_utc: dt.datetime, *, period: dt.timedelta, offset: dt.timedelta) -> Grid:
    """The snapshots at `offset` after midnight UTC and every `period`, from `from_utc` to `until_utc`, both included.

    Raises:
        ValueError: no snapshot lies in the range, or a time is naive.
    """
    if from_utc.tzinfo is None or until_utc.tzinfo is None:
        raise ValueError(f"a grid needs timezone-aware times; got {from_utc}, {until_utc}")
    start, end = (time.astimezone(dt.UTC).replace(tzinfo=None) for time in (from_utc, until_utc))
    one = dt.datetime(1970, 1, 1) + offset
    first = one - ((one - start) // period) * period
    if first > end:
        raise ValueError(f"no snapshot every {period} lies between {from_utc} and {until_utc}")
    return Grid(first, period, (end - first) // period + 1)


def ratio(table: ir.Table, part: str, whole: str, suffix: str) -> ir.FloatingValue:
    """`part` over `whole` in one window, null when `whole` is 0."""
    return table[f"{part}_{suffix}"].cast("float64") / table[f"{whole}_{suffix}"].nullif(0)


def running_sums(
    events: ir.Table,
    snapshots: Grid,
    *,
    keys: list[str],
    sums: Sequence[str],
    windows: dict[str, dt.timedelta],
    key_table: ir.Table,
) -> ir.Table:
    """Sums of `events` per key and snapshot T over (T - window, T], by `at`, among what is visible at T.

    An event enters at the first snapshot where it is visible and leaves at the first one where its window has passed or
    a newer version replaces it; a running total over the snapshots gives every window at once, whatever its length.
    """
    # GREATEST skips nulls: without this, what is not known yet would count from the first snapshot on.
    events = events.filter(events["at"].notnull(), events.visible_from.notnull())
    changes = []
    for suffix, length in windows.items():
        window_end = events["at"] + ibis.interval(seconds=int(length.total_seconds()))
        gone = ibis.least(window_end, ibis.coalesce(events.visible_until, window_end))
        placed = events.mutate(
            enters=ibis.greatest(snapshots.at_or_after(events.visible_from), 0),
            leaves=ibis.least(snapshots.at_or_after(gone), snapshots.count),
        )
        placed = placed.filter(placed.enters < placed.leaves)
        for column, sign in (("enters", 1), ("leaves", -1)):
            own = {f"{name}_{suffix}": (placed[name] * sign).cast("float64") for name in sums}
            others = {f"{name}_{other}": ibis.literal(0.0) for other in windows if other != suffix for name in sums}
            values = {**own, **others}
            named = {f"{name}_{window}": values[f"{name}_{window}"] for window in windows for name in sums}
            changes.append(placed.select(*keys, snapshot=placed[column], **named))
    columns = [f"{name}_{suffix}" for suffix in windows for name in sums]
    all_changes = ibis.union(*changes)
    per_snapshot = all_changes.group_by([*keys, "snapshot"]).agg(**{name: all_changes[name].sum() for name in columns})
    dense = key_table.cross_join(snapshots.table()).left_join(per_snapshot, [*keys, "snapshot"])
    dense = dense.select(*keys, "event_timestamp", "snapshot", **{name: dense[name].fill_null(0) for name in columns})
    so_far = ibis.window(group_by=keys, order_by="snapshot", preceding=None, following=0)
    return dense.mutate(**{name: dense[name].sum().over(so_far) for name in columns}).drop("snapshot")
