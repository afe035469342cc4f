"""Runs in a process of its own: how fast one row is, and how much memory the model takes.

`python -m pipelines.gates.probe MODEL.onnx` prints one JSON line.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from pipelines.registry.runtime import OnnxModel

CALLS, ROUNDS, BATCH = 1000, 3, 1000


def peak_mb() -> float:
    """Highest resident memory of this process so far, megabytes (1e6 bytes).

    On Linux from /proc: getrusage there carries over the peak of the process that started this one, which would
    make any growth below it invisible.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # bytes on macOS


def main(path: str) -> int:
    """Measure and print."""
    before_mb = peak_mb()
    model = OnnxModel(Path(path))
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(BATCH, model.n_features)).astype(np.float32)
    model.score(rows)
    p99_ms = []
    for _ in range(ROUNDS):
        took = []
        for number in range(CALLS):
            row = rows[number % BATCH : number % BATCH + 1]
            started = time.perf_counter()
            model.score(row)
            took.append(time.perf_counter() - started)
        p99_ms.append(float(np.quantile(took, 0.99)) * 1000)
    # Other processes only ever add to a latency: the quietest round says most about the model.
    print(json.dumps({"latency_p99_ms": min(p99_ms), "memory_mb": peak_mb() - before_mb}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
