import importlib.util
import random
import time
from pathlib import Path

import polars as pl
import pytest

from pipelines.data import quarantine
from pipelines.data.ingest import Status, ingest_days
from pipelines.data.lake import Lake


def content(root) -> pl.DataFrame:
    return pl.from_arrow(Lake(root / "lake").read("rides")).sort("day", "bus", "ingested_at")


def finish(process) -> list[str]:
    lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    return lines


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> pl.DataFrame:
    root = tmp_path_factory.mktemp("undisturbed")
    spec = importlib.util.spec_from_file_location("busline", Path(__file__).with_name("busline.py"))
    busline = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(busline)
    results = list(ingest_days(busline.USE_CASE, Lake(root / "lake"), root / "quarantine"))
    assert [str(item.day) for item in results if item.status is Status.QUARANTINED] == ["2020-01-07"]
    return content(root)


def test_ingest_killed_at_any_moment_and_run_again_leaves_the_same_lake(tmp_path, start_ingest, undisturbed):
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
    lines = finish(start_ingest(root, 1))
    assert "2020-01-07 quarantined" in lines and len(lines) == 31
    assert content(root).equals(undisturbed)
    assert [str(item.day) for item in quarantine.find(root / "quarantine")] == ["2020-01-07"]


def test_two_ingests_at_once_write_each_record_once(tmp_path, start_ingest, undisturbed):
    root = tmp_path / "both"
    processes = [start_ingest(root, 1), start_ingest(root, 3)]
    reports = [finish(process) for process in processes]
    assert content(root).equals(undisturbed)
    written = [line for report in reports for line in report if line.endswith("written")]
    assert len(written) >= 29, "every good day was written by one of them"
