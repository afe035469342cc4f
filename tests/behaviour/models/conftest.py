"""The model `late` as of July 1st, trained on every third flight of the real data, and months that it has not seen."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flightdeck.contracts.layout import STATE_ENV, StateLayout
from flightdeck.contracts.model_spec import ModelSpec, load_model_spec
from pipelines.data.ingest import ingest_days
from pipelines.data.lake import Lake
from pipelines.features import registry
from pipelines.features.build import build_features
from pipelines.features.export import export
from pipelines.features.training_frame import training_frame
from pipelines.registry.runtime import OnnxModel
from pipelines.training.build import Built, build
from pipelines.training.dataset import baseline_scores, filled, matrix, split_rows, window
from pipelines.training.train import served
from pipelines.use_case import load_use_case

REPOSITORY = Path(__file__).resolve().parents[3]
UNTIL = dt.datetime(2013, 7, 1, tzinfo=dt.UTC)
LAST = dt.datetime(2013, 11, 1, tzinfo=dt.UTC)
EVERY = 3


@dataclasses.dataclass(frozen=True)
class World:
    """The built model and all joined rows, with its score and the baseline's."""

    spec: ModelSpec
    built: Built
    rows: pl.DataFrame
    names: list[str]
    model: OnnxModel
    defaults: np.ndarray

    def month(self, month: int) -> pl.DataFrame:
        return self.rows.filter(pl.col("_day").dt.month() == month)

    def vectors(self, rows: pl.DataFrame) -> np.ndarray:
        return filled(matrix(rows, self.names), self.defaults)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    use_case, spec = load_use_case(), load_model_spec(REPOSITORY / "specs" / "late.yaml")
    layout = StateLayout(tmp_path_factory.mktemp("behaviour"))
    lake = Lake(layout.lake)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATE_ENV, str(layout.root))
        for _ in ingest_days(use_case, lake, layout.quarantine, last=LAST.date()):
            pass
        build_features(use_case, lake, use_case.day_start_utc(use_case.first_day), LAST)
        export(lake, layout)
        registry.apply(layout)
        entity = use_case.entity_frame(lake, use_case.day_start_utc(use_case.first_day), LAST, LAST + dt.timedelta(1))
        frame = training_frame(layout, spec.feature_service, entity.filter(pl.col("row_id") % EVERY == 0))
        times = window(UNTIL, spec.split, use_case.time_zone)
        params = {**spec.estimator.params, "min_samples_leaf": int(spec.estimator.params["min_samples_leaf"]) // EVERY}
        thinned = spec.model_copy(update={"estimator": spec.estimator.model_copy(update={"params": params})})
        built = build(thinned, frame.frame, served(frame), times, time_zone=use_case.time_zone, layout=layout, trials=0)
        model, defaults = (
            OnnxModel(built.onnx),
            np.array([item.default for item in built.manifest.features], np.float32),
        )
        score = model.score(filled(matrix(frame.frame, frame.names), defaults)).astype(np.float64)
        train, _ = split_rows(frame.frame, times, spec.target.label)
        rows = frame.frame.with_columns(
            pl.Series("_score", score),
            pl.Series("_baseline", baseline_scores(train, frame.frame, spec.target.label, spec.baseline)),
            pl.col("event_timestamp").dt.convert_time_zone(str(use_case.time_zone)).dt.date().alias("_day"),
        )
        yield World(spec, built, rows, frame.names, model, defaults)
