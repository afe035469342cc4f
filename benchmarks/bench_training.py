"""Training `late` on half a year without search, from a joined frame to a measured artefact: seconds, rows/s, memory.

Run: python benchmarks/bench_training.py [--json] [--state FOLDER]. Limit (issue: speed): under 30 s on 2 cores, without
the join (it is in the features' own line). Without --state, January to June are ingested and built first. Beside it,
in the same run: ONNX against scikit-learn, row by row and in one batch.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT_S = 30.0
UNTIL = dt.datetime(2013, 7, 1, tzinfo=dt.UTC)
SPEC = Path(__file__).resolve().parents[1] / "specs" / "late.yaml"


def peak_mb() -> float:
    """Largest resident size of this process so far, megabytes (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # kilobytes on Linux, bytes on macOS


def prepare(state: Path) -> None:
    """January to June: lake, features, export, registry."""
    from flightdeck.contracts.layout import StateLayout
    from pipelines.data.ingest import ingest_days
    from pipelines.data.lake import Lake
    from pipelines.features import registry
    from pipelines.features.build import build_features
    from pipelines.features.export import export
    from pipelines.use_case import load_use_case

    layout, use_case = StateLayout(state), load_use_case()
    lake = Lake(layout.lake)
    for _ in ingest_days(use_case, lake, layout.quarantine, last=dt.date(2013, 6, 30)):
        pass
    build_features(use_case, lake, use_case.day_start_utc(use_case.first_day), UNTIL)
    export(lake, layout)
    registry.apply(layout)


def seconds_of(work: Any, repeat: int) -> float:
    """Least seconds of `repeat` calls."""
    took = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return min(took)


def measure(state: Path) -> dict[str, float]:
    """Join, train, compare."""
    from flightdeck.contracts.layout import StateLayout
    from flightdeck.contracts.model_spec import load_model_spec
    from pipelines.registry.runtime import OnnxModel
    from pipelines.training.build import build
    from pipelines.training.dataset import filled, matrix, medians, window
    from pipelines.training.fit import fit, predict
    from pipelines.training.train import joined_frame, served
    from pipelines.use_case import load_use_case

    layout, spec, zone = StateLayout(state), load_model_spec(SPEC), load_use_case().time_zone
    times = window(UNTIL, spec.split, zone)
    started = time.perf_counter()
    frame = joined_frame(spec, layout, times, UNTIL)
    joined_s = time.perf_counter() - started
    started, started_cpu = time.perf_counter(), time.process_time()
    built = build(spec, frame.frame, served(frame), times, time_zone=zone, layout=layout, trials=0)
    trained_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu

    values = matrix(built.holdout, frame.names)
    values = filled(values, medians(values, frame.names))
    target = built.holdout[spec.target.label].to_numpy().astype(float)
    small = fit(spec.task, {**built.params, "max_iter": built.iterations}, values, target)
    served_model = OnnxModel(built.onnx)
    one = values[:1]
    sklearn_us = seconds_of(lambda: predict(spec.task, small.estimator, one), 200) * 1e6
    onnx_us = seconds_of(lambda: served_model.score(one), 2000) * 1e6
    return {
        "train_rows": built.train_rows,
        "features": len(frame.names),
        "join_s": round(joined_s, 2),
        "train_s": round(trained_s, 2),
        "cpu_s": round(cpu_s, 2),
        "rows_per_s": round(built.train_rows / trained_s),
        "iterations": built.iterations,
        "holdout_auc": round(built.metrics["auc"], 4),
        "onnx_one_row_us": round(onnx_us, 1),
        "sklearn_one_row_us": round(sklearn_us, 1),
        "peak_mb": round(peak_mb()),
        "limit_s": LIMIT_S,
    }


def main() -> int:
    """Measure and print; exit 1 above the limit."""
    parser = argparse.ArgumentParser(description="Train on half a year without search.")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of words")
    parser.add_argument("--state", type=Path, help="a state folder with January to June ingested, built and exported")
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
        print(f"training  {found['train_rows']:,} rows x {found['features']} features in {found['train_s']} s")
        print(f"  limit {LIMIT_S:g} s, {found['rows_per_s']:,} rows/s, CPU {found['cpu_s']} s")
        print(f"  point-in-time join {found['join_s']} s, peak memory {found['peak_mb']} MB")
        print(f"  AUC of the holdout {found['holdout_auc']}")
        print(f"one row   ONNX {found['onnx_one_row_us']} us, scikit-learn {found['sklearn_one_row_us']} us")
    return int(found["train_s"] > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
