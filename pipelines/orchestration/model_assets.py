"""Assets of the models: per spec a trained candidate, then the version that the gates judged, signed and published."""

import datetime as dt
import os

import dagster as dg

from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.model_spec import ModelSpec
from pipelines.gates.decisions import GATES
from pipelines.orchestration import places
from pipelines.orchestration.data_assets import feature_key
from pipelines.orchestration.failures import RETRY, told
from pipelines.orchestration.settings import mlflow_run_url

CANDIDATE_RUN = "mlflow_run"  # metadata of a candidate's materialization: what the gate is to judge


class TrainConfig(dg.Config):
    """One training."""

    until: str | None = None  # time of the training, UTC, e.g. 2013-07-01T12:00Z; nothing later is used; default: now
    trials: int | None = None  # search trials; default: the spec's; 0 takes the spec's own parameters
    note: str = ""  # a word for the run's name


class GateConfig(dg.Config):
    """One judgement."""

    candidate: str | None = None  # MLflow run of the training; default: the newest candidate
    promote: bool = False  # point the registry's alias `champion` to it when the verdict is PROMOTE


def candidate_key(model: str) -> dg.AssetKey:
    """What training makes."""
    return dg.AssetKey(["candidate", model])


def version_key(model: str) -> dg.AssetKey:
    """What the gates and the registry make of it."""
    return dg.AssetKey(["version", model])


def model_assets(spec: ModelSpec) -> list[dg.AssetsDefinition]:
    """Candidate and version of one model."""
    return [candidate_asset(spec), version_asset(spec)]


def candidate_asset(spec: ModelSpec) -> dg.AssetsDefinition:
    """Train, export and log one candidate."""

    @dg.asset(
        key=candidate_key(spec.name), deps=[feature_key(view) for view in spec.features], retry_policy=RETRY,
        group_name="models", kinds={"scikitlearn", "onnx", "mlflow"}, description=spec.target.description,
    )  # fmt: skip
    def candidate(context: dg.AssetExecutionContext, config: TrainConfig) -> dg.MaterializeResult:
        with told():
            from pipelines.registry.mlflow_adapter import tracking_uri_or_env
            from pipelines.training.train import train_candidate

            until = _utc(config.until) if config.until else places.now_utc()
            context.log.info(f"feature export {places.newest_export()}")
            made = train_candidate(
                spec, places.layout(), until_utc=until, tracking_uri=tracking_uri_or_env(None), trials=config.trials,
                note=config.note, progress=context.log.info,
            )  # fmt: skip
        facts = made.facts
        url = mlflow_run_url(made.tracking_uri, made.run_id)
        return dg.MaterializeResult(
            metadata={
                CANDIDATE_RUN: made.run_id,
                **({"MLflow": dg.MetadataValue.url(url)} if url else {}),
                "sha256": made.sha256,
                "until": until.isoformat(),
                "rows trained": facts.train_rows,
                "rows held out": facts.holdout_rows,
                **{name: round(value, 5) for name, value in facts.metrics.items()},
                "lake versions": dg.MetadataValue.json(facts.digests.table_versions),
                "feature export": facts.digests.feature_export,
                "seconds": round(sum(facts.seconds.values()), 1),
            }
        )

    return candidate


def version_asset(spec: ModelSpec) -> dg.AssetsDefinition:
    """Judge, sign, register, publish. Its job alone gets the signing key."""
    checks = [
        dg.AssetCheckSpec(
            gate, asset=version_key(spec.name), description=f"Gate {gate}: REJECT fails, HOLD (cannot be told) warns."
        )
        for gate in GATES
    ]

    @dg.asset(
        key=version_key(spec.name), deps=[candidate_key(spec.name)], check_specs=checks, retry_policy=RETRY,
        group_name="models", kinds={"mlflow", "oci"},
        description=f"A registered version of {spec.name}: verdict, signed card, artefact.",
    )  # fmt: skip
    def version(context: dg.AssetExecutionContext, config: GateConfig) -> dg.MaterializeResult:
        with told():
            _key_or_refuse()
            run_id = config.candidate or _newest(context, spec.name)
            from pipelines.orchestration.judging import judge_and_register

            done = judge_and_register(spec.name, run_id, promote=config.promote, tell=context.log.info)
        url = mlflow_run_url(done.tracking_uri, run_id)
        return dg.MaterializeResult(
            metadata={
                "verdict": done.verdict.value,
                "reason": done.reason,
                "version": done.ref.version,
                "sha256": done.ref.sha256,
                CANDIDATE_RUN: run_id,
                "champion before": done.champion or "none",
                **({"image": done.ref.image} if done.ref.image else {}),
                **({"MLflow": dg.MetadataValue.url(url)} if url else {}),
            },
            check_results=[
                dg.AssetCheckResult(
                    check_name=item.gate,
                    passed=item.verdict is Verdict.PROMOTE,
                    severity=dg.AssetCheckSeverity.ERROR
                    if item.verdict is Verdict.REJECT
                    else dg.AssetCheckSeverity.WARN,
                    description=f"{item.verdict.value}: {item.reason}",
                    metadata={
                        name: value
                        for name, value in (("measured", item.measured), ("margin", item.margin))
                        if value is not None
                    },
                )
                for item in done.results
            ],
        )

    return version


def _key_or_refuse() -> None:
    """Where a public key is handed out, never sign with one that was made on the spot.

    Raises:
        ValueError: this process has no signing key and must not make one.
    """
    from pipelines.registry.signing import KEY_ENV, PUBLIC_KEY_ENV

    if os.environ.get(PUBLIC_KEY_ENV) and not os.environ.get(KEY_ENV):
        raise ValueError(
            f"this run has no signing key ({KEY_ENV} is not set): start the gate as its own job, which alone gets it"
        )


def _newest(context: dg.AssetExecutionContext, model: str) -> str:
    event = context.instance.get_latest_materialization_event(candidate_key(model))
    made = event.asset_materialization if event else None
    if made is None:
        raise ValueError(f"no candidate of {model} was trained yet; run the job that trains it first")
    return str(made.metadata[CANDIDATE_RUN].value)


def _utc(text: str) -> dt.datetime:
    try:
        value = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(f"until: {text!r} is not a time like 2013-07-01 or 2013-07-01T12:00Z") from error
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)
