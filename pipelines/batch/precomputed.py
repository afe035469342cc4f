"""Adapter: precomputed answers in SQL (SQLite in the lab, Postgres in the cluster).

A run writes its answers under an id of its own, chunk by chunk; nobody sees them until one transaction points its day
to it. A run that dies leaves rows that nobody reads and the next run of the day removes: two versions never mix.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import itertools
import os
import uuid
from collections.abc import Iterator, Sequence

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import ModelRef
from pipelines.stores import shown
from pipelines.tables import open_tables

PRECOMPUTED_ENV = "FLIGHTDECK_PRECOMPUTED"
ASKED = 500  # ids in one statement: SQLite takes 999 variables at least

TABLES = MetaData()
RUNS = Table(
    "precomputed_runs", TABLES,
    Column("run_id", String(32), primary_key=True),
    Column("model", String(64), nullable=False),
    Column("day", String(10), nullable=False),
    Column("version", String(20), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("as_of", String(40), nullable=False),  # clock time of the scoring; ISO, UTC: sorts as text
    Column("answers", Integer),  # null until it was finished
)  # fmt: skip
ANSWERS = Table(
    "precomputed", TABLES,
    Column("run_id", String(32), primary_key=True),
    Column("entity_id", String(200), primary_key=True),
    Column("score", Float, nullable=False),
    Column("horizon_min", Integer, nullable=False),  # from the scoring to the event
)  # fmt: skip
CURRENT = Table(
    "precomputed_current", TABLES,
    Column("model", String(64), primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("run_id", String(32)),  # null until a first run was finished
)  # fmt: skip


class PrecomputedUnavailable(ConnectionError):
    """The database does not answer; nothing was changed."""


class Overtaken(RuntimeError):
    """The run may not become the day's answer: a newer one is, or its rows are gone."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One pass over a day's schedule by one version."""

    id: str
    model: str
    day: dt.date
    version: str
    sha256: str
    as_of: dt.datetime


@dataclasses.dataclass(frozen=True)
class Answer:
    """A precomputed answer: `score` in the model's unit, the version that gave it, when, and for how long ahead."""

    score: float
    version: str
    sha256: str
    as_of: dt.datetime
    horizon_min: int


@dataclasses.dataclass(frozen=True)
class Found:
    """A lookup: what may be answered, and what needs the model: never scored, or scored too long ago."""

    answers: dict[str, Answer]
    missing: frozenset[str]
    too_old: frozenset[str]


def precomputed_url(layout: StateLayout) -> str:
    """The answers' place as a SQLAlchemy URL: what the environment names, else a file in the state folder."""
    return os.environ.get(PRECOMPUTED_ENV) or f"sqlite:///{layout.root / 'precomputed.db'}"


class Precomputed:
    """The answers of all models.

    Raises:
        PrecomputedUnavailable: from every method, when the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with self._clear():
            self._engine = open_tables(url, TABLES, "precomputed")

    def begin(self, ref: ModelRef, day: dt.date, as_of: dt.datetime) -> Run:
        """A new run; its answers are nobody's until it is finished."""
        run = Run(uuid.uuid4().hex, ref.name, day, ref.version, ref.sha256, as_of)
        with self._clear():
            with contextlib.suppress(IntegrityError), self._engine.begin() as connection:
                connection.execute(insert(CURRENT).values(model=ref.name, day=day.isoformat()))
            with self._engine.begin() as connection:
                connection.execute(
                    insert(RUNS).values(
                        run_id=run.id, model=ref.name, day=day.isoformat(), version=ref.version, sha256=ref.sha256,
                        as_of=_text(as_of),
                    )
                )  # fmt: skip
        return run

    def write(self, run: Run, entity_ids: Sequence[str], scores: Sequence[float], horizons_min: Sequence[int]) -> None:
        """Add a chunk of answers, all or none of it.

        Raises:
            IntegrityError: an entity for the second time in this run.
        """
        rows = list(zip(itertools.repeat(run.id, len(entity_ids)), entity_ids, scores, horizons_min, strict=True))
        if not rows:
            return
        with self._clear(), self._engine.begin() as connection:
            if connection.dialect.name == "sqlite":  # a dictionary per row takes 2.6 times as long (measured)
                connection.exec_driver_sql("INSERT INTO precomputed VALUES (?, ?, ?, ?)", rows)
            else:
                names = ANSWERS.columns.keys()
                connection.execute(insert(ANSWERS), [dict(zip(names, row, strict=True)) for row in rows])

    def finish(self, run: Run, answers: int) -> None:
        """Make the run the day's answer, and remove the older ones, in one transaction. Safe to repeat.

        Args:
            answers: how many the caller wrote.
        Raises:
            Overtaken: a run with a later `as_of` is the day's answer, or the rows are not all there.
        """
        day = run.day.isoformat()
        mine = (CURRENT.c.model == run.model, CURRENT.c.day == day)
        with self._clear(), self._engine.begin() as connection:
            connection.execute(update(CURRENT).where(*mine).values(day=day))  # takes the row: one at a time from here
            self._may_lead(connection, run, answers, connection.execute(select(CURRENT.c.run_id).where(*mine)).scalar())
            connection.execute(update(RUNS).where(RUNS.c.run_id == run.id).values(answers=answers))
            connection.execute(update(CURRENT).where(*mine).values(run_id=run.id))
            older = select(RUNS.c.run_id).where(
                RUNS.c.model == run.model, RUNS.c.day == day, RUNS.c.run_id != run.id, RUNS.c.as_of <= _text(run.as_of)
            )
            connection.execute(delete(ANSWERS).where(ANSWERS.c.run_id.in_(older)))

    @staticmethod
    def _may_lead(connection: Connection, run: Run, answers: int, current: str | None) -> None:
        there = connection.execute(select(func.count()).where(ANSWERS.c.run_id == run.id)).scalar()
        if there != answers:
            raise Overtaken(
                f"run {run.id[:8]} of {run.model} for {run.day} wrote {answers:,} answers, {there:,} are there: a "
                "newer run was finished meanwhile, or rows were removed; nothing was changed"
            )
        leads = connection.execute(select(RUNS.c.as_of).where(RUNS.c.run_id == current)).scalar() if current else None
        if leads is not None and leads > _text(run.as_of):
            raise Overtaken(
                f"run {run.id[:8]} of {run.model} for {run.day} scored as of {_text(run.as_of)}; answers as of {leads} "
                "are there already; nothing was changed"
            )

    def lookup(
        self, model: str, day: dt.date, entity_ids: Sequence[str], now: dt.datetime, *, max_age: dt.timedelta
    ) -> Found:
        """The day's answers about some entities, all of one run; what a newer one removes meanwhile is missing.

        Args:
            now: the clock's. max_age: since the scoring; an older answer counts as none.
        """
        found: dict[str, Answer] = {}
        with self._clear(), self._engine.connect() as connection:
            run = connection.execute(
                select(RUNS.c.run_id, RUNS.c.version, RUNS.c.sha256, RUNS.c.as_of)
                .join(CURRENT, CURRENT.c.run_id == RUNS.c.run_id)
                .where(CURRENT.c.model == model, CURRENT.c.day == day.isoformat())
            ).first()
            for first in range(0, len(entity_ids) if run else 0, ASKED):
                assert run is not None
                asked = (
                    ANSWERS.c.run_id == run.run_id, ANSWERS.c.entity_id.in_(entity_ids[first : first + ASKED])
                )  # fmt: skip
                query = select(ANSWERS.c.entity_id, ANSWERS.c.score, ANSWERS.c.horizon_min).where(*asked)
                as_of = dt.datetime.fromisoformat(run.as_of)
                for row in connection.execute(query):
                    found[row.entity_id] = Answer(row.score, run.version, run.sha256, as_of, row.horizon_min)
        too_old = {name for name, answer in found.items() if now - answer.as_of > max_age}
        return Found(
            answers={name: answer for name, answer in found.items() if name not in too_old},
            missing=frozenset(entity_ids) - set(found),
            too_old=frozenset(too_old),
        )

    def rows(self) -> int:
        """Answers in the table, whoever reads them: what it grows to."""
        with self._clear(), self._engine.connect() as connection:
            return int(connection.execute(select(func.count()).select_from(ANSWERS)).scalar() or 0)

    @contextlib.contextmanager
    def _clear(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise PrecomputedUnavailable(
                f"the precomputed answers {shown(self.url)}: {str(error).splitlines()[0]}; {PRECOMPUTED_ENV} names them"
            ) from error


def _text(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).isoformat(timespec="microseconds")
