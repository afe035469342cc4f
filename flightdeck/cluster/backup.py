"""Copy what the cluster cannot make again, while it works: databases first, then the objects that they name.

An object is there before a row names it, and is deleted days after nothing names it any more; so a copy of the rows,
followed by a copy of the objects, lacks nothing. The same holds inside a bucket (k8s/backup/objects.py).
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path

from flightdeck.cluster.backup_folder import (
    BUCKETS,
    DATABASES,
    Backup,
    BackupBroken,
    File,
    check_dump,
    check_tar,
    file_of,
    write_says,
)
from flightdeck.cluster.backup_stores import Objects, Postgres, objects_pod, require_inside
from flightdeck.cluster.commands import CommandFailed, Kubectl, run
from flightdeck.cluster.names import CHECKOUT, PLATFORM
from flightdeck.cluster.target import Refused

Tell = Callable[[str], None]
DRAFT = ".draft"


def default_folder(state: Path, now: dt.datetime) -> Path:
    """Where a backup goes when nobody says."""
    return state / "backups" / now.astimezone(dt.UTC).strftime("%Y%m%dT%H%M%SZ")


def take(kubectl: Kubectl, folder: Path, *, namespace: str = PLATFORM, tell: Tell = lambda _: None) -> Backup:
    """Copy into `folder`, which appears when all of it is there and was checked, else not at all.

    Raises:
        Refused: the folder is there already, the stores are managed ones, or another backup or restore is at work.
        BackupBroken: a stream was cut; run it again.
        CommandFailed: a store or the API server failed; run it again.
    """
    if folder.exists():
        raise Refused(f"{folder} is there already; name another with --to")
    require_inside(kubectl, namespace)
    draft = folder.with_name(folder.name + DRAFT)
    shutil.rmtree(draft, ignore_errors=True)  # of one that was killed
    draft.mkdir(parents=True, mode=0o700)
    try:
        with objects_pod(kubectl, namespace) as objects:
            backup = _copy(Postgres(kubectl, namespace), objects, draft, tell)
        write_says(draft, backup)
        draft.rename(folder)
    except CommandFailed as error:
        raise CommandFailed(f"{error}\nno backup was kept; run it again", error.stderr) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return backup


def _copy(postgres: Postgres, objects: Objects, draft: Path, tell: Tell) -> Backup:
    began, databases, buckets = dt.datetime.now(dt.UTC).replace(microsecond=0), dict[str, File](), dict[str, File]()
    version = postgres.version()
    for name in DATABASES:
        path = draft / f"database-{name}.dump"
        counted = postgres.save(name, path)
        databases[name] = file_of(path)
        if databases[name].sha256 != counted:
            raise BackupBroken(
                f"the dump of {name} was cut on its way: {databases[name].bytes:,} bytes came; run it again"
            )
        check_dump(path)
        tell(f"database {name}: {databases[name].bytes / 1e6:,.1f} MB")
    for name in BUCKETS:
        path = draft / f"bucket-{name}.tar"
        objects.save(name, path)
        there = check_tar(path)
        buckets[name] = file_of(path, len(there))
        tell(f"bucket {name}: {len(there):,} objects, {buckets[name].bytes / 1e6:,.1f} MB")
    return Backup(began, postgres.kubectl.context, postgres.namespace, revision(), version, databases, buckets)


def revision(root: Path = CHECKOUT) -> str:
    """Of the checkout, `-dirty` when it was changed since."""
    try:
        found = run(("git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"), cwd=str(root))
    except CommandFailed:
        return "unknown"
    return found.strip()
