"""Six weeks of January and February in a lake, a model trained on the first five, and the answers it gave after."""

from __future__ import annotations

import dataclasses
import datetime as dt
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec, load_model_spec
from flightdeck.contracts.prediction import PredictionRecord
from pipelines.data.ingest import ingest_days
from pipelines.data.lake import Lake
from pipelines.data.predictions import TABLE, to_frame
from pipelines.features.build import build_features
from pipelines.features.export import export
from pipelines.monitoring.baseline import Baseline, baseline
from pipelines.registry.runtime import OnnxModel
from pipelines.training.candidate import Candidate
from pipelines.training.dataset import Window, filled, matrix, window
from pipelines.training.train import joined_frame, made_candidate
from pipelines.use_case import UseCase, load_use_case

REPOSITORY = Path(__file__).resolve().parents[3]
TRAINED_UNTIL = dt.datetime(2013, 2, 10, 12, tzinfo=dt.UTC)
FIRST, LAST = dt.date(2013, 1, 1), dt.date(2013, 2, 15)
SERVED = [dt.date(2013, 2, 11) + dt.timedelta(days=number) for number in range(3)]
SPOILT = SERVED[-1]  # on this day two columns are swapped on the way to the model
RELEASE, VERSION = "0badcafe", "1"


@dataclasses.dataclass(frozen=True)
class Watched:
    """The small world."""

    use_case: UseCase
    lake: Lake
    layout: StateLayout
    spec: ModelSpec
    candidate: Candidate
    usual: Baseline


@pytest.fixture(scope="session")
def watched(tmp_path_factory) -> Watched:
    layout, use_case = StateLayout(tmp_path_factory.mktemp("monitor-state")), load_use_case()
    lake = Lake(layout.lake)
    list(ingest_days(use_case, lake, layout.quarantine, FIRST, LAST, days_per_commit=31))
    until = dt.datetime(2013, 2, 16, 12, tzinfo=dt.UTC)
    build_features(use_case, lake, use_case.day_start_utc(FIRST), until)
    export(lake, layout)
    from pipelines.features.registry import apply

    apply(layout)
    content = load_model_spec(REPOSITORY / "specs" / "late.yaml").model_dump(mode="json")
    content["estimator"]["params"] |= {"max_iter": 40, "min_samples_leaf": 300}
    content["split"] |= {"holdout_days": 12}
    spec = ModelSpec.model_validate(content)
    times = window(TRAINED_UNTIL, spec.split, use_case.time_zone)
    served = Window(times.train_from, times.holdout_from, use_case.day_start_utc(SERVED[-1] + dt.timedelta(days=1)))
    frame = joined_frame(spec, layout, served, until)  # with the days after the training too: one join for both
    candidate, _ = made_candidate(spec, layout, frame, times, until_utc=TRAINED_UNTIL, run_id="monitored", trials=0)
    answer(use_case, lake, frame.frame, candidate)
    return Watched(use_case, lake, layout, spec, candidate, baseline(candidate, use_case))


def answer(use_case: UseCase, lake: Lake, frame: pl.DataFrame, candidate: Candidate) -> None:
    """What a predictor would have logged on the days `SERVED`: every flight, asked at its prediction time."""
    manifest = candidate.manifest()
    names = [item.name for item in manifest.features]
    defaults = np.array([item.default for item in manifest.features], np.float32)
    joined = frame.filter(pl.col("event_timestamp") >= use_case.day_start_utc(SERVED[0]))
    values = filled(matrix(joined, names), defaults)
    days = joined["event_timestamp"].dt.convert_time_zone(str(use_case.time_zone)).dt.date()
    one, other = names.index("wind_speed_mph"), names.index("humid_pct")
    spoilt = (days == SPOILT).to_numpy()
    values[np.ix_(spoilt, [one, other])] = values[np.ix_(spoilt, [other, one])]
    scores = OnnxModel(candidate.folder / "model.onnx").score(values)
    views = sorted(manifest.views)
    records = [
        PredictionRecord(
            request_id=f"q{number}", row=0, entity_id=row["entity_id"],
            asked_at_us=int(row["event_timestamp"].timestamp() * 1e6),
            model=manifest.model, version=VERSION, sha256=candidate.sha256, feature_service=manifest.feature_service,
            features=values[number].tolist(), feature_hash="", score=float(scores[number]), decision="", degraded=[],
            ages_s=dict.fromkeys(views, 60.0), latency_us=900, replica="test", release=RELEASE,
        )
        for number, row in enumerate(joined.select("entity_id", "event_timestamp").iter_rows(named=True))
    ]  # fmt: skip
    now = use_case.day_start_utc(SERVED[-1] + dt.timedelta(days=1))
    lake.append(TABLE, to_frame([("0-1", record) for record in records], now), partition_by=["day"])
