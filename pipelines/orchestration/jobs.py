"""Jobs, schedules and sensors over the assets. Every schedule is stopped until someone starts it; one sensor is not."""

import datetime as dt
import json
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from flightdeck.contracts.model_spec import ModelSpec
from pipelines.orchestration import names, places
from pipelines.orchestration.data_assets import lake_key
from pipelines.orchestration.days import complete_months, month_end_utc
from pipelines.orchestration.model_assets import CANDIDATE_RUN, candidate_key, version_key
from pipelines.use_case import UseCase

# The gate's own pod gets the private key; no other run's pod can read it. Names: the Secret `signing-key`.
SIGNING = {
    "container_config": {
        "env": [{"name": "FLIGHTDECK_SIGNING_KEY_FILE", "value": "/var/run/flightdeck/signing/signing.pem"}],
        "volume_mounts": [{"name": "signing-key", "mount_path": "/var/run/flightdeck/signing", "read_only": True}],
    },
    "pod_spec_config": {
        "volumes": [{"name": "signing-key", "secret": {"secret_name": "signing-key", "default_mode": 0o440}}]
    },
}
MORNING_H = 5  # hour of the daily run in the source's zone: a day's last records are there by then


def data_jobs(use_case: UseCase) -> list[Any]:
    """daily and backfill (the same steps, other limits), predictions, upkeep."""
    tables = dg.AssetSelection.assets(*(lake_key(table.name) for table in use_case.tables))
    features = dg.AssetSelection.groups("features")
    steps = tables | features
    writes_days = {names.WRITES_TAG: "days", names.TAKES_TAG: names.DAYS}
    return [
        dg.define_asset_job(
            names.DAILY, steps, description="A day: ingest, check, features, online store.",
            tags={**writes_days, names.MAX_RUNTIME_TAG: "900"},
        ),
        dg.define_asset_job(
            names.BACKFILL, steps, description="Many days in one run: ingest, check, features, online store.",
            tags={**writes_days, names.MAX_RUNTIME_TAG: "3600"},
        ),
        dg.define_asset_job(
            names.PREDICTIONS, dg.AssetSelection.assets(lake_key("predictions")),
            description="Prediction records from the stream into the lake.",
            tags={names.WRITES_TAG: "predictions", names.MAX_RUNTIME_TAG: "900"},
        ),
        dg.define_asset_job(
            names.UPKEEP, dg.AssetSelection.assets(lake_key("upkeep")),
            description="Compact, and remove what nothing needs.",
            tags={names.WRITES_TAG: "upkeep", names.MAX_RUNTIME_TAG: "3600"},
        ),
    ]  # fmt: skip


def model_jobs(spec: ModelSpec) -> tuple[Any, Any]:
    """train and gate of a model: two jobs, so that the pod which runs a training never sees the signing key."""
    train = dg.define_asset_job(
        names.train_job(spec.name), dg.AssetSelection.assets(candidate_key(spec.name)),
        description=f"A candidate of {spec.name}; {names.gate_job(spec.name)} follows by itself.",
        tags={
            names.MODEL_TAG: spec.name, names.TAKES_TAG: names.UNTIL, names.THEN_TAG: names.gate_job(spec.name),
            names.MAX_RUNTIME_TAG: "1800",
        },
    )  # fmt: skip
    gate = dg.define_asset_job(
        names.gate_job(spec.name), dg.AssetSelection.assets(version_key(spec.name)),
        description=f"Judge a candidate of {spec.name}, sign its card, register the version, publish its artefact.",
        tags={
            names.MODEL_TAG: spec.name, names.MAX_RUNTIME_TAG: "900", "dagster-k8s/config": json.dumps(SIGNING),
        },
    )  # fmt: skip
    return train, gate


def gate_follows(pairs: dict[str, Any], trains: Sequence[Any]) -> dg.SensorDefinition:
    """Every trained candidate is judged: started by the success of its training, once."""

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS, name="gate_follows_training", monitored_jobs=list(trains),
        request_jobs=list(pairs.values()), minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts the gate of every candidate that a training job made.",
    )  # fmt: skip
    def gate_follows_training(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        run = context.dagster_run
        job = pairs[run.job_name].name
        found = context.instance.get_records_for_run(
            run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
        ).records
        made = [it.asset_materialization for it in found if it.asset_materialization]
        if not made:
            yield dg.SkipReason(f"run {run.run_id} made no candidate")
            return
        config = {"candidate": str(made[-1].metadata[CANDIDATE_RUN].value)}
        op = "__".join(made[-1].asset_key.path).replace("candidate", "version", 1)
        yield dg.RunRequest(
            run_key=f"gate-{run.run_id}", job_name=job, run_config={"ops": {op: {"config": config}}},
            tags={names.AFTER_TAG: run.run_id},
        )  # fmt: skip

    return gate_follows_training


def schedules(daily: Any, predictions: Any) -> list[Any]:
    """On wall time; stopped. In a replay the sensors below take their place."""
    return [
        dg.build_schedule_from_partitioned_job(daily, name="every_morning", hour_of_day=MORNING_H),
        dg.ScheduleDefinition(name="every_ten_minutes", job=predictions, cron_schedule="*/10 * * * *"),
    ]


def next_day_sensor(use_case: UseCase, daily: Any) -> dg.SensorDefinition:
    """In a replay: the day after the lake's newest, once the one clock has passed its end."""

    @dg.sensor(
        name="next_day", job=daily, minimum_interval_seconds=15, description="Runs `daily` by the replay's clock."
    )
    def next_day(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        present = _days_there(use_case)
        day = max(present) + dt.timedelta(days=1) if present else use_case.first_day
        if day > use_case.last_day:
            return dg.SkipReason(f"the source ends on {use_case.last_day}")
        wait = max(table.rules.freshness.complete_after for table in use_case.tables)
        due, now = use_case.day_start_utc(day + dt.timedelta(days=1)) + wait, places.now_utc()
        if now < due:
            return dg.SkipReason(f"{day} is due at {due:%Y-%m-%d %H:%MZ}; the clock says {now:%Y-%m-%d %H:%MZ}")
        return dg.RunRequest(run_key=f"daily-{day}", partition_key=day.isoformat())

    return next_day


def new_month_sensor(use_case: UseCase, trains: Sequence[tuple[ModelSpec, Any]]) -> dg.SensorDefinition:
    """Trains every model when the lake has a month more, as of its end plus the labels' maturity."""

    @dg.sensor(
        name="new_month", jobs=[job for _, job in trains], minimum_interval_seconds=60,
        description="Trains when a new month is complete in the lake.",
    )  # fmt: skip
    def new_month(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        months = complete_months(use_case, _days_there(use_case))
        if not months or months[-1] == context.cursor:
            return dg.SkipReason(f"the newest complete month is {months[-1] if months else 'none'}")
        requests = []
        for spec, job in trains:
            until = month_end_utc(use_case, months[-1]) + spec.split.maturity
            op = "__".join(candidate_key(spec.name).path)
            config = {"until": until.isoformat(), "note": months[-1]}
            requests.append(
                dg.RunRequest(
                    run_key=f"{spec.name}-{months[-1]}", job_name=job.name, run_config={"ops": {op: {"config": config}}}
                )
            )
        return dg.SensorResult(run_requests=requests, cursor=months[-1])

    return new_month


def _days_there(use_case: UseCase) -> set[Any]:
    """Days that every daily table of the lake has."""
    lake = places.lake()
    per_table = [set(lake.snapshot(table.name).rows_per_day()) for table in use_case.tables if not table.static]
    return set.intersection(*per_table) if per_table else set()
