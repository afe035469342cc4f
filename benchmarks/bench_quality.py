"""Quality of the shipped `late` on months it has not seen: AUC and calibration, July to December.

Run: python benchmarks/bench_quality.py [--json] [--state FOLDER]. Limits (issue: models): AUC of at least 0.77 on all
of July when trained to 30 June, and 0.69 on all of October when trained to 30 September, each with a calibration error
within the spec's gate. The other months are judged beside them, without a limit. The spec is used as it is, with its
own parameters and no search, so that the figures do not depend on the machine. Without --state, the year is ingested
and built first; about 3 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

SPEC = Path(__file__).resolve().parents[1] / "specs" / "late.yaml"
UNTIL = dt.datetime(2014, 1, 1, 12, tzinfo=dt.UTC)  # every outcome of the year is known
# (month of the training, whose first day is not trained on any more; months judged)
TRAININGS = ((7, (7, 9, 10, 11, 12)), (10, (10, 11, 12)))
LEAST_AUC = {(7, 7): 0.77, (10, 10): 0.69}


def prepare(state: Path) -> None:
    """The year: lake, features, export, registry."""
    from flightdeck.contracts.layout import StateLayout
    from pipelines.data.ingest import ingest_days
    from pipelines.data.lake import Lake
    from pipelines.features import registry
    from pipelines.features.build import build_features
    from pipelines.features.export import export
    from pipelines.use_case import load_use_case

    layout, use_case = StateLayout(state), load_use_case()
    lake = Lake(layout.lake)
    for _ in ingest_days(use_case, lake, layout.quarantine, days_per_commit=31):
        pass
    build_features(use_case, lake, use_case.day_start_utc(use_case.first_day), UNTIL)
    export(lake, layout)
    registry.apply(layout)


def measure(state: Path) -> list[dict[str, Any]]:
    """Train at the start of each month of `TRAININGS`, judge on whole months by the ONNX file that would be served."""
    import numpy as np
    import polars as pl

    from flightdeck.contracts.layout import StateLayout
    from flightdeck.contracts.model_spec import load_model_spec
    from pipelines.gates.metrics import calibration_of, day_numbers, measure_of, point
    from pipelines.registry.runtime import OnnxModel
    from pipelines.training.build import build
    from pipelines.training.dataset import Window, filled, matrix
    from pipelines.training.train import joined_frame, served
    from pipelines.use_case import load_use_case

    layout, spec, use_case = StateLayout(state), load_model_spec(SPEC), load_use_case()

    def start(month: int) -> dt.datetime:
        return use_case.day_start_utc(dt.date(2013 + month // 13, (month - 1) % 12 + 1, 1))

    whole = joined_frame(spec, layout, Window(start(1), start(13), start(13)), UNTIL)
    found = []
    for trained, judged in TRAININGS:
        times = Window(start(1), start(trained), start(trained + 1))
        built = build(spec, whole.frame, served(whole), times, time_zone=use_case.time_zone, layout=layout, trials=0)
        model = OnnxModel(built.onnx)
        defaults = np.array([item.default for item in built.manifest.features], np.float32)
        for month in judged:
            rows = whole.frame.filter(
                pl.col("event_timestamp").is_between(start(month), start(month + 1), closed="left")
            )
            label = rows[spec.target.label].cast(pl.Float64).to_numpy()
            score = model.score(filled(matrix(rows, whole.names), defaults)).astype(np.float64)
            day = rows["event_timestamp"].dt.convert_time_zone(str(use_case.time_zone)).dt.date().to_numpy()
            days = day_numbers(day)[1]
            error = point(calibration_of(spec.task, label, score, day), days) / label.mean()
            limited = (trained, month) in LEAST_AUC
            found.append(
                {
                    "trained_until": str(dt.date(2013, trained, 1) - dt.timedelta(days=1)),
                    "month": f"2013-{month:02}",
                    "train_rows": built.train_rows,
                    "rows": rows.height,
                    "iterations": built.iterations,
                    "auc": round(point(measure_of(spec.task, label, score, day), days), 4),
                    "calibration_error": round(error, 3),
                    "late_share": round(float(label.mean()), 3),
                    "mean_score": round(float(score.mean()), 3),
                    "least_auc": LEAST_AUC.get((trained, month)),
                    "most_calibration_error": spec.gates.calibration_error if limited else None,
                }
            )
    return found


def missed(row: dict[str, Any]) -> bool:
    """Whether the month has a limit and falls short of it; a figure that is no number falls short."""
    return row["least_auc"] is not None and not (
        row["auc"] >= row["least_auc"] and row["calibration_error"] <= row["most_calibration_error"]
    )


def main() -> int:
    """Measure and print; exit 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description="Judge the shipped spec of `late` on months it has not seen.")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of words")
    parser.add_argument("--state", type=Path, help="a state folder with the whole year ingested, built and exported")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        state = (options.state or Path(temporary)).absolute()
        os.environ["FLIGHTDECK_STATE"] = str(state)
        if not options.state:
            prepare(state)
        found = measure(state)
    if options.json:
        print(json.dumps(found))
    else:
        for row in found:
            limit = f"at least {row['least_auc']}" if row["least_auc"] else "no limit"
            print(
                f"trained to {row['trained_until']}, {row['month']} ({row['rows']:,} rows): "
                f"AUC {row['auc']:.4f} ({limit}), calibration error {row['calibration_error']:.3f}, "
                f"late {row['late_share']:.3f}, mean score {row['mean_score']:.3f}, {row['iterations']} trees"
                + (" MISSED" if missed(row) else "")
            )
    return int(any(map(missed, found)))


if __name__ == "__main__":
    sys.exit(main())
