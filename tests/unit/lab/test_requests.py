from __future__ import annotations

import datetime as dt
from pathlib import Path

from flightdeck.lab.requests import Job, TrainBatch, TrainOne, TrainRequest, TrainResult, WorldRequest
from flightdeck.lab.users import write_atomically
from flightdeck.lab.worker import work

T0 = dt.datetime(2013, 7, 1, tzinfo=dt.UTC)


def a_batch(spec: str) -> TrainBatch:
    one = TrainRequest(spec, T0, "http://127.0.0.1:1", [TrainOne("note")], frame="frame.parquet", joins=True)
    return TrainBatch([one])


def test_a_new_request_forgets_what_became_of_the_earlier_one(tmp_path: Path):
    job = Job(tmp_path / "worker", "train")
    job.submit(a_batch("late.yaml"))
    job.done.touch()
    job.failed.touch()
    write_atomically(job.result, TrainResult(step="old"))
    job.submit(a_batch("late.yaml"))
    assert not job.done.exists()
    assert not job.failed.exists()
    assert job.train_result().step == "starting"


def test_a_growing_result_can_be_read_at_any_time(tmp_path: Path):
    job = Job(tmp_path, "train")
    assert job.train_result() == TrainResult()
    write_atomically(job.result, TrainResult(step="join"))
    assert job.train_result().step == "join"


def test_a_request_that_fails_says_why_and_is_not_done(tmp_path: Path, capsys):
    job = Job(tmp_path, "train")
    job.submit(a_batch(str(tmp_path / "no-such-spec.yaml")))
    work(job)
    assert not job.done.exists()
    assert "no-such-spec.yaml" in job.failed.read_text()
    assert "no-such-spec.yaml" in capsys.readouterr().out, "the worker's log tells it too"


def test_a_request_that_cannot_be_read_fails_as_well(tmp_path: Path):
    job = Job(tmp_path, "world")
    job.submit(WorldRequest(T0, T0, "a", "f"))
    job.request.write_text("{}")
    work(job)
    assert job.failed.is_file()
