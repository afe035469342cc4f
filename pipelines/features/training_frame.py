"""The point-in-time training frame: labels from the entity frame, features from a named export as known at the time.

Feast joins on the last row at or before the entity's `event_timestamp` and within the view's ttl. Measured trap: some
offline stores lose rows without a word, so the frame is checked row for row.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from flightdeck.contracts.layout import StateLayout
from pipelines.features.export import Export, read_export
from pipelines.features.registry import RegistryError, open_store

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView, OnDemandFeatureView

ROW_ID = "row_id"
TIME = "event_timestamp"
LABEL_PREFIX = "label_"
REQUEST_PREFIX = "request_"


class TrainingFrameError(RuntimeError):
    """The frame would not be what it claims: rows lost or doubled, a column missing or ambiguous."""


@dataclasses.dataclass(frozen=True)
class FrameFeature:
    """One feature of a service: where it comes from and how it is keyed. Same facts as the manifest's ServedFeature."""

    name: str
    source: Literal["stored", "on_demand"]
    view: str
    join_keys: list[str]
    feast_type: str


@dataclasses.dataclass(frozen=True)
class TrainingFrame:
    """The frame and what it was made of.

    Args:
        frame: the entity frame's columns (`row_id`, `event_timestamp`, keys, slices, `label_*`), then one float32
            column per feature in the service's order; null where the feature was not known at the time.
        features: in the order of the columns.
        feature_service: name of the service.
        export_id: the export whose Parquet was joined.
        table_versions: Delta version of every lake table at that export.
    """

    frame: pl.DataFrame
    features: list[FrameFeature]
    feature_service: str
    export_id: str
    table_versions: dict[str, int]

    @property
    def names(self) -> list[str]:
        """Feature names in order: the columns of the model's input."""
        return [feature.name for feature in self.features]

    def matrix(self) -> np.ndarray:
        """Features as float32, shape (n_rows, n_features); missing is NaN."""
        return self.frame.select(self.names).to_numpy(order="c").astype(np.float32, copy=False)


def service_features(store: FeatureStore, feature_service: str) -> list[FrameFeature]:
    """The registered features of a service, in its order.

    Raises:
        RegistryError: the registry has no such service.
        TrainingFrameError: two views give features of one name.
    """
    from feast.errors import FeatureServiceNotFoundException

    try:
        service = store.get_feature_service(feature_service)
    except FeatureServiceNotFoundException as error:
        known = ", ".join(item.name for item in store.list_feature_services()) or "none"
        raise RegistryError(
            f"no feature service {feature_service!r} is registered (known: {known}); run `flightdeck features apply`"
        ) from error
    on_demand = {view.name for view in store.list_on_demand_feature_views()}
    features = []
    for projection in service.feature_view_projections:
        stored = projection.name not in on_demand
        keys = sorted(store.get_feature_view(projection.name).join_keys) if stored else []
        features += [
            FrameFeature(
                name=field.name,
                source="stored" if stored else "on_demand",
                view=projection.name,
                join_keys=keys,
                feast_type=field.dtype.to_value_type().name,
            )
            for field in projection.features
        ]
    names = [feature.name for feature in features]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise TrainingFrameError(f"{feature_service}: more than one view gives {', '.join(doubled)}; rename one")
    return features


def training_frame(
    layout: StateLayout,
    feature_service: str,
    entity: pl.DataFrame,
    export_id: str | None = None,
    *,
    store: FeatureStore | None = None,
) -> TrainingFrame:
    """Join the service's features to the entity frame, each as it was known at the row's `event_timestamp`.

    Args:
        layout: the state folder with registry and exports.
        feature_service: e.g. `late_v2`.
        entity: columns `row_id` (int64, unique), `event_timestamp` (UTC), the join keys, the request fields of
            on-demand views, and whatever else is to be kept: labels, slices.
        export_id: a named export; the current one when None.
        store: an open store; opened when None.
    Raises:
        TrainingFrameError: a column is missing or would be overwritten, a row was lost or doubled.
        ExportError: no such export.
        RegistryError: no such service.
    """
    store = store or open_store(layout)
    features = service_features(store, feature_service)
    export = read_export(layout, export_id)
    _check_entity(entity, features)
    stored = _stored(store, entity, [item for item in features if item.source == "stored"], export)
    computed = _on_demand(store, entity, [item for item in features if item.source == "on_demand"])
    names = [feature.name for feature in features]
    frame = pl.concat([entity, stored, computed], how="horizontal").select(*entity.columns, *names)
    if frame.height != entity.height:
        raise TrainingFrameError(f"{feature_service}: {entity.height} rows went in, {frame.height} came out")
    return TrainingFrame(frame, features, feature_service, export.id, export.table_versions)


def _stored(
    store: FeatureStore, entity: pl.DataFrame, features: Sequence[FrameFeature], export: Export
) -> pl.DataFrame:
    """Stored features in the order of the entity rows.

    One query per view: Feast's single query over all views took 20 s for half a year, these take 7 (measured).
    """
    from feast.infra.offline_stores.duckdb import DuckDBOfflineStore

    columns: list[pl.DataFrame] = []
    for name in dict.fromkeys(item.view for item in features):
        of_view = [item for item in features if item.view == name]
        job = DuckDBOfflineStore.get_historical_features(
            config=store.config,
            feature_views=[_view_of_export(store, name, export)],
            feature_refs=[f"{name}:{item.name}" for item in of_view],
            entity_df=entity.select(ROW_ID, TIME, *of_view[0].join_keys).to_pandas(),
            registry=store.registry,
            project=store.project,
            filter_by_created_timestamp=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Ibis 12 calls DuckDB 2 by an older name
            joined = pl.from_arrow(job.to_arrow())
        assert isinstance(joined, pl.DataFrame)
        columns.append(in_order(entity, joined).select(pl.col(item.name).cast(pl.Float32) for item in of_view))
    return pl.concat(columns, how="horizontal") if columns else pl.DataFrame()


def in_order(entity: pl.DataFrame, joined: pl.DataFrame) -> pl.DataFrame:
    """`joined` in the row order of `entity`.

    Raises:
        TrainingFrameError: not every `row_id` of `entity` is there exactly once.
    """
    ordered = entity.select(ROW_ID).join(joined, on=ROW_ID, how="left", maintain_order="left")
    lost = entity.select(ROW_ID).join(joined, on=ROW_ID, how="anti").height
    if joined.height != entity.height or ordered.height != entity.height or lost:
        raise TrainingFrameError(
            f"the point-in-time join must keep each row once: {entity.height} rows went in, {joined.height} came out, "
            f"{lost} of them lost"
        )
    return ordered


def _view_of_export(store: FeatureStore, name: str, export: Export) -> FeatureView:
    """The registered view, reading the named export whatever `current` is by now."""
    view = store.get_feature_view(name)
    source = view.batch_source
    path = export.path(name)
    if source is None or not path.is_file():
        raise TrainingFrameError(f"export {export.id} has no file for view {name}; run `flightdeck features export`")
    pinned = type(source)(
        name=source.name,
        path=str(path),
        file_format=source.file_format,
        timestamp_field=source.timestamp_field,
        created_timestamp_column=source.created_timestamp_column,
    )
    view.batch_source = pinned
    return view


def _on_demand(store: FeatureStore, entity: pl.DataFrame, features: Sequence[FrameFeature]) -> pl.DataFrame:
    """On-demand features of every row, by the very function that Feast has registered.

    Feast's own path converts the whole joined table to Python objects first (minutes and gigabytes for half a year);
    this hands the function its declared inputs only. A test holds the two equal.
    """
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(item.view for item in features):
        view = store.get_on_demand_feature_view(name)
        columns |= apply_on_demand(view, entity)
    return pl.DataFrame({item.name: pl.Series(columns[item.name], dtype=pl.Float32) for item in features})


def apply_on_demand(view: OnDemandFeatureView, entity: pl.DataFrame) -> dict[str, Any]:
    """Columns that the view's function makes of the entity frame; `request_x` is read from column `x` if need be."""
    inputs = {
        field.name: entity[_input_column(entity, field.name, view.name)].to_list()
        for source in view.source_request_sources.values()
        for field in source.schema
    }
    result: dict[str, Any] = view.feature_transformation.udf(inputs)
    return result


def _input_column(entity: pl.DataFrame, name: str, view: str) -> str:
    for column in (name, name.removeprefix(REQUEST_PREFIX)):
        if column in entity.columns:
            return column
    raise TrainingFrameError(f"on-demand view {view} needs {name}; the entity frame has {', '.join(entity.columns)}")


def _check_entity(entity: pl.DataFrame, features: Sequence[FrameFeature]) -> None:
    keys = {key for item in features for key in item.join_keys}
    missing = sorted({ROW_ID, TIME, *keys} - set(entity.columns))
    if missing:
        raise TrainingFrameError(f"the entity frame lacks {', '.join(missing)}; it has {', '.join(entity.columns)}")
    if entity[ROW_ID].n_unique() != entity.height:
        raise TrainingFrameError(f"row_id must be unique: {entity.height} rows, {entity[ROW_ID].n_unique()} ids")
    clash = sorted({item.name for item in features} & set(entity.columns))
    if clash:
        raise TrainingFrameError(f"columns {', '.join(clash)} are features and in the entity frame; rename the latter")
    if entity.schema[TIME] != pl.Datetime("us", "UTC"):
        raise TrainingFrameError(f"{TIME} must be UTC microseconds; it is {entity.schema[TIME]}")
