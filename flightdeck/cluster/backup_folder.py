"""A backup's folder: what it says of itself, and whether its files are what it says. Reads files, asks nobody."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

DATABASES = ("mlflow", "dagster", "feast", "optuna")
BUCKETS = ("lake", "quarantine", "mlflow")
SAYS = "backup.json"
MANIFEST, PREFIX = "MANIFEST.json", "objects/"  # as k8s/backup/objects.py writes them
BLOCK = 1 << 20

Sums: TypeAlias = Mapping[str, tuple[int, str]]  # key -> (bytes, sha256)


class BackupBroken(ValueError):
    """A file of a backup is absent, cut or changed."""


class File(msgspec.Struct, frozen=True):
    """One file of the folder; `objects` of a bucket's, 0 of a database's."""

    name: str
    bytes: int
    sha256: str
    objects: int = 0


class Backup(msgspec.Struct, frozen=True):
    """What `backup.json` says.

    Args:
        taken_at: when it began; databases are as of then or a little later, buckets later still.
        revision: of the checkout that took it; `unknown` outside of Git.
        postgres: version of the server, e.g. `17.11`.
    """

    taken_at: dt.datetime
    context: str
    namespace: str
    revision: str
    postgres: str
    databases: dict[str, File]
    buckets: dict[str, File]
    format: int = 1

    @property
    def files(self) -> list[File]:
        """All, databases first."""
        return [*self.databases.values(), *self.buckets.values()]

    @property
    def words(self) -> str:
        """In a line."""
        size_mb = sum(it.bytes for it in self.files) / 1e6
        objects = sum(it.objects for it in self.buckets.values())
        return f"{len(self.databases)} databases, {objects:,} objects of {len(self.buckets)} buckets, {size_mb:,.1f} MB"


def file_of(path: Path, objects: int = 0) -> File:
    """A file as it is on the disk now."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return File(path.name, path.stat().st_size, digest, objects)


def check_dump(path: Path) -> None:
    """That it begins as one: the rest is held by its sha256.

    Raises:
        BackupBroken: it does not.
    """
    with path.open("rb") as file:
        head = file.read(5)
    if head != b"PGDMP":
        raise BackupBroken(f"{path.name}: not a dump of pg_dump's custom format; it begins with {head!r}")


def check_tar(path: Path) -> Sums:
    """Read a bucket's tar to its end; returns key -> (bytes, sha256).

    Raises:
        BackupBroken: it is cut, or an object is not what the manifest at its end says.
    """
    found: dict[str, tuple[int, str]] = {}
    try:
        with tarfile.open(path, mode="r:") as archive:
            for member in archive:
                body = archive.extractfile(member)
                if body is None:
                    raise BackupBroken(f"{path.name}: {member.name} is no file")
                if member.name == MANIFEST:
                    wanted = {key: (size, sha) for key, (size, sha) in json.loads(body.read())["sums"].items()}
                    return _equal(path.name, wanted, found)
                found[member.name.removeprefix(PREFIX)] = _sum(body)
    except (tarfile.TarError, EOFError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, BackupBroken):
            raise
        raise BackupBroken(f"{path.name}: cut or damaged after {len(found):,} objects ({error})") from error
    raise BackupBroken(f"{path.name}: cut after {len(found):,} objects: there is no {MANIFEST} at its end")


def _sum(body: IO[bytes]) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    while block := body.read(BLOCK):
        digest.update(block)
        size += len(block)
    return size, digest.hexdigest()


def _equal(name: str, wanted: Sums, found: Sums) -> Sums:
    differ = differences(wanted, found)
    if differ:
        raise BackupBroken(f"{name}: {differ}")
    return found


def differences(wanted: Sums, found: Sums) -> str:
    """In what objects differ, by three examples; empty when they are the same."""
    told = []
    for what, keys in (
        ("missing", wanted.keys() - found.keys()),
        ("not in the manifest", found.keys() - wanted.keys()),
        ("changed", {key for key in wanted.keys() & found.keys() if tuple(wanted[key]) != tuple(found[key])}),
    ):
        if keys:
            told.append(f"{len(keys):,} objects {what}, such as {', '.join(sorted(keys)[:3])}")
    return "; ".join(told)


def write_says(folder: Path, backup: Backup) -> None:
    """Put `backup.json` beside the files."""
    (folder / SAYS).write_bytes(msgspec.json.format(msgspec.json.encode(backup), indent=2) + b"\n")


def check_folder(folder: Path) -> tuple[Backup, dict[str, Sums]]:
    """Every file against what the folder says of it; returns that, and the objects of each bucket.

    Raises:
        BackupBroken: it is no backup, or not as it was taken; says which file.
    """
    try:
        backup = msgspec.json.decode((folder / SAYS).read_bytes(), type=Backup)
    except (OSError, msgspec.MsgspecError) as error:
        raise BackupBroken(f"{folder} is no backup: {SAYS} cannot be read ({error})") from error
    absent = sorted(({*DATABASES} - {*backup.databases}) | {f"bucket {it}" for it in {*BUCKETS} - {*backup.buckets}})
    if backup.format != 1 or absent:
        raise BackupBroken(
            f"{folder}: format {backup.format}, lacks {', '.join(absent) or 'nothing'}; nothing was done"
        )
    for file in backup.files:
        path = folder / file.name
        there = file_of(path, file.objects) if path.is_file() else None
        if there != file:
            found = f"{there.bytes:,} bytes, sha256 {there.sha256[:12]}" if there else "no such file"
            raise BackupBroken(f"{path}: {file.bytes:,} bytes, sha256 {file.sha256[:12]} were written, found {found}")
    for file in backup.databases.values():
        check_dump(folder / file.name)
    return backup, {name: check_tar(folder / file.name) for name, file in backup.buckets.items()}
