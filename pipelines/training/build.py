"""From a training frame to an artefact and its facts; no tracking server and no lake."""

from __future__ import annotations

import dataclasses
import time
import zoneinfo
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from flightdeck.contracts.artefact import ONNX_FILE, ModelManifest, ServedFeature, ViewPolicy
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec, Task
from pipelines.gates.metrics import calibration_of, day_numbers, measure_of, point
from pipelines.registry.artefacts import bytes_digest
from pipelines.registry.runtime import OnnxModel
from pipelines.stores import optuna_url
from pipelines.training.candidate import BASELINE_SCORE, DAY, SKLEARN_SCORE
from pipelines.training.dataset import (
    TIME,
    TooLittleData,
    Window,
    baseline_scores,
    blinded,
    digest,
    filled,
    matrix,
    medians,
    split_rows,
)
from pipelines.training.export import to_onnx
from pipelines.training.fit import SEED, fit, predict
from pipelines.training.search import search

FEATURE_PROJECT = "flightdeck"  # Feast's project, part of the online keys
IMPORTANCE_ROWS = 4000
Change = Callable[[pl.DataFrame], pl.DataFrame]


@dataclasses.dataclass(frozen=True)
class Served:
    """One feature as the feature service gives it, before training knows its default."""

    name: str
    source: str
    view: str
    join_keys: list[str]
    feast_type: str


@dataclasses.dataclass(frozen=True)
class Built:
    """A fitted model as an artefact, with its holdout and what was measured."""

    manifest: ModelManifest
    onnx: bytes
    holdout: pl.DataFrame
    params: dict[str, Any]
    iterations: int
    search_trials: int
    train_rows: int
    without_label_rows: int
    train_sha256: str
    holdout_sha256: str
    train_from: Any
    metrics: dict[str, float]
    importances: dict[str, float]
    seconds: dict[str, float]


def build(
    spec: ModelSpec,
    frame: pl.DataFrame,
    features: Sequence[Served],
    times: Window,
    *,
    time_zone: zoneinfo.ZoneInfo,
    layout: StateLayout,
    trials: int,
    sample_rows: int | None = None,
    spoil: Change | None = None,
) -> Built:
    """Split, search, fit, export and measure.

    Args:
        frame: one float32 column per feature, `row_id`, `event_timestamp`, labels, `label_known_at_utc`, slices.
        sample_rows: train on the newest so many rows only.
        spoil: applied to the training rows alone.
    Raises:
        TooLittleData: no rows in a part of the split.
        ValueError: a feature that cannot be trained on.
    """
    label, names = spec.target.label, [item.name for item in features]
    seconds: dict[str, float] = {}
    train, holdout = split_rows(frame, times, label)
    train = spoil(train) if spoil else train
    train = train.tail(sample_rows) if sample_rows else train
    raw, target = matrix(train, names), train[label].cast(pl.Float64).to_numpy()
    if spec.task is Task.CLASSIFICATION and not 0 < target.mean() < 1:
        raise TooLittleData(f"all {len(target)} training labels are {target[0]:g}; a classification needs both classes")
    defaults = medians(raw, names)
    values = blinded(filled(raw, defaults), defaults, names, spec.estimator.ignore)
    train_sha256 = digest(values, target)

    params, run_trials = dict(spec.estimator.params), 0
    if trials and spec.search.space:
        started = time.perf_counter()
        study = f"{spec.name}-{spec_key(spec)}-{train_sha256[:16]}"
        found = search(spec, values, target, storage=optuna_url(layout), study=study, trials=trials)
        params, run_trials = {**params, **found.params}, found.trials
        seconds["search"] = time.perf_counter() - started
    started = time.perf_counter()
    fitted = fit(spec.task, params, values, target)
    seconds["fit"] = time.perf_counter() - started

    started = time.perf_counter()
    onnx = to_onnx(fitted.estimator, spec.task, len(names))
    manifest = ModelManifest(
        model=spec.name,
        task=spec.task,
        horizon_min=spec.horizon_min,
        unit=spec.target.unit,
        feature_project=FEATURE_PROJECT,
        feature_service=spec.feature_service,
        features=[
            ServedFeature(**dataclasses.asdict(item), default=float(default))
            for item, default in zip(features, defaults, strict=True)
        ],
        views={
            view: ViewPolicy(max_age_s=policy.max_age.total_seconds(), on_missing=policy.on_missing)
            for view, policy in spec.features.items()
        },
        decision_threshold=spec.decision_threshold,
        fallback_score=float(target.mean()),
        files=[bytes_digest(ONNX_FILE, onnx)],
    )
    seconds["export"] = time.perf_counter() - started

    started = time.perf_counter()
    held = filled(matrix(holdout, names), defaults)
    holdout = holdout.with_columns(
        pl.Series(SKLEARN_SCORE, predict(spec.task, fitted.estimator, held)),
        pl.Series(BASELINE_SCORE, baseline_scores(train, holdout, label, spec.baseline)),
        pl.col(TIME).dt.convert_time_zone(str(time_zone)).dt.date().alias(DAY),
    )
    metrics = measured(spec, holdout)
    metrics["validation_loss"] = fitted.validation_loss
    importances = permutation_importances(spec, OnnxModel(onnx), held, holdout, names)
    seconds["measure"] = time.perf_counter() - started
    return Built(
        manifest=manifest,
        onnx=onnx,
        holdout=holdout,
        params=params,
        iterations=fitted.iterations,
        search_trials=run_trials,
        train_rows=train.height,
        without_label_rows=int(frame[label].null_count()),
        train_sha256=train_sha256,
        holdout_sha256=digest(held, holdout[label].cast(pl.Float64).to_numpy()),
        train_from=train[TIME].min(),
        metrics=metrics,
        importances=importances,
        seconds={name: round(value, 3) for name, value in seconds.items()},
    )


def spec_key(spec: ModelSpec) -> str:
    """Short digest of what a search depends on."""
    return digest(np.frombuffer((spec.search.model_dump_json() + spec.estimator.model_dump_json()).encode(), np.uint8))[
        :12
    ]


def metric_name(task: Task) -> str:
    """The quality metric's name."""
    return "auc" if task is Task.CLASSIFICATION else "rmse"


def measured(spec: ModelSpec, holdout: pl.DataFrame) -> dict[str, float]:
    """The candidate's and the baseline's metric and the candidate's calibration on the holdout; no intervals here.

    Raises:
        NotComputable: the holdout does not allow it.
    """
    label, day = holdout[spec.target.label].cast(pl.Float64).to_numpy(), holdout[DAY].to_numpy()
    score, base = holdout[SKLEARN_SCORE].to_numpy(), holdout[BASELINE_SCORE].to_numpy()
    days = day_numbers(day)[1]
    name = metric_name(spec.task)
    return {
        name: point(measure_of(spec.task, label, score, day), days),
        f"baseline_{name}": point(measure_of(spec.task, label, base, day), days),
        "calibration_error": point(calibration_of(spec.task, label, score, day), days),
        "mean_score": float(score.mean()),
        "mean_label": float(label.mean()),
    }


def permutation_importances(
    spec: ModelSpec,
    model: OnnxModel,
    values: npt.NDArray[np.float32],
    holdout: pl.DataFrame,
    names: Sequence[str],
) -> dict[str, float]:
    """Metric lost when a feature's values are shuffled between holdout rows (Breiman 2001), largest first.

    Correlated features share their importance: each looks smaller than the group is.
    """
    generator = np.random.default_rng(SEED)
    chosen = np.sort(generator.permutation(len(values))[:IMPORTANCE_ROWS])
    rows = values[chosen]
    label, day = holdout[spec.target.label].cast(pl.Float64).to_numpy()[chosen], holdout[DAY].to_numpy()[chosen]
    days = day_numbers(day)[1]

    def metric(features: npt.NDArray[np.float32]) -> float:
        return point(measure_of(spec.task, label, model.score(features).astype(np.float64), day), days)

    whole, lost = metric(rows), {}
    for column, name in enumerate(names):
        shuffled = rows.copy()
        shuffled[:, column] = generator.permutation(shuffled[:, column])
        loss = whole - metric(shuffled)
        lost[name] = round(loss if spec.task is Task.CLASSIFICATION else -loss, 6)
    return dict(sorted(lost.items(), key=lambda item: -item[1]))
