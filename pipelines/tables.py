"""Adapter: tables of ours in SQL (SQLite in the lab, Postgres in the cluster), made where they are absent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Connection, Engine, MetaData, create_engine

from pipelines.locks import CONNECT_S, one_at_a_time

WAIT_S = 30  # for SQLite's lock


def open_tables(
    url: str, tables: MetaData, lock: str, *, first: Callable[[Connection], None] = lambda _: None
) -> Engine:
    """An engine of the database at `url` (SQLAlchemy), in which the tables are.

    Args:
        lock: name of the lock under which they are made: two that make them at once collide.
        first: writes what must stand in them from the beginning; called at each start, in a transaction.
    Raises:
        SQLAlchemyError, ConnectionError: the database does not answer.
    """
    postgres = url.startswith("postgres")
    file = Path(url.removeprefix("sqlite:///")).with_suffix(".lock")
    if not postgres:
        file.parent.mkdir(parents=True, exist_ok=True)
    options = {"connect_timeout": CONNECT_S} if postgres else {"timeout": WAIT_S}
    engine = create_engine(url, connect_args=options, pool_pre_ping=postgres)
    with one_at_a_time(url, lock, file, wait=True):
        tables.create_all(engine)
        with engine.begin() as connection:
            first(connection)
    return engine
