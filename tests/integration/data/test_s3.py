"""The lake and the quarantine on a real object store: equal to those on a folder, two writers at once, loss mid-run.

Run it against any S3 with conditional puts, e.g.
    docker run -d -p 127.0.0.1:17070:7070 -e ROOT_ACCESS_KEY=test -e ROOT_SECRET_KEY=testtesttest \
        ghcr.io/versity/versitygw:v1.8.0 --port :7070 posix /tmp
    FLIGHTDECK_TEST_S3_ENDPOINT=http://127.0.0.1:17070 AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=testtesttest \
        python -m pytest -n0 tests/integration/data/test_s3.py
"""

import concurrent.futures
import datetime as dt
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import polars as pl
import pyarrow.fs
import pytest

from flightdeck.contracts.layout import StateLayout
from pipelines import stores
from pipelines.data import quarantine
from pipelines.data.files import Files
from pipelines.data.ingest import Status, ingest_days
from pipelines.data.lake import Lake, LakeError
from pipelines.data.object_store import delta_options
from pipelines.data.upkeep import tend_tables
from pipelines.use_case import UseCase
from tests.integration.data.wire import Wire

ENDPOINT = os.environ.get("FLIGHTDECK_TEST_S3_ENDPOINT")
pytestmark = pytest.mark.skipif(
    not ENDPOINT,
    reason="NO OBJECT STORE TESTED: set FLIGHTDECK_TEST_S3_ENDPOINT and AWS keys (how: first lines of the file)",
)
KNOWN = dt.datetime(2020, 1, 12, 10, 20, tzinfo=dt.UTC)
KEY = ["bus", "day"]


@pytest.fixture
def wire() -> Iterator[Wire]:
    place = urlsplit(ENDPOINT)
    relay = Wire((place.hostname, place.port))
    yield relay
    relay.close()


@pytest.fixture
def bucket() -> str:
    name = f"t-{uuid.uuid4().hex[:12]}"
    place = urlsplit(ENDPOINT)
    made = pyarrow.fs.S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        scheme=place.scheme,
        endpoint_override=place.netloc,
        allow_bucket_creation=True,
    )
    made.create_dir(name)
    return f"s3://{name}"


@pytest.fixture
def s3(bucket, monkeypatch, tmp_path) -> StateLayout:
    """A state folder whose lake and quarantine the environment puts on the store."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", ENDPOINT)
    monkeypatch.setenv(stores.LAKE_ENV, f"{bucket}/lake")
    monkeypatch.setenv(stores.QUARANTINE_ENV, f"{bucket}/quarantine")
    return StateLayout(tmp_path / "scratch")


@pytest.fixture(scope="module")
def folder(busline, tmp_path_factory) -> Path:
    """The same ingest on a folder."""
    root = tmp_path_factory.mktemp("folder")
    list(ingest_days(busline, Lake(root / "lake"), root / "quarantine"))
    return root


def content(lake: Lake) -> pl.DataFrame:
    return pl.from_arrow(lake.read("rides")).sort("day", "bus", "ingested_at")


def ingest(busline: UseCase, layout: StateLayout, **options) -> list:
    return list(ingest_days(busline, stores.lake(layout), stores.quarantine(layout), **options))


def test_ingest_status_quarantine_and_what_was_known_equal_those_on_a_folder(s3, busline, folder):
    first = ingest(busline, s3)
    here, there = stores.lake(s3), Lake(folder / "lake")
    assert content(here).equals(content(there))
    assert here.tables() == there.tables() == ["rides"]
    assert here.snapshot("rides").rows_per_day() == there.snapshot("rides").rows_per_day()
    known, there_known = (pl.from_arrow(it.as_of("rides", KNOWN, KEY)).sort(KEY) for it in (here, there))
    assert known.equals(there_known)
    assert known.height < content(here).height
    assert [item.status for item in first].count(Status.QUARANTINED) == 1
    [kept], [local] = quarantine.find(stores.quarantine(s3)), quarantine.find(folder / "quarantine")
    assert (kept.table, kept.day, kept.rows, kept.failures) == (local.table, local.day, local.rows, local.failures)
    assert kept.folder.startswith("s3://")
    files, name = stores.quarantine(s3), kept.folder.split("/quarantine/")[1]
    assert pl.read_parquet(files.read(f"{name}/{quarantine.ROWS}")).height == 50
    version = here.version("rides")
    assert {item.status for item in ingest(busline, s3)} == {Status.UNCHANGED, Status.QUARANTINED}
    assert here.version("rides") == version


def test_a_quarantined_day_is_resolved_and_opens_again(s3, busline):
    ingest(busline, s3, first=dt.date(2020, 1, 7), last=dt.date(2020, 1, 7))
    files, day, at = stores.quarantine(s3), dt.date(2020, 1, 7), dt.datetime(2020, 1, 9, tzinfo=dt.UTC)
    assert quarantine.resolve(files, "rides", day, at=at) == 1
    assert quarantine.find(files, "rides", day)[0].resolved == at.isoformat()
    assert quarantine.resolve(files, "rides", day, at=at) == 0
    ingest(busline, s3, first=day, last=day)
    assert quarantine.find(files, "rides", day)[0].resolved is None


def test_two_writers_at_once_lose_nothing(s3):
    def write(writer: int) -> None:
        for number in range(12):
            frame = pl.DataFrame({"writer": [writer], "number": [number]})
            stores.lake(s3).append("both", frame)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(write, range(2)))
    rows = pl.from_arrow(stores.lake(s3).read("both")).sort("writer", "number")
    assert rows.rows() == [(writer, number) for writer in range(2) for number in range(12)]


def test_two_ingests_at_once_write_each_record_once(s3, busline, folder):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda days: ingest(busline, s3, days_per_commit=days), (2, 3)))
    assert content(stores.lake(s3)).equals(content(Lake(folder / "lake")))


@pytest.mark.parametrize("parcels", [3, 9, 21, 40])
def test_a_store_lost_in_mid_run_ends_it_cleanly_and_a_repeat_heals(  # noqa: PLR0917  fixtures
    s3, busline, folder, wire, monkeypatch, parcels
):
    whole = stores.lake(s3)  # past the wire
    monkeypatch.setenv("AWS_ENDPOINT_URL", wire.endpoint)
    wire.cut_after(parcels)
    started = time.monotonic()
    with pytest.raises((LakeError, OSError), match=r"is AWS_ENDPOINT_URL right|store"):
        ingest(busline, s3, days_per_commit=1)
    assert time.monotonic() - started < 60
    if whole.exists("rides") and whole.version("rides") > 0:
        rows = content(whole)
        assert rows.height % 50 == 0, "half a day is in the lake"
        assert rows.height < 29 * 50, "the cut came too late to show anything"
    for item in quarantine.find(Files(os.environ[stores.QUARANTINE_ENV], whole._options)):
        assert item.rows == 50
    wire.cut_after(None)
    ingest(busline, s3, days_per_commit=1)
    assert content(whole).equals(content(Lake(folder / "lake")))
    assert [str(item.day) for item in quarantine.find(stores.quarantine(s3))] == ["2020-01-07"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "is AWS_ENDPOINT_URL right"),
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "check AWS_ACCESS_KEY_ID"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "check AWS_ACCESS_KEY_ID"),
        (
            {stores.LAKE_ENV: "s3://no-such-bucket-here/lake", stores.QUARANTINE_ENV: "s3://no-such-bucket-here/q"},
            "make the bucket",
        ),
    ],
    ids=["away", "wrong secret", "unknown key", "no bucket"],
)
def test_a_store_that_cannot_be_used_is_told_within_seconds(s3, busline, monkeypatch, changes, words):
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    for attempt in (
        lambda: ingest(busline, s3),
        lambda: stores.lake(s3).tables(),
        lambda: stores.lake(s3).read("rides"),
        lambda: stores.lake(s3).append("t", pl.DataFrame({"a": [1]})),
        lambda: stores.lake(s3).replace("t", pl.DataFrame({"a": [1]})),
        lambda: quarantine.find(stores.quarantine(s3)),
    ):
        started = time.monotonic()
        with pytest.raises((LakeError, OSError), match=words):
            attempt()
        assert time.monotonic() - started < 15


def test_a_pinned_version_stays_readable_after_upkeep_and_an_unpinned_one_goes(s3):
    lake = stores.lake(s3)
    for value in range(4):
        lake.replace("t", pl.DataFrame({"a": [value]}))
    [done] = tend_tables(lake, {"t": {1}}, keep_days=0)
    assert done.removed == 2
    assert lake.read("t", version=1)["a"].to_pylist() == [1]
    with pytest.raises(LakeError):
        lake.read("t", version=2)
    assert tend_tables(lake, {"t": {1}}, keep_days=0)[0].removed == 0


def test_options_name_the_store_under_test():
    assert delta_options()["AWS_ACCESS_KEY_ID"] == os.environ["AWS_ACCESS_KEY_ID"]
