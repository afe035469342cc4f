"""Predictions with their outcomes, maturity accounted for: an outcome that is not in yet is not a negative.

Outcomes come from the lake's own tables through the use case's `entity_frame`, which gives per entity the newest
version known at a time and applies the use case's rules (which outcomes count, and as what). The joined rows are kept
in the lake table `labels`, by the prediction's request id: a label that is delivered twice is written once, a
correction is appended, and whoever reads gets the newest known.
"""

from __future__ import annotations

import datetime as dt
import enum
import zoneinfo
from typing import Any

import polars as pl

from flightdeck.contracts.model_spec import ModelSpec
from pipelines.data.lake import Lake, Snapshot, newest
from pipelines.data.predictions import TABLE as PREDICTIONS
from pipelines.use_case import UseCase

TABLE = "labels"
KEY = ["request_id", "row", "release", "label"]
KNOWN_AT = "label_known_at_utc"
ASKED_AT = "asked_at_utc"
UTC = pl.Datetime("us", "UTC")
AHEAD = dt.timedelta(days=2)  # an entity may be asked for so long before, or after, the time it is to be predicted

SCHEMA: dict[str, Any] = {
    "request_id": pl.String,
    "row": pl.Int32,
    "release": pl.String,
    "label": pl.String,  # name of the target
    "entity_id": pl.String,
    "model": pl.String,
    "version": pl.String,
    "day": pl.Date,  # of asked_at_utc, UTC: the partition, as in `predictions`
    "value": pl.Float64,
    KNOWN_AT: UTC,
    "ingested_at": UTC,  # the clock when it was joined
}


class Maturity(enum.StrEnum):
    """What is known of a prediction's outcome."""

    MATURED = "matured"  # its label counts
    WAITING = "waiting"  # too young: labels that came early would be only the quick ones
    LOST = "lost"  # old enough, and still no outcome: not a negative, and told
    EXCLUDED = "excluded"  # the outcome is known, and the use case's rule gives it no label


def newest_labels(entity: pl.DataFrame, label: str, now_utc: dt.datetime) -> pl.DataFrame:
    """One row per entity: of several the newest known at `now_utc`, and of equally new ones the larger label.

    Returns:
        `entity_id`, `label_known_at_utc`, `value` (float64; null when the rule gives no label), and the other columns.
    """
    return (
        entity.filter(pl.col(KNOWN_AT) <= now_utc)
        .with_columns(value=pl.col(label).cast(pl.Float64))
        .sort(KNOWN_AT, "value", nulls_last=False)
        .unique(subset="entity_id", keep="last", maintain_order=True)
    )


def with_labels(
    predictions: pl.DataFrame,
    entity: pl.DataFrame,
    *,
    label: str,
    maturity: dt.timedelta,
    now_utc: dt.datetime,
    time_zone: zoneinfo.ZoneInfo,
    keep: list[str] | None = None,
) -> pl.DataFrame:
    """Each prediction with its label and what that is worth.

    A row counts when `asked_at + maturity` has passed, or when every prediction of its local day has its outcome and
    that day is over. Before, the known labels of a day would be those that came fast.

    Args:
        predictions: `entity_id`, `asked_at_utc` and others; a row per prediction.
        entity: the use case's entity frame; may hold several versions of an entity.
        label: name of the target column of `entity`.
        maturity: after `asked_at`, by which an outcome is known.
        now_utc: the clock.
        time_zone: of the local days.
        keep: further columns of `entity`, e.g. slices.
    Returns:
        `predictions` in their order, with `day_local` (date), `value` (float64, null unless known),
        `label_known_at_utc`, `maturity` (of `Maturity`) and `keep`.
    Raises:
        ValueError: `now_utc` has no time zone, or `entity` lacks the label.
    """
    if now_utc.tzinfo is None:
        raise ValueError(f"with_labels needs a timezone-aware now_utc; got {now_utc}")
    if label not in entity.columns:
        raise ValueError(f"the entity frame has no column {label}; it has: {', '.join(entity.columns)}")
    wanted = [name for name in keep or [] if name not in predictions.columns]
    known = newest_labels(entity, label, now_utc).select("entity_id", "value", KNOWN_AT, *wanted)
    local = pl.col(ASKED_AT).dt.convert_time_zone(str(time_zone)).dt.date()
    joined = predictions.join(known, on="entity_id", how="left", maintain_order="left").with_columns(day_local=local)
    there = pl.col(KNOWN_AT).is_not_null()
    today = now_utc.astimezone(time_zone).date()
    complete = there.all().over("day_local") & (pl.col("day_local") < today)
    old = pl.col(ASKED_AT) + maturity <= now_utc
    return joined.with_columns(
        pl.when(~(old | complete))
        .then(pl.lit(Maturity.WAITING.value))
        .when(~there)
        .then(pl.lit(Maturity.LOST.value))
        .when(pl.col("value").is_null())
        .then(pl.lit(Maturity.EXCLUDED.value))
        .otherwise(pl.lit(Maturity.MATURED.value))
        .alias("maturity")
    )


def predictions_of(lake: Lake, model: str, from_utc: dt.datetime, until_utc: dt.datetime) -> pl.DataFrame:
    """Predictions of a model that were asked in [from, until), ordered by time; empty when there are none.

    Raises:
        LakeError: the lake does not answer.
    """
    if not lake.exists(PREDICTIONS):
        return pl.DataFrame()
    days = [("day", ">=", from_utc.date()), ("day", "<=", until_utc.date()), ("model", "=", model)]
    rows = pl.from_arrow(lake.read(PREDICTIONS, filters=days))
    assert isinstance(rows, pl.DataFrame)
    return rows.filter(pl.col(ASKED_AT).is_between(from_utc, until_utc, closed="left")).sort(
        ASKED_AT, "request_id", "row", "release"
    )


def entities_around(
    use_case: UseCase, lake: Lake, from_utc: dt.datetime, until_utc: dt.datetime, now_utc: dt.datetime
) -> pl.DataFrame:
    """Entities, with the outcomes known at `now_utc`, that may have been asked for in [from, until)."""
    return use_case.entity_frame(lake, from_utc - AHEAD, until_utc + AHEAD, now_utc)


def labelled(
    use_case: UseCase,
    lake: Lake,
    spec: ModelSpec,
    from_utc: dt.datetime,
    until_utc: dt.datetime,
    *,
    now_utc: dt.datetime,
) -> pl.DataFrame:
    """Predictions of [from, until) as `with_labels` gives them, with the spec's slices; empty when there are none.

    Raises:
        LakeError: the lake does not answer, or has no sources.
    """
    asked = predictions_of(lake, spec.name, from_utc, until_utc)
    if asked.is_empty():
        return asked
    entity = entities_around(use_case, lake, from_utc, until_utc, now_utc)
    slices = [name for name in spec.slices if name in entity.columns]
    return with_labels(
        asked, entity, label=spec.target.label, maturity=spec.split.maturity, now_utc=now_utc,
        time_zone=use_case.time_zone, keep=slices,
    )  # fmt: skip


def record_labels(lake: Lake, spec: ModelSpec, rows: pl.DataFrame, now_utc: dt.datetime) -> int:
    """Append the matured labels of `labelled` rows that the table `labels` does not have yet; returns how many.

    Run again with the same outcomes it writes nothing; a corrected outcome is written once more, and `newest` by
    `ingested_at` is what counts.

    Raises:
        LakeError: the lake does not answer, or another writer kept getting in first.
    """
    if rows.is_empty():
        return 0
    fresh = rows.filter(pl.col("maturity") == Maturity.MATURED.value).select(
        *[pl.lit(spec.target.label).alias("label") if name == "label" else pl.lit(now_utc).cast(UTC).alias(name)
          if name == "ingested_at" else pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()]
    )  # fmt: skip
    written = [0]

    def build(snapshot: Snapshot) -> pl.DataFrame:
        unwritten = changed(fresh, snapshot)
        written[0] = unwritten.height
        return unwritten

    if fresh.height:
        days = fresh["day"].unique().sort()
        lake.append_once(TABLE, [f"labels/{spec.name}/{day}" for day in days], build, partition_by=["day"])
    return written[0]


def changed(fresh: pl.DataFrame, snapshot: Snapshot) -> pl.DataFrame:
    """Rows whose newest version in the lake is absent or says something else."""
    days = sorted(set(fresh["day"].unique()) & set(snapshot.rows_per_day()))
    if not days:
        return fresh
    there = newest(snapshot.read([*KEY, "value", KNOWN_AT, "ingested_at"], [("day", "in", days)]), KEY)
    return fresh.join(there.drop("ingested_at"), on=[*KEY, "value", KNOWN_AT], how="anti")


def labels_of(lake: Lake, model: str, from_utc: dt.datetime, until_utc: dt.datetime) -> pl.DataFrame:
    """The newest labels of predictions asked on the UTC days that [from, until) touches; empty when there are none."""
    if not lake.exists(TABLE):
        return pl.DataFrame(schema=SCHEMA)
    filters = [("day", ">=", from_utc.date()), ("day", "<=", until_utc.date()), ("model", "=", model)]
    rows = pl.from_arrow(lake.read(TABLE, filters=filters))
    assert isinstance(rows, pl.DataFrame)
    return newest(rows, KEY)
