"""The whole year of the source into Delta with all checks, in a temporary folder: seconds, rows/s, peak memory.

Run: python benchmarks/bench_data.py [--json]. Limit (issue: speed): under 30 s on 2 cores. Beside it, in the same run,
the floor: the same rows in three bare commits, without days, checks, hashes or conflict handling.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

LIMIT_S = 30.0


def peak_mb() -> float:
    """Largest resident size of this process so far, megabytes (1e6 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # kilobytes on Linux, bytes on macOS


def main() -> int:
    """Measure and print; exit 1 above the limit."""
    parser = argparse.ArgumentParser(description="Ingest the whole year with checks into a temporary lake.")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of words")
    as_json = parser.parse_args().json

    started, started_cpu = time.perf_counter(), time.process_time()
    import polars as pl

    from pipelines.data.ingest import Status, ingest_days
    from pipelines.data.lake import Lake
    from pipelines.use_case import load_use_case

    imported = time.perf_counter()
    use_case = load_use_case()
    frames = {
        table.name: pl.concat(
            [table.read_day(day) for day in ([use_case.first_day] if table.static else use_case.days())]
        )
        for table in use_case.tables
    }
    read = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Path(folder) / "lake")
        results = list(ingest_days(use_case, lake, Path(folder) / "quarantine"))
        ingested = time.perf_counter()
        peak = peak_mb()
        cpu_s = time.process_time() - started_cpu
        again = sum(item.written for item in ingest_days(use_case, lake, Path(folder) / "quarantine"))
        repeated = time.perf_counter()
        bare = Lake(Path(folder) / "bare")
        for name, frame in frames.items():
            bare.append(name, frame)
        floor = time.perf_counter() - repeated
    rows = sum(item.written for item in results)
    figures = {
        "rows": rows,
        "days": len(results),
        "quarantined_days": sum(item.status is Status.QUARANTINED for item in results),
        "import_s": round(imported - started, 2),
        "read_source_s": round(read - imported, 2),
        "ingest_s": round(ingested - read, 2),
        "total_s": round(ingested - started, 2),
        "cpu_s": round(cpu_s, 2),
        "rows_per_s": round(rows / (ingested - read)),
        "repeat_s": round(repeated - ingested, 2),
        "repeat_rows_written": again,
        "bare_write_s": round(floor, 2),
        "peak_mb": round(peak),
        "limit_s": LIMIT_S,
    }
    if as_json:
        print(json.dumps(figures))
    else:
        print(f"ingest with checks  {rows:,} rows in {figures['ingest_s']} s: {figures['rows_per_s']:,} rows/s")
        print(f"  with import and reading the source: {figures['total_s']} s (limit {LIMIT_S:g} s)")
        print(f"  CPU time {figures['cpu_s']} s")
        print(f"  quarantined days {figures['quarantined_days']}, peak memory {figures['peak_mb']} MB")
        print(f"the same again      {again} rows written in {figures['repeat_s']} s")
        print(f"bare write          {figures['bare_write_s']} s: no days, checks, hashes or conflict handling")
    return int(figures["total_s"] > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
