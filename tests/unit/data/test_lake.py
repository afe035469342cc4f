import datetime as dt

import polars as pl
import pytest

from pipelines.data.lake import Lake, LakeError

AT = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def frame(key: str, value: int, hours: int = 0) -> pl.DataFrame:
    return pl.DataFrame(
        {"key": [key], "day": [AT.date()], "value": [value], "ingested_at": [AT + dt.timedelta(hours=hours)]}
    )


def test_a_table_that_is_not_there_says_how_to_make_it(lake):
    with pytest.raises(LakeError, match="flightdeck data ingest"):
        lake.read("nothing")
    with pytest.raises(LakeError):
        lake.version("nothing")


def test_versions_stay_readable_after_later_commits(lake):
    first = lake.append("t", frame("a", 1), partition_by=["day"])
    second = lake.append("t", frame("b", 2, 1))
    assert (first, second) == (1, 2), "version 0 is the table without rows"
    assert lake.read("t", version=1).num_rows == 1
    assert lake.read("t", columns=["value"], filters=[("value", ">", 1)]).to_pydict() == {"value": [2]}
    assert lake.versions() == {"t": 2}
    assert lake.tables() == ["t"]


def test_every_filter_operator_selects_what_it_says(lake):
    lake.append("t", pl.concat([frame(name, value) for name, value in (("a", 1), ("b", 2), ("c", 3))]))
    chosen = {
        (operator, str(value)): sorted(lake.read("t", filters=[("value", operator, value)])["key"].to_pylist())
        for operator, value in (
            ("=", 2),
            ("!=", 2),
            ("<", 2),
            ("<=", 2),
            (">", 2),
            (">=", 2),
            ("in", [1, 3]),
            ("not in", [1]),
        )
    }
    assert list(chosen.values()) == [["b"], ["a", "c"], ["a"], ["a", "b"], ["c"], ["b", "c"], ["a", "c"], ["b", "c"]]
    assert lake.read("t", filters=[("value", ">", 1), ("key", "=", "c")]).num_rows == 1


def test_a_version_that_never_was_is_refused(lake):
    lake.append("t", frame("a", 1))
    with pytest.raises(LakeError, match="version 7"):
        lake.read("t", version=7)


def test_as_of_gives_the_newest_version_known_by_then(lake):
    for hours, value in ((0, 1), (5, 2), (9, 3)):
        lake.append("t", frame("a", value, hours))
    at = [
        lake.as_of("t", AT + dt.timedelta(hours=hours), ["key"], columns=["value"]).to_pydict()["value"]
        for hours in (-1, 0, 4, 5, 100)
    ]
    assert at == [[], [1], [1], [2], [3]]


def test_as_of_wants_a_time_zone(lake):
    lake.append("t", frame("a", 1))
    with pytest.raises(ValueError, match="timezone-aware"):
        lake.as_of("t", dt.datetime(2020, 1, 1), ["key"])


def test_replace_swaps_only_the_rows_that_the_predicate_selects(lake):
    lake.append("t", pl.concat([frame("a", 1), frame("b", 2)]))
    lake.replace("t", frame("b", 20), where="key = 'b'")
    assert sorted(lake.read("t")["value"].to_pylist()) == [1, 20]
    lake.replace("t", frame("c", 3))
    assert lake.read("t")["value"].to_pylist() == [3]


def test_a_commit_that_meets_another_of_the_same_name_is_built_again_on_its_rows(lake):
    lake.append("t", frame("z", 0))
    seen: list[int] = []

    def build(snapshot):
        rows = snapshot.read()
        seen.append(rows.height)
        if len(seen) == 1:  # another process commits the same day between our read and our write
            other = Lake(lake.root)
            other.append_once("t", ["ingest/day"], lambda _: frame("a", 1))
        known = set(snapshot.read(["key"])["key"])
        return frame("a", 1).filter(~pl.col("key").is_in(list(known)))

    lake.append_once("t", ["ingest/day"], build)
    assert seen == [1, 2]
    assert sorted(lake.read("t")["key"].to_pylist()) == ["a", "z"]


def test_two_first_commits_of_a_table_both_get_in(lake):
    def build(snapshot):
        if snapshot.table is None and not lake.exists("t"):
            Lake(lake.root).append("t", frame("a", 1))
        return frame("b", 2)

    lake.append_once("t", ["x"], build)
    assert sorted(lake.read("t")["key"].to_pylist()) == ["a", "b"]


def test_a_failure_that_is_no_conflict_is_not_tried_again(lake):
    lake.append("t", frame("a", 1))
    calls: list[int] = []

    def build(_):
        calls.append(1)
        return pl.DataFrame({"other": [1]})

    with pytest.raises(Exception, match=r"(?i)schema|field"):
        lake.append_once("t", [], build)
    assert len(calls) == 1


def test_compaction_keeps_the_rows(lake):
    for value in range(4):
        lake.append("t", frame(str(value), value), partition_by=["day"])
    lake.compact("t")
    assert sorted(lake.read("t")["value"].to_pylist()) == [0, 1, 2, 3]
    assert lake.snapshot("t").rows_per_day() == {AT.date(): 4}
    assert lake.snapshot("t").rows() == 4


def test_what_cannot_be_read_or_written_is_told_with_the_table(lake, tmp_path):
    lake.append("t", frame("a", 1))
    for file in (tmp_path / "lake" / "t").glob("**/*.parquet"):
        file.unlink()
    with pytest.raises(LakeError, match=r"lake/t.*version 1 cannot be read"):
        lake.read("t")
    for file in (tmp_path / "lake" / "t" / "_delta_log").glob("*.json"):
        file.write_text("{broken")
    with pytest.raises(LakeError, match="the newest version cannot be read") as told:
        lake.read("t")
    assert "\n" not in str(told.value), "no backtrace of Rust for the user"
    (tmp_path / "file").touch()
    for write in (Lake(tmp_path / "file").append, Lake(tmp_path / "file").replace):
        with pytest.raises(LakeError, match="nothing was written"):
            write("t", frame("a", 1))


def test_two_replacements_of_the_same_rows_at_once_are_told_apart(lake, monkeypatch):
    lake.append("t", frame("a", 1))
    behind = lake._open("t")
    Lake(lake.root).replace("t", frame("a", 2), where="key = 'a'")
    monkeypatch.setattr(lake, "_open", lambda *_: behind)
    with pytest.raises(LakeError, match="nothing was written"):
        lake.replace("t", frame("a", 3), where="key = 'a'")
    assert Lake(lake.root).read("t")["value"].to_pylist() == [2]
