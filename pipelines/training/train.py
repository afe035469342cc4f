"""Entry point: train a candidate of a spec on what the lake knows, and log it."""

from __future__ import annotations

import contextlib
import datetime as dt
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec
from pipelines.registry.artefacts import store
from pipelines.registry.mlflow_adapter import MlflowRegistry, RegistryRefused, RegistryUnavailable
from pipelines.training import plots
from pipelines.training.build import Built, Change, Served, build
from pipelines.training.candidate import ARTEFACT_PATH, Candidate, Facts, save
from pipelines.training.dataset import Window, window
from pipelines.training.lineage import digests

PLANTED_VIEW = "planted"  # never a view of a feature service: the signature gate refuses it


def train_candidate(
    spec: ModelSpec,
    layout: StateLayout,
    *,
    until_utc: dt.datetime,
    tracking_uri: str,
    known_by_utc: dt.datetime | None = None,
    trials: int | None = None,
    sample_rows: int | None = None,
    plant: Change | None = None,
    spoil: Change | None = None,
    note: str = "",
    frame: Any | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Candidate:
    """Train, export and log one candidate as if the day were `until_utc`.

    Args:
        until_utc: the time of the training; nothing known later is used.
        known_by_utc: labels known by then (default: `until_utc`).
        trials: search trials (default: the spec's); 0 trains with the spec's own parameters.
        sample_rows: train on the newest so many rows only.
        plant: applied to the whole joined frame; float columns it adds become features. For drills of the leak gate.
        spoil: applied to the training rows alone. For drills of the quality gate.
        frame: a TrainingFrame made before (default: joined here).
    Raises:
        RegistryUnavailable: MLflow does not answer; asked before the work begins.
        TooLittleData: no rows in a part of the split.
        ValueError: the spec and the feature service disagree, or a feature cannot be trained on.
    """
    from pipelines.use_case import load_use_case

    registry, use_case = MlflowRegistry(tracking_uri), load_use_case()
    known_by = min(known_by_utc or until_utc, until_utc)
    times = window(known_by, spec.split, use_case.time_zone)
    run_id = registry.start_run(
        spec.name,
        f"{spec.name} until {until_utc:%Y-%m-%d}" + (f" ({note})" if note else ""),
        {"flightdeck.model": spec.name, "flightdeck.note": note, "flightdeck.feature_service": spec.feature_service},
    )
    try:
        started = time.perf_counter()
        if frame is None:
            progress("join features")
            frame = joined_frame(spec, layout, times, known_by)
        joined = {"join": round(time.perf_counter() - started, 3)}
        progress("search and fit")
        candidate, built = made_candidate(
            spec, layout, frame, times, until_utc=until_utc, run_id=run_id, tracking_uri=tracking_uri,
            trials=trials, sample_rows=sample_rows, plant=plant, spoil=spoil, note=note, seconds=joined,
        )  # fmt: skip
        progress("log to MLflow")
        _log(registry, candidate, built)
    except BaseException:
        with contextlib.suppress(RegistryUnavailable, RegistryRefused):  # the first failure is the one to tell
            registry.end_run(run_id, ok=False)
        raise
    registry.end_run(run_id, ok=True)
    return candidate


def made_candidate(
    spec: ModelSpec, layout: StateLayout, frame: Any, times: Window, *, until_utc: dt.datetime, run_id: str,
    tracking_uri: str = "", trials: int | None = None, sample_rows: int | None = None, plant: Change | None = None,
    spoil: Change | None = None, note: str = "", seconds: dict[str, float] | None = None,
) -> tuple[Candidate, Built]:  # fmt: skip
    """Train and export a candidate of a joined frame, and keep it in the state folder; no tracking server is asked.

    Args:
        run_id: names the candidate; of the run in MLflow where there is one.
        tracking_uri: for whoever registers it later. The rest as in `train_candidate`.
    Raises:
        TooLittleData, ValueError: see `train_candidate`.
    """
    from pipelines.use_case import load_use_case

    rows, features = frame.frame, served(frame)
    if plant:
        rows, features = planted(rows, features, plant)
    built = build(
        spec, rows, features, times, time_zone=load_use_case().time_zone, layout=layout,
        trials=spec.search.trials if trials is None else trials, sample_rows=sample_rows, spoil=spoil,
    )  # fmt: skip
    sha256, folder = store(layout.artefacts, built.manifest, built.onnx)
    facts = facts_of(
        spec, built, frame, times, until_utc=until_utc, run_id=run_id, sha256=sha256, seconds=seconds or {}, note=note
    )
    candidate = Candidate(spec, facts, folder, built.holdout, layout, tracking_uri)
    save(candidate, layout.candidates / run_id)
    return candidate, built


def joined_frame(spec: ModelSpec, layout: StateLayout, times: Window, known_by: dt.datetime) -> Any:
    """The training frame of a spec's window, with the entity's columns kept for the gates."""
    from pipelines import stores
    from pipelines.features.training_frame import training_frame
    from pipelines.use_case import load_use_case

    entity = load_use_case().entity_frame(stores.lake(layout), times.train_from, times.holdout_until, known_by)
    return training_frame(layout, spec.feature_service, entity)


def served(frame: Any) -> list[Served]:
    """The features of a training frame, in the order of the service."""
    return [
        Served(item.name, item.source, item.view, sorted(item.join_keys), item.feast_type) for item in frame.features
    ]


def planted(rows: pl.DataFrame, features: list[Served], plant: Change) -> tuple[pl.DataFrame, list[Served]]:
    """The frame after a drill's change; float columns that are new become features."""
    changed = plant(rows)
    new = [name for name in changed.columns if name not in rows.columns and changed[name].dtype.is_float()]
    return changed, features + [Served(name, "stored", PLANTED_VIEW, [], "FLOAT") for name in new]


def facts_of(
    spec: ModelSpec, built: Built, frame: Any, times: Window, *,
    until_utc: dt.datetime, run_id: str, sha256: str, seconds: dict[str, float], note: str,
) -> Facts:  # fmt: skip
    """What is kept beside the artefact."""
    return Facts(
        model=spec.name,
        sha256=sha256,
        run_id=run_id,
        created_at=dt.datetime.now(dt.UTC),
        until_utc=until_utc,
        train_from=built.train_from,
        train_until=times.holdout_from,
        holdout_from=times.holdout_from,
        holdout_until=times.holdout_until,
        train_rows=built.train_rows,
        holdout_rows=built.holdout.height,
        without_label_rows=built.without_label_rows,
        base_rate=built.manifest.fallback_score,
        params=built.params,
        iterations=built.iterations,
        search_trials=built.search_trials,
        metrics=built.metrics,
        importances=built.importances,
        digests=digests(spec, built.holdout_sha256, dict(frame.table_versions), str(frame.export_id)),
        seconds={**seconds, **built.seconds},
        note=note,
    )


def _log(registry: MlflowRegistry, candidate: Candidate, built: Built) -> None:
    facts, lineage = candidate.facts, candidate.facts.digests
    times = {
        key: getattr(facts, key) for key in ("until_utc", "train_from", "train_until", "holdout_from", "holdout_until")
    }
    registry.log(
        candidate.run_id,
        params={
            **{f"estimator.{key}": value for key, value in facts.params.items()},
            **{key: value.isoformat() for key, value in times.items()},
            "estimator.iterations": facts.iterations,
            "search.trials": facts.search_trials,
            "feature_service": candidate.spec.feature_service,
            "feature_export": lineage.feature_export,
            "horizon_min": candidate.spec.horizon_min,
        },
        metrics={
            **{f"holdout.{key}": value for key, value in facts.metrics.items()},
            **{f"importance.{key}": value for key, value in facts.importances.items()},
            **{f"seconds.{key}": value for key, value in facts.seconds.items()},
            "rows.train": facts.train_rows, "rows.holdout": facts.holdout_rows,
            "rows.without_label": facts.without_label_rows,
        },
        tags={
            "flightdeck.sha256": candidate.sha256,
            "flightdeck.git_commit": lineage.git_commit,
            "flightdeck.lock_sha256": lineage.lock_sha256,
            "flightdeck.spec_sha256": lineage.spec_sha256,
            "flightdeck.contributions": "permutation importance on the holdout",
        },
    )  # fmt: skip
    registry.log_datasets(
        candidate.run_id,
        [
            ("train", built.train_sha256, f"export {lineage.feature_export}", "training"),
            ("holdout", built.holdout_sha256, f"export {lineage.feature_export}", "evaluation"),
            *(
                (table, f"version {version}", f"lake/{table}", "source")
                for table, version in lineage.table_versions.items()
            ),
        ],
    )
    with tempfile.TemporaryDirectory() as draft:
        stage = Path(draft)
        save(candidate, stage)
        shutil.copytree(candidate.folder, stage / ARTEFACT_PATH)
        (stage / "plots").mkdir()
        for name, picture in plots.candidate_pictures(candidate).items():
            (stage / "plots" / f"{name}.png").write_bytes(picture)
        registry.upload(candidate.run_id, stage)
