"""Runs in a process of its own: a real model of the second use case, then the pre-test against several champions.

`python ask_pretest.py SPEC NOW TRACKING_URI` prints one JSON line: champion -> the pre-test's answer.
"""

from __future__ import annotations

import datetime as dt
import json
import sys
from pathlib import Path

import polars as pl

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec, load_model_spec
from flightdeck.contracts.release import ModelRef
from pipelines.data.ingest import ingest_days
from pipelines.data.lake import Lake
from pipelines.features import registry
from pipelines.features.build import build_features
from pipelines.features.export import export
from pipelines.gates.gate import gate_candidate
from pipelines.governor.pretest import compared, pretest
from pipelines.registry.versions import promote, register
from pipelines.training.dataset import window
from pipelines.training.train import joined_frame, made_candidate, train_candidate
from pipelines.use_case import load_use_case

POLICY = {
    "triggers": {"drift": "pretest"}, "cool_down": "PT1H", "budget_per_day": 4,
    "pretest": {"train_days": 14, "sample_rows": 4000, "min_gain": 0, "on_cannot_tell": "skip"},
}  # fmt: skip


def main(spec_file: str, now: str, tracking_uri: str) -> None:
    now_utc, layout, use_case = dt.datetime.fromisoformat(now), StateLayout.from_env(), load_use_case()
    spec = ModelSpec.model_validate(load_model_spec(Path(spec_file)).model_dump(mode="json") | {"retrain": POLICY})
    lake = Lake(layout.lake)
    list(ingest_days(use_case, lake, layout.quarantine, days_per_commit=30))
    build_features(use_case, lake, use_case.day_start_utc(use_case.first_day), now_utc)
    export(lake, layout)
    registry.apply(layout)
    found = {"none": pretest(spec, layout, now_utc, tracking_uri=tracking_uri)}

    candidate = train_candidate(spec, layout, until_utc=now_utc, tracking_uri=tracking_uri, trials=0)
    promote(register(candidate, gate_candidate(candidate, None)), layout=layout, tracking_uri=tracking_uri)
    found["honest"] = pretest(spec, layout, now_utc, tracking_uri=tracking_uri)

    times = window(now_utc, spec.split, use_case.time_zone)
    frame = joined_frame(spec, layout, times, now_utc)

    def upside_down(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns((1 - pl.col(spec.target.label)).alias(spec.target.label))

    spoiled, _ = made_candidate(
        spec, layout, frame, times, until_utc=now_utc, run_id="spoiled", trials=0, spoil=upside_down
    )
    ref = ModelRef(name=spec.name, version="66", sha256=spoiled.sha256)
    found["spoiled"] = compared(spec, ref, layout, now_utc)
    found["spoiled again"] = compared(spec, ref, layout, now_utc)
    early = use_case.day_start_utc(use_case.first_day) + dt.timedelta(days=10)
    found["too early"] = compared(spec, ref, layout, early)
    print(json.dumps({name: answer.model_dump(mode="json") for name, answer in found.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
