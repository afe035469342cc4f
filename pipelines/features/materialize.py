"""Bring feature rows into the online store: whole exports up to a time, or single rows as they come.

No wall clock: the caller says until when, or what time it is. Feast's own `materialize_incremental` starts a first run
at the wall clock minus the ttl, which in a replay lies after its end.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from redis.exceptions import RedisError

from flightdeck.contracts.layout import StateLayout
from pipelines.data.lake import Lake
from pipelines.features.build import feature_table
from pipelines.features.export import read_export
from pipelines.features.registry import RegistryError, open_store
from pipelines.features.registry_version import announce
from pipelines.stores import shown

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

TIME = "event_timestamp"
BATCH_ROWS = 2000  # one pipeline to Redis: about 60 ms
Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]]
RowsOf: TypeAlias = Callable[[str, dt.datetime, dt.datetime], pa.Table]  # (view, since, until) -> at least its rows


class OnlineStoreUnavailable(RuntimeError):
    """The online store does not answer; nothing is lost, run the same command again."""


def unavailable(store: FeatureStore, error: Exception) -> OnlineStoreUnavailable:
    """The same words wherever the online store is found not to answer."""
    return OnlineStoreUnavailable(
        f"the online store at {shown(store.config.online_store.connection_string)} does not answer ({error}); "
        "start it, or say where it is with FLIGHTDECK_ONLINE_REDIS, then run again"
    )


@dataclasses.dataclass(frozen=True)
class Written:
    """What one write did.

    Args:
        view: its name.
        rows: given to the online store, which keeps a row only when it is newer than what it has.
        clamped: of these, rows dated in the future, set back to now.
        from_utc, until_utc: event times covered, (from, until]; of a direct write those of its rows, after clamping.
        seconds: taken.
    """

    view: str
    rows: int
    clamped: int
    from_utc: dt.datetime
    until_utc: dt.datetime
    seconds: float


def materialize(
    layout: StateLayout,
    until_utc: dt.datetime,
    *,
    views: Sequence[str] | None = None,
    full: bool = False,
    store: FeatureStore | None = None,
    lake: Lake | None = None,
    progress: Callable[[Written], None] | None = None,
) -> list[Written]:
    """Write the newest row per key, known by `until_utc`, into the online store.

    Incremental: rows after the last materialization (the registry remembers), at first those within the view's ttl.
    It remembers the newest row that was there: rows that were lacking as yet are not passed over later.

    Args:
        layout: the state folder.
        until_utc: only rows with `event_timestamp` up to here; the clock's now, never the wall clock's.
        views: only these.
        full: start from `until_utc` minus the ttl whatever was done before: after the online store was lost.
        store: an open store; opened when None.
        lake: read its newest feature tables, the rows of the span only; without it the current export is read.
        progress: called after each view.
    Raises:
        ValueError: `until_utc` has no time zone.
        RegistryError: a view is not registered, or none is.
        ExportError: there is no export. LakeError: the lake does not answer, or a table was not built.
        OnlineStoreUnavailable: the store does not answer; what was not written is not recorded as done.
    """
    _aware(until_utc, "until_utc")
    store = store or open_store(layout)
    rows_of = _in_lake(lake) if lake else _in_export(layout)
    done = []
    for view in _views(store, views):
        started = time.perf_counter()
        last = None if full else view.most_recent_end_time
        since = last or until_utc - view.ttl
        if since >= until_utc:
            done.append(Written(view.name, 0, 0, since, until_utc, time.perf_counter() - started))
        else:
            rows = _newest(rows_of(view.name, since, until_utc), view.join_keys, since, until_utc)
            written = write_online(store, view.name, rows, now_utc=until_utc)
            if rows.num_rows:
                store.registry.apply_materialization(view, store.project, since, written.until_utc)
            done.append(
                Written(view.name, written.rows, written.clamped, since, until_utc, time.perf_counter() - started)
            )
        if progress:
            progress(done[-1])
    try:
        announce(store)
    except RedisError as error:
        raise unavailable(store, error) from error
    return done


def write_online(store: FeatureStore, view: str, rows: Rows, *, now_utc: dt.datetime) -> Written:
    """Write rows of one view into the online store, through Feast's online store interface.

    The store keeps the newest `event_timestamp` per key, so repeating a write changes nothing, and one row dated in the
    future would block its key until then (measured): such a row is set back to `now_utc` and counted.

    Args:
        store: an open store; keep it open between calls, opening costs seconds.
        view: name of a registered stored view.
        rows: keys, `event_timestamp` (UTC) and every feature; None stays missing.
        now_utc: the clock's now.
    Raises:
        RegistryError: the view is not registered.
        OnlineStoreUnavailable: the store does not answer; rows before the failing batch are written.
        ValueError: a column is missing, a key is null, a time has no zone, a value is NaN or infinite.
    """
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    started = time.perf_counter()
    _aware(now_utc, "now_utc")
    feature_view = _views(store, [view])[0]
    records = rows.to_pylist() if isinstance(rows, pa.Table) else rows
    keys = sorted(feature_view.join_keys)
    names = [field.name for field in feature_view.features]
    clamped = 0
    data = []
    for record in records:
        missing = [name for name in (*keys, TIME, *names) if name not in record]
        if missing or any(record[key] is None for key in keys):
            raise ValueError(f"{view}: a row needs {', '.join(missing) or 'a value for every key'}; got {dict(record)}")
        at = _aware(record[TIME], TIME)
        if at > now_utc:
            at, clamped = now_utc, clamped + 1
        entity = EntityKey(join_keys=keys, entity_values=[Value(string_val=record[key]) for key in keys])
        values = {name: _value(Value, view, name, record[name]) for name in names}
        data.append((entity, values, at, None))
    provider = store._get_provider()  # the public push takes a pandas frame and ten times as long (measured)
    try:
        for start in range(0, len(data), BATCH_ROWS):
            provider.online_write_batch(store.config, feature_view, data[start : start + BATCH_ROWS], None)
    except RedisError as error:
        raise unavailable(store, error) from error
    times = [item[2] for item in data] or [now_utc]
    return Written(view, len(data), clamped, min(times), max(times), time.perf_counter() - started)


def _value(value_type: Any, view: str, name: str, value: float | None) -> Any:
    if value is None:
        return value_type()
    number = float(value)
    if number - number != 0:  # NaN and infinity
        raise ValueError(f"{view}: feature {name} is {value}; a missing value is None")
    return value_type(float_val=number)


def _in_export(layout: StateLayout) -> RowsOf:
    export = read_export(layout)
    return lambda view, since, until: pq.read_table(export.path(view))


def _in_lake(lake: Lake) -> RowsOf:
    return lambda view, since, until: lake.read(feature_table(view), filters=[(TIME, ">", since), (TIME, "<=", until)])


def _newest(rows: pa.Table, keys: Sequence[str], since: dt.datetime, until: dt.datetime) -> pa.Table:
    """Per key the last row with event time in (since, until]."""
    times = rows[TIME]
    rows = rows.filter(
        pc.and_(
            pc.greater(times, pa.scalar(since, times.type)),
            pc.less_equal(times, pa.scalar(until, times.type)),
        )
    )
    newest = rows.group_by(list(keys)).aggregate([(TIME, "max")]).rename_columns([*keys, TIME])
    return rows.join(newest, keys=[*keys, TIME], join_type="inner")


def _views(store: FeatureStore, names: Sequence[str] | None) -> list[FeatureView]:
    from feast.errors import FeatureViewNotFoundException

    if names is None:
        found = sorted(store.list_feature_views(allow_cache=True), key=lambda view: view.name)
        if not found:
            raise RegistryError("no feature view is registered; run `flightdeck features apply`")
        return found
    try:
        return [store.get_feature_view(name, allow_registry_cache=True) for name in names]
    except FeatureViewNotFoundException as error:
        raise RegistryError(f"{error}; run `flightdeck features apply`") from error


def _aware(time_utc: dt.datetime, name: str) -> dt.datetime:
    if time_utc.tzinfo is None:
        raise ValueError(f"{name} needs a time zone; got {time_utc}")
    return time_utc.astimezone(dt.UTC)
