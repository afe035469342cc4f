"""Entry point: look at one local day of every version that answered on it; reports go to the lake."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping

import polars as pl

from flightdeck.contracts.alarm import Alarm, Daily, Kind, MonitorReport
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec, Task
from pipelines.data.labels import ASKED_AT, Maturity, entities_around, labelled, record_labels
from pipelines.data.lake import Lake
from pipelines.features.export import ExportError
from pipelines.features.registry import RegistryError
from pipelines.features.training_frame import TrainingFrameError
from pipelines.monitoring import reports
from pipelines.monitoring.baseline import Baseline, baseline, vectors_of
from pipelines.monitoring.concept import DayQuality, concept, day_quality, expected
from pipelines.monitoring.feedback import SPAN_DAYS, feedback
from pipelines.monitoring.finding import Found, explained, no_data, told
from pipelines.monitoring.inputs import drift_ratios, inputs
from pipelines.monitoring.profile import DayProfile, Vectors, shares_of
from pipelines.monitoring.quality import newest_answers
from pipelines.monitoring.recompute import recompute, sampled, served_vectors
from pipelines.monitoring.skew import skew
from pipelines.monitoring.volume import volume
from pipelines.registry.mlflow_adapter import MlflowRegistry
from pipelines.registry.versions import find_version
from pipelines.training.candidate import load_candidate
from pipelines.use_case import UseCase

HISTORY = dt.timedelta(days=35)
SHOWN_DAYS = 60
CACHE = "monitoring"  # below the state folder: joined windows, which can be made again


def load_baseline(
    model: str,
    version: str,
    layout: StateLayout,
    use_case: UseCase,
    *,
    tracking_uri: str,
    declared_season: Collection[str] = (),
) -> Baseline:
    """What is usual for a registered version.

    Raises:
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or knows no such version.
        ArtefactError, ExportError, RegistryError, TrainingFrameError, LakeError, ValueError: see `baseline`.
    """
    ref = find_version(model, version, tracking_uri=tracking_uri)
    run_id = str(MlflowRegistry(tracking_uri).version(model, ref.version).run_id)
    candidate = load_candidate(run_id, layout, tracking_uri)
    return baseline(candidate, use_case, declared_season=declared_season, cache=layout.root / CACHE)


def monitor_day(
    use_case: UseCase, lake: Lake, layout: StateLayout, spec: ModelSpec, day: dt.date, *,
    now_utc: dt.datetime, load: Callable[[str], Baseline],
) -> list[MonitorReport]:  # fmt: skip
    """Look at every version of `spec` that answered on the local `day`, and keep the reports and the labels.

    Args:
        now_utc: the clock: outcomes known later do not exist.
        load: version -> its baseline.
    Raises:
        ValueError: the day is not over.
        LakeError: the lake does not answer.
    """
    end = use_case.day_start_utc(day + dt.timedelta(days=1))
    if now_utc < end:
        raise ValueError(
            f"{day} ends at {end:%Y-%m-%d %H:%MZ}, the clock says {now_utc:%Y-%m-%d %H:%MZ}; look when it is over"
        )
    begin = use_case.day_start_utc(day) - HISTORY
    rows = labelled(use_case, lake, spec, begin, end, now_utc=now_utc)
    if rows.is_empty():
        return []
    record_labels(lake, spec, rows, now_utc)
    found = []
    today = rows.filter(pl.col("day_local") == day)
    # Traffic is the model's, whichever version answers: told with the one that answered most.
    busiest = today["version"].mode().sort().last()
    asked = rows.unique(["request_id", "row"]).group_by("day_local").len()
    traffic = {dt.date.toordinal(key): count for key, count in asked.iter_rows()}
    for version in sorted(today["version"].unique()):
        own = rows.filter(pl.col("version") == version)
        entity = entities_around(use_case, lake, use_case.day_start_utc(day), end, now_utc)
        before = {
            alarm.key: alarm
            for report in reports.reports_of(
                lake, spec.name, day - dt.timedelta(days=1), day - dt.timedelta(days=1), version
            )
            for alarm in report.alarms
        }
        report = look(
            load(version),
            own,
            day,
            now_utc=now_utc,
            use_case=use_case,
            layout=layout,
            entity=entity,
            before=before,
            traffic=traffic if version == busiest else {},
        )
        reports.save(lake, report)
        found.append(report)
    return found


def look(
    of: Baseline, rows: pl.DataFrame, day: dt.date, *, now_utc: dt.datetime, use_case: UseCase, layout: StateLayout,
    entity: pl.DataFrame, before: Mapping[str, Alarm], traffic: Mapping[int, int],
) -> MonitorReport:  # fmt: skip
    """Every check of one version on one day.

    Args:
        rows: its answers of the day and of the weeks before, as `with_labels` gives them.
        entity: the day's entities, for the recomputation.
        before: alarms of the day before, by key: the same trouble keeps its `since`.
        traffic: rows of each day (ordinal) over all versions; empty: told with another version.
    """
    today = rows.filter(pl.col("day_local") == day)
    vectors = answered(rows.filter(pl.col("sha256") == of.sha256), of, use_case)
    profiles = [of.watch.reference.profile(vectors.of(vectors.day == at)) for at in vectors.days()]
    profiles = [item for item in profiles if item.day > day.toordinal() - SPAN_DAYS]
    found = inputs(of.watch, vectors.of(vectors.day == day.toordinal()), profiles)
    if traffic:
        found = found.add(volume(of.watch, day.toordinal(), traffic))
    found = found.add(_skewed(of, today, day, now_utc=now_utc, layout=layout, entity=entity))
    matured = newest_answers(rows).filter(pl.col("maturity") == Maturity.MATURED.value)
    days = day_quality(matured, of.spec.task)
    found = found.add(_outcomes(of, days, today))
    recent = rows.filter(pl.col("day_local") > day - dt.timedelta(days=SPAN_DAYS))
    found = found.add(feedback(recent, decision_threshold=of.spec.decision_threshold))
    release = str(today["release"].mode().sort()[0])
    alarms = [
        told(item, model=of.spec.name, version=str(today["version"][0]), release=release, day=day)
        for item in explained(found.findings)
    ]
    last = profiles[-1] if profiles and profiles[-1].day == day.toordinal() else None
    return MonitorReport(
        model=of.spec.name, version=str(today["version"][0]), release=release, day=day, at=now_utc, rows=today.height,
        metric="RMSE" if of.spec.task is Task.REGRESSION else "AUC", checks=tuple(found.checks),
        alarms=tuple(_since(alarm, before) for alarm in alarms), daily=tuple(_daily(rows, days)),
        drift={} if last is None else _drift_of(of, last), shares={} if last is None else _shares_of(of, last),
    )  # fmt: skip


def answered(rows: pl.DataFrame, of: Baseline, use_case: UseCase) -> Vectors:
    """Answers as vectors with their scores.

    Raises:
        ValueError: a vector has another length than the manifest.
    """
    values = served_vectors(rows, of.manifest)
    return vectors_of(
        rows, values, rows["score"].to_numpy(), time=ASKED_AT, manifest=of.manifest, use_case=use_case,
    )  # fmt: skip


def _skewed(
    of: Baseline, today: pl.DataFrame, day: dt.date, *, now_utc: dt.datetime, layout: StateLayout, entity: pl.DataFrame
) -> Found:
    try:
        asked = sampled(today.filter(pl.col("sha256") == of.sha256))
        compared = recompute(layout, of.manifest, asked, entity, label=of.spec.target.label, now_utc=now_utc)
    except (ExportError, RegistryError, TrainingFrameError) as error:
        return no_data(Kind.SKEW, "served features", f"the offline store does not answer: {error}")
    return skew(compared, day)


def _outcomes(of: Baseline, days: list[DayQuality], today: pl.DataFrame) -> Found:
    if of.promise is None:
        return no_data(Kind.CONCEPT, "outcomes", f"no promise of the holdout: {of.problem}")
    found = concept(of.promise, days, unit=of.spec.target.unit)
    waiting = today.filter(pl.col("maturity") == Maturity.WAITING.value)
    return (
        found.add(Found([expected(of.promise, days, waiting["score"].to_numpy(), of.spec.task)]))
        if waiting.height
        else found
    )


def _since(alarm: Alarm, before: Mapping[str, Alarm]) -> Alarm:
    earlier = before.get(alarm.key)
    return alarm if earlier is None else alarm.model_copy(update={"since": min(alarm.since, earlier.since)})


def _daily(rows: pl.DataFrame, days: list[DayQuality]) -> list[Daily]:
    quality = {item.day: item for item in days}
    matured = pl.col("maturity") == Maturity.MATURED.value
    counts = rows.group_by("day_local").agg(
        pl.len().alias("rows"),
        matured.sum().alias("matured"),
        pl.col("score").mean(),
        pl.col("value").filter(matured).mean(),
    )
    return [
        Daily(
            day=day, rows=count, matured=known, mean_score=score, mean_label=label,
            metric=quality[day.toordinal()].metric if day.toordinal() in quality else None,
        )
        for day, count, known, score, label in counts.sort("day_local").iter_rows()
    ][-SHOWN_DAYS:]  # fmt: skip


def _drift_of(of: Baseline, day: DayProfile) -> dict[str, float]:
    drift = drift_ratios(of.watch, day)
    return {name: round(float(value), 3) for name, value in zip(of.watch.names, drift, strict=True)}


def _shares_of(of: Baseline, day: DayProfile) -> dict[str, tuple[float, ...]]:
    shares = shares_of(day.below, day.rows)
    return {
        name: tuple(round(float(item), 4) for item in row) for name, row in zip(of.watch.names, shares, strict=True)
    }


def days_to_look_at(
    use_case: UseCase, spec: ModelSpec, lake: Lake, now_utc: dt.datetime, *, back: int = 7
) -> list[dt.date]:
    """Local days of the last `back` that are over and have no report yet, or one from before their outcomes were in."""
    today = now_utc.astimezone(use_case.time_zone).date()
    wanted = [today - dt.timedelta(days=ago) for ago in range(back, 0, -1)]
    looked = {item.day: item.at for item in reports.reports_of(lake, spec.name, wanted[0], wanted[-1])}
    mature = spec.split.maturity
    return [
        day
        for day in wanted
        if day not in looked or (looked[day] < use_case.day_start_utc(day + dt.timedelta(days=1)) + mature <= now_utc)
    ]
