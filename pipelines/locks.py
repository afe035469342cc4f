"""One process at a time, beside the database that is guarded: a locked file for SQLite, an advisory lock in Postgres.

Both die with their process.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

CONNECT_S = 5


class Taken(RuntimeError):
    """Another process holds the lock."""


@contextlib.contextmanager
def one_at_a_time(url: str, name: str, file: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock `name` of the database `url` (SQLAlchemy), which is `file` where the database is one itself.

    Args:
        wait: until it is free; else another holder is an error.
    Raises:
        Taken: another process holds it and `wait` is False.
        ConnectionError: the database does not answer.
    """
    held = _advisory(url, name, wait=wait) if url.startswith("postgres") else _flock(file, wait=wait)
    with held:
        yield


@contextlib.contextmanager
def _flock(file: Path, *, wait: bool) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Taken(str(file)) from error
        yield


@contextlib.contextmanager
def _advisory(url: str, name: str, *, wait: bool) -> Iterator[None]:
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.pool import NullPool

    from pipelines.stores import shown

    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    function = "pg_advisory_lock" if wait else "pg_try_advisory_lock"
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_S})
    with contextlib.ExitStack() as held:
        try:
            # A session lock on a connection of its own: it ends with the connection, whatever ends that.
            connection = held.enter_context(engine.connect().execution_options(isolation_level="AUTOCOMMIT"))
            got = connection.execute(text(f"SELECT {function}(:key)"), {"key": key}).scalar()
        except SQLAlchemyError as error:
            raise ConnectionError(f"{shown(url)} does not answer: {str(error).splitlines()[0]}") from error
        if got is False:
            raise Taken(f"lock {name} in {shown(url)}")
        yield
