"""Half a year of features: build from the lake, export, point-in-time join.

Run: python benchmarks/bench_features.py [--json]. Limit (issue: speed): build and join under 60 s on 2 cores. Beside
the join, in the same run, the floor: the same last-row joins by polars' `join_asof`, without Feast, ttl or checks.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import logging
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 60.0
FROM, UNTIL = dt.datetime(2013, 1, 1, tzinfo=dt.UTC), dt.datetime(2013, 7, 1, tzinfo=dt.UTC)


def peak_mb() -> float:
    """Largest resident size of this process so far, megabytes (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # kilobytes on Linux, bytes on macOS


def main() -> int:
    """Measure and print; exit 1 above the limit."""
    parser = argparse.ArgumentParser(description="Build half a year of features and join them point in time.")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of words")
    as_json = parser.parse_args().json
    logging.disable(logging.WARNING)

    import polars as pl

    from flightdeck.contracts.layout import STATE_ENV, StateLayout
    from pipelines.data.ingest import ingest_days
    from pipelines.data.lake import Lake
    from pipelines.use_case import load_use_case

    use_case = load_use_case()
    with tempfile.TemporaryDirectory() as folder:
        layout = StateLayout(Path(folder))
        os.environ[STATE_ENV] = folder
        lake = Lake(layout.lake)
        list(ingest_days(use_case, lake, layout.quarantine, last=UNTIL.date(), days_per_commit=31))
        started, started_cpu = time.perf_counter(), time.process_time()

        from pipelines.features.build import build_features
        from pipelines.features.export import export, read_export

        views = build_features(use_case, lake, FROM, UNTIL)
        built = time.perf_counter()
        export_id = export(lake, layout)
        exported, exported_cpu = time.perf_counter(), time.process_time()

        from feature_repo.transforms import BUILDS
        from pipelines.features.registry import apply, open_store
        from pipelines.features.training_frame import training_frame

        apply(layout)
        store = open_store(layout)
        entity = use_case.entity_frame(lake, FROM, UNTIL, UNTIL)
        ready, ready_cpu = time.perf_counter(), time.process_time()
        frame = training_frame(layout, "late_v2", entity, export_id, store=store)
        joined, joined_cpu = time.perf_counter(), time.process_time()
        peak = peak_mb()
        ordered = entity.sort("event_timestamp")
        for name, build in BUILDS.items():
            rows = pl.read_parquet(read_export(layout).path(name)).sort("event_timestamp")
            ordered.join_asof(rows, on="event_timestamp", by=list(build.keys), check_sortedness=False)
        floor = time.perf_counter() - joined
    rows = sum(item.rows for item in views)
    figures = {
        "feature_rows": rows,
        "build_s": round(built - started, 2),
        "feature_rows_per_s": round(rows / (built - started)),
        "export_s": round(exported - built, 2),
        "import_and_apply_s": round(ready - exported, 2),
        "frame_rows": frame.frame.height,
        "features": len(frame.features),
        "rows_lost": entity.height - frame.frame.height,
        "join_s": round(joined - ready, 2),
        "frame_rows_per_s": round(frame.frame.height / (joined - ready)),
        "bare_asof_join_s": round(floor, 2),
        "build_and_join_s": round(exported - started + joined - ready, 2),
        "build_and_join_cpu_s": round(exported_cpu - started_cpu + joined_cpu - ready_cpu, 2),
        "peak_mb": round(peak),
        "limit_s": LIMIT_S,
    }
    if as_json:
        print(json.dumps(figures))
    else:
        print(f"build features     {rows:,} rows in {figures['build_s']} s: {figures['feature_rows_per_s']:,} rows/s")
        print(
            f"export             {figures['export_s']} s (Feast's import and apply: {figures['import_and_apply_s']} s)"
        )
        print(
            f"point-in-time join {figures['frame_rows']:,} rows x {figures['features']} features in "
            f"{figures['join_s']} s: {figures['frame_rows_per_s']:,} rows/s, {figures['rows_lost']} rows lost "
            f"(bare asof joins: {figures['bare_asof_join_s']} s)"
        )
        print(
            f"build and join     {figures['build_and_join_s']} s (limit {LIMIT_S:.0f} s), "
            f"{figures['build_and_join_cpu_s']} s of processor, peak {figures['peak_mb']} MB"
        )
    return 0 if figures["build_and_join_s"] < LIMIT_S and figures["rows_lost"] == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
