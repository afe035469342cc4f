import random
import time

import polars as pl
import pytest

from pipelines.data import quarantine
from pipelines.data.ingest import Status, ingest_days
from pipelines.data.lake import Lake

# Three processes of 4 s of CPU each: on one worker, so that `undisturbed` is made once.
pytestmark = pytest.mark.xdist_group("ingest-processes")


def content(root) -> pl.DataFrame:
    return pl.from_arrow(Lake(root / "lake").read("rides")).sort("day", "bus", "ingested_at")


def finish(process) -> list[str]:
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    return lines


@pytest.fixture(scope="module")
def undisturbed(busline, tmp_path_factory) -> pl.DataFrame:
    root = tmp_path_factory.mktemp("undisturbed")
    results = list(ingest_days(busline, Lake(root / "lake"), root / "quarantine"))
    assert [str(item.day) for item in results if item.status is Status.QUARANTINED] == ["2020-01-07"]
    return content(root)


def test_ingest_killed_at_any_moment_and_run_again_leaves_the_same_lake(tmp_path, start_ingest, busline, undisturbed):
    root, chance = tmp_path / "killed", random.Random(7)
    committed = 0
    for days in (1, 9):
        process = start_ingest(root, 1)
        for _ in range(1 + days):
            process.stdout.readline()
        time.sleep(chance.uniform(0, 0.03))  # into the next commit
        process.kill()
        assert process.wait() != 0
        rows = content(root)
        assert rows.height % 50 == 0, "half a day is in the lake"
        assert rows.height >= committed, "what was committed is gone"
        committed = rows.height
    assert 0 < committed < undisturbed.height, "the kills came too late to show anything"
    again = list(ingest_days(busline, Lake(root / "lake"), root / "quarantine", days_per_commit=1))
    assert [str(item.day) for item in again if item.status is Status.QUARANTINED] == ["2020-01-07"]
    assert content(root).equals(undisturbed)
    assert [str(item.day) for item in quarantine.find(root / "quarantine")] == ["2020-01-07"]


def test_two_ingests_at_once_write_each_record_once(tmp_path, start_ingest, busline, undisturbed):
    root = tmp_path / "both"
    other = start_ingest(root, 1)
    other.stdout.readline()  # loaded, and about to begin
    ours = list(ingest_days(busline, Lake(root / "lake"), root / "quarantine", days_per_commit=3))
    theirs = finish(other)
    assert content(root).equals(undisturbed)
    written = [line for line in theirs if line.endswith("written")] + [i for i in ours if i.status is Status.WRITTEN]
    assert len(written) >= 29, "every good day was written by one of them"
