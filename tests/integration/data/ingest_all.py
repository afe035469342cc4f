"""Run as a process of its own: ingest the whole busline, a line per day as soon as it is committed."""

import sys
from pathlib import Path

from pipelines.data.ingest import ingest_days
from pipelines.data.lake import Lake
from pipelines.use_case import load_use_case

root, days_per_commit = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for result in ingest_days(load_use_case(), Lake(root / "lake"), root / "quarantine", days_per_commit=days_per_commit):
    print(result.day, result.status, flush=True)
