"""Adapter: a sample of served vectors recomputed from the offline store, as of each request.

The values come from the point-in-time join that training uses; a second look into the export's rows of the same keys
finds out whether what was served is what was known at an earlier time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from flightdeck.contracts.artefact import ModelManifest
from flightdeck.contracts.layout import StateLayout
from pipelines.data.labels import ASKED_AT, newest_labels
from pipelines.features.export import read_export
from pipelines.features.training_frame import ROW_ID, TIME, training_frame
from pipelines.monitoring.skew import ABSOLUTE, RELATIVE, Compared
from pipelines.training.dataset import filled

LOOK_BACK = dt.timedelta(days=8)  # how old a served row may be and still be recognised
SAMPLE = 300


def sampled(rows: pl.DataFrame, *, most: int = SAMPLE, seed: int = 0) -> pl.DataFrame:
    """At most so many answers about a named entity, spread evenly over the day in the order of their hashes."""
    named = rows.filter(pl.col("entity_id") != "")
    if named.height <= most:
        return named
    return (
        named.sort(pl.struct("request_id", "row", "release").hash(seed)).head(most).sort(ASKED_AT, "request_id", "row")
    )


def recompute(
    layout: StateLayout, manifest: ModelManifest, rows: pl.DataFrame, entity: pl.DataFrame, *, label: str,
    now_utc: dt.datetime, export_id: str | None = None,
) -> Compared:  # fmt: skip
    """Recompute the vectors of `rows` as of `asked_at_utc`.

    Args:
        rows: answers with `entity_id`, `asked_at_utc`, `features`, `age_views`, `ages_s`.
        entity: the use case's entity frame; an answer whose entity is not in it yet cannot be recomputed.
        export_id: of the feature tables; the current one when None.
    Raises:
        ExportError, RegistryError, TrainingFrameError: the offline store cannot be read.
        ValueError: a served vector has another length than the manifest.
    """
    export = read_export(layout, export_id)
    views = {item.view: sorted(item.join_keys) for item in manifest.features if item.source == "stored"}
    names = tuple(item.name for item in manifest.features)
    known = newest_labels(entity, label, now_utc).drop(TIME, ROW_ID, "value", label, strict=False)
    known = known.drop([name for name in known.columns if name.startswith("label_")])
    asked = rows.select("entity_id", ASKED_AT, "features", "age_views", "ages_s").join(
        known, on="entity_id", how="inner", maintain_order="left"
    )
    told = (
        [f"{rows.height - asked.height} name an entity whose outcome is not known yet"]
        if asked.height < rows.height
        else []
    )
    ages = {view: _ages(asked, view) for view in views}
    asked_s = asked[ASKED_AT].dt.epoch("us").to_numpy() / 1e6
    fresh = np.ones(asked.height, dtype=bool)
    stored = {view: _rows_of(export.path(view), asked, keys) for view, keys in views.items()}
    for view in views:
        newest = pl.scan_parquet(export.path(view)).select(pl.col(TIME).max()).collect().item()
        fresh &= ~(asked_s - ages[view] > (newest.timestamp() if newest else -np.inf) + 1)
    if not fresh.all():
        told.append(f"{int((~fresh).sum())} were answered with newer rows than the export {export.id} has")
    asked = asked.filter(pl.Series(fresh))
    ages = {view: age[fresh] for view, age in ages.items()}
    served = served_vectors(asked, manifest)
    defaults = np.array([item.default for item in manifest.features], dtype=np.float32)
    served = filled(served, defaults)
    recomputed, lag = served, {view: np.zeros(0) for view in views}
    if asked.height:
        moments = asked.rename({ASKED_AT: TIME}).with_row_index(ROW_ID).with_columns(pl.col(ROW_ID).cast(pl.Int64))
        frame = training_frame(
            layout, manifest.feature_service, moments.drop("features", "age_views", "ages_s"), export.id
        )
        recomputed = filled(frame.frame.select(names).to_numpy().astype(np.float32), defaults)
        lag = {view: _lag(moments, served, table, view, manifest) for view, table in stored.items()}
    return Compared(
        names=names, views={item.name: item.view for item in manifest.features},
        stored=frozenset(item.name for item in manifest.features if item.source == "stored"),
        served=served.astype(float), recomputed=recomputed.astype(float), defaults=defaults.astype(float), age_s=ages,
        lag_s=lag, max_age_s={view: policy.max_age_s for view, policy in manifest.views.items()},
        uncompared="; ".join(told),
    )  # fmt: skip


def served_vectors(rows: pl.DataFrame, manifest: ModelManifest) -> npt.NDArray[np.float32]:
    """The column `features` as a matrix, shape (rows, F).

    Raises:
        ValueError: a vector has another length than the manifest.
    """
    lengths = rows["features"].list.len().unique().to_list()
    if rows.height and lengths != [len(manifest.features)]:
        raise ValueError(f"served vectors have {lengths} features, {manifest.model} has {len(manifest.features)}")
    return np.array(rows["features"].to_list(), dtype=np.float32).reshape(rows.height, len(manifest.features))


def _ages(asked: pl.DataFrame, view: str) -> np.ndarray:
    """Age of the served values of a view, seconds; NaN where there were none."""
    pairs = zip(asked["age_views"].to_list(), asked["ages_s"].to_list(), strict=True)
    found = [dict(zip(views or [], ages or [], strict=False)).get(view) for views, ages in pairs]
    return np.array([np.nan if age is None else age for age in found], dtype=float)


def _rows_of(path: object, asked: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The view's exported rows that the sample's keys can have been answered with."""
    table = pl.scan_parquet(str(path))
    if asked.is_empty():
        return table.head(0).collect()
    first, last = asked[ASKED_AT].min(), asked[ASKED_AT].max()
    assert isinstance(first, dt.datetime)
    wanted = asked.select(keys).unique().lazy()
    return (
        table.filter(pl.col(TIME).is_between(first - LOOK_BACK, last)).join(wanted, on=list(keys), how="semi").collect()
    )


def _lag(
    moments: pl.DataFrame, served: np.ndarray, table: pl.DataFrame, view: str, manifest: ModelManifest
) -> np.ndarray:
    """By how much the served row is older than the newest one known, seconds; NaN when it is no row of its key."""
    features = {at: item for at, item in enumerate(manifest.features) if item.view == view}
    keys = next(iter(features.values())).join_keys
    own = moments.select(ROW_ID, *keys, pl.col(TIME).alias("_asked")).with_columns(
        pl.Series(f"_{item.name}", served[:, at]) for at, item in features.items()
    )
    rows = table.select(*keys, TIME, *(pl.col(item.name).fill_null(item.default) for item in features.values()))
    pairs = own.join(rows, on=keys, how="inner").filter(pl.col(TIME) <= pl.col("_asked"))
    equal = pl.all_horizontal(
        (pl.col(f"_{item.name}") - pl.col(item.name)).abs() <= ABSOLUTE + RELATIVE * pl.col(item.name).abs()
        for item in features.values()
    )
    found = pairs.group_by(ROW_ID).agg(
        ((pl.col(TIME).max() - pl.col(TIME).filter(equal).max()).dt.total_microseconds() / 1e6).alias("_lag")
    )
    return (
        moments.select(ROW_ID)
        .join(found, on=ROW_ID, how="left", maintain_order="left")["_lag"]
        .fill_null(np.nan)
        .to_numpy()
    )
