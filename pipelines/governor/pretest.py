"""Entry point of the pre-test: a small model on a sample of recent rows, and the champion, on the newest holdout."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import polars as pl

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec, Task
from flightdeck.contracts.release import ModelRef
from flightdeck.contracts.retrain import Pretest
from pipelines import stores
from pipelines.gates.measure import Join, scores, store_join
from pipelines.governor.compare import Scored, answer, not_made, nothing_to_beat
from pipelines.registry.artefacts import opened
from pipelines.training.dataset import TIME, TooLittleData, blinded, filled, matrix, medians, split_rows, window
from pipelines.training.fit import SEED, Params, fit, predict
from pipelines.use_case import load_use_case

LEAF, LEAST_LEAF = "min_samples_leaf", 20  # scikit-learn's own default


def pretest(spec: ModelSpec, layout: StateLayout, now: dt.datetime, *, tracking_uri: str) -> Pretest:
    """Ask the question about the registry's champion, on what the lake knows now.

    Raises:
        RegistryUnavailable, RegistryRefused, ArtefactError: the champion cannot be had.
        LakeError, ExportError, TrainingFrameError: the rows cannot be had. Nothing is decided then.
        ValueError: the spec has no pre-test.
    """
    from pipelines.features.export import ensure_export
    from pipelines.registry import versions

    champion = versions.load_champion(spec.name, tracking_uri=tracking_uri)
    if champion:
        versions.fetch(champion, layout, tracking_uri=tracking_uri)
        ensure_export(stores.lake(layout), layout)
    return compared(spec, champion, layout, now)


def compared(
    spec: ModelSpec, champion: ModelRef | None, layout: StateLayout, now: dt.datetime, *, join: Join = store_join
) -> Pretest:
    """The same, with a champion whose artefact is in the state folder.

    Args:
        join: point-in-time features of entities.
    Raises:
        ArtefactError: its artefact is absent or altered. The rest as for `pretest`.
    """
    if spec.retrain is None or spec.retrain.pretest is None:
        raise ValueError(f"{spec.name}: its spec has no retrain.pretest (docs/model-spec.md)")
    if champion is None:
        return nothing_to_beat()
    started = time.perf_counter()
    try:
        scored = _scored(spec, champion, layout, now, join)
    except ValueError as error:  # too few rows, one class, a feature without any value
        found = not_made(str(error), champion.version)
    else:
        found = answer(
            spec.task, spec.target.unit, scored, spec.gates, min_gain=spec.retrain.pretest.min_gain
        )  # fmt: skip
    return found.model_copy(update={"seconds": round(time.perf_counter() - started, 2)})


def _scored(spec: ModelSpec, champion: ModelRef, layout: StateLayout, now: dt.datetime, join: Join) -> Scored:
    assert spec.retrain is not None and spec.retrain.pretest is not None
    plan, use_case, label = spec.retrain.pretest, load_use_case(), spec.target.label
    times = window(now, spec.split.model_copy(update={"train_days": plan.train_days}), use_case.time_zone)
    entities = use_case.entity_frame(stores.lake(layout), times.train_from, times.holdout_until, now)
    recent, holdout = split_rows(entities, times, label)
    sample = recent.sample(min(plan.sample_rows, recent.height), seed=SEED).sort(TIME, "row_id")

    joined = join(layout, spec.feature_service, pl.concat([sample, holdout]))  # one join for both
    names = [item.name for item in joined.features]
    train, held = joined.frame.head(sample.height), joined.frame.tail(holdout.height)
    raw, target = matrix(train, names), train[label].cast(pl.Float64).to_numpy()
    if spec.task is Task.CLASSIFICATION and not 0 < target.mean() < 1:
        raise TooLittleData(
            f"all {len(target):,} sampled labels are {target[0]:g}; a classification needs both classes"
        )
    defaults = medians(raw, names)
    values = blinded(filled(raw, defaults), defaults, names, spec.estimator.ignore)
    fitted = fit(spec.task, smaller(spec.estimator.params, sample.height / recent.height), values, target)

    manifest, onnx = opened(layout.artefacts, champion.sha256)
    same = manifest.feature_service == spec.feature_service
    theirs = held if same else join(layout, manifest.feature_service, holdout).frame
    return Scored(
        label=held[label].cast(pl.Float64).to_numpy(),
        day=held[TIME].dt.convert_time_zone(str(use_case.time_zone)).dt.date().to_numpy(),
        small=predict(spec.task, fitted.estimator, filled(matrix(held, names), defaults)),
        champion=scores(manifest, onnx, theirs),
        version=f"v{champion.version}",
        words=f"a small model on {sample.height:,} of {recent.height:,} rows of {plan.train_days} days to "
        f"{times.holdout_from:%Y-%m-%d}",
        train_rows=sample.height,
    )


def smaller(params: Params, share: float) -> dict[str, Any]:
    """The spec's parameters for a share of the rows: a leaf holds the same share of them as it would of all."""
    found = dict(params)
    leaf = found.get(LEAF)
    if isinstance(leaf, int):
        found[LEAF] = max(LEAST_LEAF, round(leaf * share))
    return found
