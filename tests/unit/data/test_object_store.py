import datetime as dt

import pytest

from flightdeck.contracts.layout import StateLayout
from pipelines import stores
from pipelines.data.files import Files
from pipelines.data.lake import Lake
from pipelines.data.object_store import delta_options, is_url, polars_options, words

CLUSTER = {
    "AWS_ENDPOINT_URL": "http://object-store:7070", "AWS_REGION": "eu-central-1", "AWS_ACCESS_KEY_ID": "who",
    "AWS_SECRET_ACCESS_KEY": "secret", "HOME": "/root",
}  # fmt: skip


def test_a_place_is_a_folder_or_an_object_store_and_nothing_else(tmp_path):
    assert not is_url(tmp_path)
    assert is_url("s3://lake")
    with pytest.raises(ValueError, match=r"gs://lake: a place is a folder or s3://"):
        is_url("gs://lake")


def test_delta_gets_the_environments_store_with_conditional_puts_and_bounded_waits():
    options = delta_options(CLUSTER)
    assert options["AWS_ENDPOINT_URL"] == "http://object-store:7070"
    assert (options["aws_conditional_put"], options["allow_http"]) == ("etag", "true")
    assert int(options["max_retries"]) * int(options["connect_timeout"].rstrip("s")) <= 10
    assert "HOME" not in options


def test_an_encrypted_store_is_never_spoken_to_in_plain_text():
    assert delta_options({**CLUSTER, "AWS_ENDPOINT_URL": "https://object-store"})["allow_http"] == "false"
    assert delta_options({})["allow_http"] == "false"


def test_polars_gets_whole_numbers_and_a_folder_no_options():
    assert polars_options(delta_options(CLUSTER))["max_retries"] == 2
    assert polars_options(None) is None


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "Generic S3 error\n  \x1b[31m↳\x1b[0m 404 Not Found\n <?xml?><Error><Code>NoSuchBucket</Code>"
            "<Message>The specified bucket does not exist</Message></Error>",
            "the object store answers NoSuchBucket: The specified bucket does not exist; make the bucket",
        ),
        ("AWS Error SIGNATURE_DOES_NOT_MATCH during ListObjectsV2", "check AWS_ACCESS_KEY_ID"),
        ("error sending request\n client error (Connect)\n   0: trace", "is AWS_ENDPOINT_URL right"),
        (
            "<Error><Code>InsufficientStorage</Code><Message>No space left on device.</Message></Error>",
            "the object store answers InsufficientStorage: No space left on device; it is full: make room there",
        ),
        ("Permission denied", "Permission denied"),
    ],
    ids=["no bucket", "wrong key", "away", "full", "other"],
)
def test_a_stores_error_is_one_line_that_says_what_to_do(said, told):
    text = words(OSError(said))
    assert told in text
    assert "\n" not in text
    assert "\x1b" not in text


def test_an_unset_environment_means_the_state_folder(tmp_path, monkeypatch):
    for name in (stores.LAKE_ENV, stores.QUARANTINE_ENV, stores.OPTUNA_ENV):
        monkeypatch.delenv(name, raising=False)
    layout = StateLayout(tmp_path)
    assert stores.lake(layout).root == str(layout.lake)
    assert str(stores.quarantine(layout)) == str(layout.quarantine)
    assert stores.optuna_url(layout) == f"sqlite:///{layout.optuna_db}"
    assert not stores.scratch(layout)


def test_the_environment_names_the_clusters_stores(tmp_path, monkeypatch):
    monkeypatch.setenv(stores.LAKE_ENV, "s3://lake")
    monkeypatch.setenv(stores.QUARANTINE_ENV, "s3://quarantine/")
    layout = StateLayout(tmp_path)
    assert (stores.lake(layout).path("t"), str(stores.quarantine(layout))) == ("s3://lake/t", "s3://quarantine")
    assert stores.scratch(layout)
    monkeypatch.setenv(stores.LAKE_ENV, "ftp://lake")
    with pytest.raises(ValueError, match="ftp://lake"):
        stores.lake(layout)


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("postgresql+psycopg2://feast:s3c:r=t@db:5432/feast", "postgresql+psycopg2://feast:***@db:5432/feast"),
        ("redis://:hidden@valkey:6379/0", "redis://:***@valkey:6379/0"),
        ("valkey:6379,password=hidden,ssl=true", "valkey:6379,password=***,ssl=true"),
        ("127.0.0.1:6379", "127.0.0.1:6379"),
    ],
)
def test_a_message_never_shows_a_password(address, seen):
    assert stores.shown(address) == seen


def test_a_file_in_a_folder_appears_whole_and_hidden_names_are_no_content(tmp_path):
    files = Files(tmp_path / "kept")
    assert files.folders() == []
    files.write("a/b/one.txt", b"1")
    files.write("a/b/one.txt", b"2")
    files.write("a/.draft/one.txt", b"3")
    assert (files.read("a/b/one.txt"), files.folders("a"), files.exists("a/b")) == (b"2", ["b"], False)
    assert [item.name for item in (tmp_path / "kept/a/b").iterdir()] == ["one.txt"]
    files.delete("a/b/one.txt")
    files.delete("a/b/one.txt")
    with pytest.raises(FileNotFoundError, match=r"kept/a/b/one.txt"):
        files.read("a/b/one.txt")


def test_a_lake_keeps_its_log_for_as_long_as_a_model_may_need_it(tmp_path, bus_frame):
    lake = Lake(tmp_path)
    lake.append("appended", bus_frame(dt.date(2020, 1, 1)))
    lake.replace("replaced", bus_frame(dt.date(2020, 1, 1)))
    for name in ("appended", "replaced"):
        assert lake.snapshot(name).table.metadata().configuration == {"delta.enableExpiredLogCleanup": "false"}
