"""Entry point: a process that does the lab's heavy work beside the rest: `python -m flightdeck.lab.worker <folder>`.

It imports what it needs once, while the first days are ingested: Feast, MLflow and scikit-learn cost seconds each time.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from pathlib import Path

import msgspec

from flightdeck.lab.jobs import train, world
from flightdeck.lab.requests import Job, TrainBatch, TrainResult, WorldRequest

PRELOADED = ("pipelines.training.train", "pipelines.gates.gate", "pipelines.registry.versions", "feast")


def main(folder: Path) -> int:
    """Do what is asked, in the order of asking, until the process is ended."""
    for name in PRELOADED:
        importlib.import_module(name)
    while True:
        for path in sorted(folder.glob("*.request"), key=lambda path: path.stat().st_mtime):
            job = Job(folder, path.stem)
            if not job.done.exists() and not job.failed.exists():
                work(job)
        time.sleep(0.1)


def work(job: Job) -> None:
    """One request; a failure is told in its file and in the log, and the worker lives on."""
    try:
        request = msgspec.json.decode(job.request.read_bytes(), type=TrainBatch | WorldRequest)
        if isinstance(request, WorldRequest):
            world(request, job.result)
        else:
            result = TrainResult()
            for part in request.requests:
                train(part, result, job.result)
    except Exception:
        text = traceback.format_exc()
        print(text, flush=True)
        job.failed.write_text(text)
        return
    job.done.touch()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
