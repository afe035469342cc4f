import datetime as dt
import os
import time

import pytest

from flightdeck.contracts.layout import StateLayout
from pipelines.data.lake import LakeError
from pipelines.data.upkeep import outdated, pins, prune_exports, tend_tables

DAY = dt.date(2020, 1, 1)


@pytest.fixture
def replaced(lake, bus_frame):
    """A table of five versions, each with other rows."""
    for riders in range(5):
        lake.replace("t", bus_frame(DAY, riders=riders))
    return lake


def riders(lake, version: int) -> set[int]:
    return set(lake.read("t", version=version)["riders"].to_pylist())


def test_a_pinned_version_stays_readable_and_an_unpinned_one_goes(replaced):
    [done] = tend_tables(replaced, {"t": {1}}, keep_days=0)
    assert (riders(replaced, 1), riders(replaced, 4)) == ({1}, {4})
    for gone in (0, 2, 3):
        with pytest.raises(LakeError, match="cannot be read"):
            replaced.read("t", version=gone)
    assert (done.removed, done.pinned) == (3, (1,))


def test_versions_of_the_last_days_stay(replaced):
    [done] = tend_tables(replaced, {}, keep_days=1)
    assert done.removed == 0
    assert [riders(replaced, version) for version in range(5)] == [{0}, {1}, {2}, {3}, {4}]


def test_a_dry_run_counts_and_changes_nothing(replaced):
    [done] = tend_tables(replaced, {"t": {1}}, keep_days=0, dry_run=True)
    assert (done.removed, done.version) == (3, 4)
    assert riders(replaced, 0) == {0}


def test_nothing_to_remove_makes_no_new_version(replaced):
    tend_tables(replaced, {}, keep_days=0)
    version = replaced.version("t")
    tend_tables(replaced, {}, keep_days=0)
    assert replaced.version("t") == version


def test_small_files_are_merged_and_rows_stay(lake, bus_frame):
    for bus in range(6):
        lake.append("t", bus_frame(DAY, riders=bus), partition_by=["day"])
    [done] = tend_tables(lake, {}, keep_days=7)
    assert (done.files_before, done.files_after) == (6, 1)
    assert lake.read("t").num_rows == 60


def test_a_pin_of_a_lake_that_was_made_anew_does_not_stop_the_upkeep(replaced):
    assert tend_tables(replaced, {"t": {900}, "elsewhere": {1}}, keep_days=0)[0].pinned == (900,)


def test_pins_are_all_versions_that_appear():
    assert pins([{"a": 1, "b": 2}, {"a": 3}]) == {"a": {1, 3}, "b": {2}}


def test_old_exports_go_but_for_the_current_one(tmp_path):
    assert outdated({"x1": 1.0, "x2": 2.0, "x3": 9.0}, "x2", before=5.0) == ["x1"]
    layout, old = StateLayout(tmp_path), time.time() - 9 * 86400
    for name in ("x1", "x2"):
        (layout.exports / name).mkdir(parents=True)
        os.utime(layout.exports / name, (old, old))
    (layout.exports / "current").symlink_to("x2")
    assert prune_exports(layout, dry_run=True) == ["x1"] == prune_exports(layout)
    assert sorted(item.name for item in layout.exports.iterdir()) == ["current", "x2"]
    assert prune_exports(StateLayout(tmp_path / "none")) == []
