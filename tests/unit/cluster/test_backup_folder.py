"""A backup is taken for whole only when every byte of it is what was written."""

from __future__ import annotations

import datetime as dt
import hashlib
import importlib.util
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from flightdeck.cluster.backup_folder import (
    BUCKETS,
    DATABASES,
    Backup,
    BackupBroken,
    check_folder,
    check_tar,
    differences,
    file_of,
    write_says,
)
from flightdeck.cluster.names import K8S

spec = importlib.util.spec_from_file_location("objects", K8S / "backup" / "objects.py")
assert spec and spec.loader
objects = importlib.util.module_from_spec(spec)
spec.loader.exec_module(objects)

LOG, CHECKPOINT = "flights/_delta_log/00000000000000000000.json", "flights/_delta_log/_last_checkpoint"
LAKE = {"flights/day=2013-01-01/a.parquet": b"rows" * 5000, LOG: b"{}", CHECKPOINT: b"{1}", "empty": b""}


class Store:
    """Stands for boto3's client: one bucket in memory."""

    class exceptions:
        class NoSuchKey(Exception):
            pass

    def __init__(self, content: dict[str, bytes], *, vanishing: str = "") -> None:
        self.content, self.vanishing = dict(content), vanishing

    def get_paginator(self, _: str) -> Any:
        return SimpleNamespace(paginate=lambda Bucket: self._pages())

    def _pages(self) -> Iterator[dict[str, Any]]:
        for key in sorted(self.content):
            yield {"Contents": [{"Key": key}]}
        yield {}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        if Key == self.vanishing:
            raise self.exceptions.NoSuchKey
        body = self.content[Key]
        return {
            "Body": io.BytesIO(body), "ContentLength": len(body), "LastModified": dt.datetime(2013, 7, 1, tzinfo=dt.UTC)
        }  # fmt: skip

    def upload_fileobj(self, body: Any, bucket: str, key: str) -> None:
        self.content[key] = b"".join(iter(lambda: body.read(1000), b""))

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        del self.content[Key]


def saved(content: dict[str, bytes], **how: Any) -> bytes:
    out = io.BytesIO()
    objects.save(Store(content, **how), "lake", out)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    databases, buckets = {}, {}
    for name in DATABASES:
        (tmp_path / f"{name}.dump").write_bytes(b"PGDMP" + name.encode())
        databases[name] = file_of(tmp_path / f"{name}.dump")
    for name in BUCKETS:
        (tmp_path / f"{name}.tar").write_bytes(saved(LAKE))
        buckets[name] = file_of(tmp_path / f"{name}.tar", len(LAKE))
    when = dt.datetime(2026, 3, 1, 2, 17, tzinfo=dt.UTC)
    write_says(tmp_path, Backup(when, "kind-x", "flightdeck-platform", "abc", "17.11", databases, buckets))
    return tmp_path


def test_what_names_others_is_copied_before_them():
    with tarfile.open(fileobj=io.BytesIO(saved(LAKE))) as archive:
        names = archive.getnames()
    files = sorted(f"objects/{key}" for key in LAKE if "_delta_log" not in key)
    assert names == [f"objects/{CHECKPOINT}", f"objects/{LOG}", *files, "MANIFEST.json"]


def test_a_commit_made_while_the_log_is_copied_has_its_files_in_the_copy():
    """The store's list is asked anew for each turn: here a commit and its file come after the first one."""
    store = Store(LAKE)
    pages = store._pages

    def growing() -> Iterator[dict[str, Any]]:
        yield from pages()
        number = sum("_delta_log/0" in key for key in store.content)
        store.content[f"flights/{number}.parquet"] = b"more"  # a writer puts the file first
        store.content[f"flights/_delta_log/{number:020d}.json"] = b"{}"

    store._pages = growing  # type: ignore[method-assign]
    out = io.BytesIO()
    objects.save(store, "lake", out)
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as archive:
        names = archive.getnames()
    commits = {int(it.rpartition("/")[2].removesuffix(".json")) for it in names if "_delta_log/0" in it} - {0}
    assert commits
    assert {f"objects/flights/{number}.parquet" for number in commits} <= set(names)


def test_an_object_that_is_deleted_before_its_turn_is_left_out(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(saved(LAKE, vanishing="empty"))
    assert set(check_tar(tmp_path / "x.tar")) == set(LAKE) - {"empty"}


def test_a_whole_tar_tells_what_is_in_it(tmp_path: Path):
    (tmp_path / "x.tar").write_bytes(saved(LAKE))
    wanted = {key: (len(body), hashlib.sha256(body).hexdigest()) for key, body in LAKE.items()}
    assert check_tar(tmp_path / "x.tar") == wanted


def test_a_tar_that_is_cut_anywhere_before_its_end_is_noticed(tmp_path: Path):
    whole, path = saved(LAKE), tmp_path / "x.tar"
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        last = archive.getmember("MANIFEST.json")
    for length in (0, 1, 511, 512, 1024, 5000, last.offset, last.offset + 512, last.offset_data + last.size - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BackupBroken, match=r"x\.tar: cut"):
            check_tar(path)


def test_a_changed_byte_of_an_object_is_noticed(tmp_path: Path):
    whole = bytearray(saved(LAKE))
    whole[whole.index(b"rowsrows")] ^= 1
    (tmp_path / "x.tar").write_bytes(whole)
    with pytest.raises(BackupBroken, match="1 objects changed, such as flights/day=2013"):
        check_tar(tmp_path / "x.tar")


def test_differences_are_told_by_example():
    wanted, found = {"a": (1, "x"), "b": (1, "x")}, {"b": (1, "y"), "c": (1, "x")}
    words = differences(wanted, found)
    assert words == (
        "1 objects missing, such as a; 1 objects not in the manifest, such as c; 1 objects changed, such as b"
    )
    assert differences(wanted, dict(wanted)) == ""


def test_loading_and_pruning_make_the_bucket_what_the_tar_says():
    store = Store({"of another time": b"1", "empty": b"2"})
    assert objects.load(store, "lake", io.BytesIO(saved(LAKE))) == {"put": len(LAKE)}
    assert store.content == LAKE | {"of another time": b"1"}, "a database may still name it"
    assert objects.prune(store, "lake", set(LAKE)) == {"deleted": 1}
    assert store.content == LAKE
    assert objects.prune(store, "lake", set(LAKE)) == {"deleted": 0}
    assert objects.sums(store, "lake")["empty"] == [0, hashlib.sha256(b"").hexdigest()]


def test_loading_a_cut_stream_deletes_nothing():
    whole = saved(LAKE)
    store = Store({"of another time": b"1"})
    with pytest.raises((ValueError, tarfile.TarError)):
        objects.load(store, "lake", io.BytesIO(whole[: whole.index(b"MANIFEST.json")]))
    assert store.content["of another time"] == b"1"


def test_a_whole_folder_is_taken(folder: Path):
    backup, sums = check_folder(folder)
    assert backup.postgres == "17.11" and set(sums) == set(BUCKETS)
    assert backup.words.startswith("4 databases, 12 objects of 3 buckets, ")


def test_a_folder_with_a_cut_an_absent_or_a_strange_file_is_refused(folder: Path):
    says, dump = folder / "backup.json", folder / "feast.dump"
    content = dump.read_bytes()
    dump.write_bytes(content[:-1])
    with pytest.raises(BackupBroken, match=r"feast\.dump: 10 bytes, sha256 \w+ were written, found 9 bytes"):
        check_folder(folder)
    dump.unlink()
    with pytest.raises(BackupBroken, match="found no such file"):
        check_folder(folder)
    dump.write_bytes(content)
    said = yaml.safe_load(says.read_text())
    del said["databases"]["feast"], said["buckets"]["lake"]
    says.write_text(str(said).replace("'", '"'))
    with pytest.raises(BackupBroken, match="lacks bucket lake, feast"):
        check_folder(folder)
    says.unlink()
    with pytest.raises(BackupBroken, match=r"is no backup: backup\.json cannot be read"):
        check_folder(folder)
