"""Adapter: triggers and decisions in SQL (SQLite in the lab, Postgres in the cluster), kept once and for all.

Every write is one turn: its first statement takes the one row of `retrain_turn`, which SQLite and Postgres both give to
one transaction at a time. What a turn reads is therefore what it decides on, whoever else decides at that moment; the
primary key (model, number) of the decisions would refuse a second one all the same.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Iterator, Sequence

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.retrain import EVERY_MODEL, Decision, Entry, Received, Trigger, TriggerKind
from pipelines.governor.decide import worth_keeping
from pipelines.governor.state import SETTLED_QUIETLY, State, fold
from pipelines.stores import shown
from pipelines.tables import open_tables

JOURNAL_ENV = "FLIGHTDECK_GOVERNOR"
CLAIMS = 500  # ids in one statement: SQLite takes 999 variables at least

TABLES = MetaData()
TURN = Table("retrain_turn", TABLES, Column("id", Integer, primary_key=True), Column("turns", Integer, nullable=False))
DECISIONS = Table(
    "retrain_decisions", TABLES,
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("at", String(40), nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("entry", Text, nullable=False),  # flightdeck.contracts.retrain.Entry as JSON
)  # fmt: skip
TRIGGERS = Table(
    "retrain_triggers", TABLES,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("identity", String(200), nullable=False),
    Column("told_at", String(40), nullable=False),  # clock time
    Column("content", Text, nullable=False),  # Trigger as JSON
    Column("decision", Integer),  # the one that settled it, set once
    UniqueConstraint("model", "kind", "identity"),
    ForeignKeyConstraint(["model", "decision"], ["retrain_decisions.model", "retrain_decisions.number"]),
    Index("retrain_triggers_waiting", "model", "decision"),
)  # fmt: skip


def journal_url(layout: StateLayout) -> str:
    """The journal's place as a SQLAlchemy URL: what the environment names, else a file in the state folder."""
    return os.environ.get(JOURNAL_ENV) or f"sqlite:///{layout.root / 'governor.db'}"


class JournalUnavailable(ConnectionError):
    """The database does not answer; nothing was decided or changed."""


class Turn:
    """One transaction in which nobody else decides."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def state(self, model: str) -> State:
        """What the decisions about a model come to."""
        return _state(self._connection, model)

    def waiting(self, model: str) -> list[Received]:
        """The triggers that no decision has settled, as they came in."""
        return _waiting(self._connection, model)

    def keep(self, model: str, decision: Decision, at: dt.datetime, by: str) -> Entry | None:
        """Append a decision and settle its triggers; None when it says nothing new (`worth_keeping`)."""
        if not worth_keeping(self.state(model).last, decision, at):
            return None
        query = select(func.max(DECISIONS.c.number)).where(DECISIONS.c.model == model)
        number = int(self._connection.execute(query).scalar() or 0) + 1
        entry = Entry(model=model, number=number, at=at, by=by, decision=decision)
        self._connection.execute(
            insert(DECISIONS).values(
                model=model, number=entry.number, at=_text(at), outcome=decision.outcome.value,
                entry=entry.model_dump_json(exclude={"decision": {"claims"}}),
            )
        )  # fmt: skip
        for first in range(0, len(decision.claims), CLAIMS):
            ids = decision.claims[first : first + CLAIMS]
            done = self._connection.execute(
                update(TRIGGERS)
                .where(TRIGGERS.c.id.in_(ids), TRIGGERS.c.model == model, TRIGGERS.c.decision.is_(None))
                .values(decision=entry.number)
            )
            if done.rowcount != len(ids):
                raise RuntimeError(
                    f"decision {entry.number} of {model} settles {len(ids)} triggers, {done.rowcount} of them are open"
                )
        return entry


class Journal:
    """The governor's memory.

    Raises:
        JournalUnavailable: from every method, when the database does not answer.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        with self._clear():
            self._engine = open_tables(url, TABLES, "governor", first=_one_turn)

    @contextlib.contextmanager
    def turn(self) -> Iterator[Turn]:
        """A transaction that has the journal for itself; kept whole or, after an exception, not at all."""
        with self._clear(), self._engine.begin() as connection:
            connection.execute(update(TURN).where(TURN.c.id == 1).values(turns=TURN.c.turns + 1))
            yield Turn(connection)

    def tell(self, triggers: Sequence[Trigger], at: dt.datetime) -> int:
        """Keep triggers, all or none; returns how many were new. One told before under the same key changes nothing."""
        new = 0
        with self.turn() as turn:
            connection = turn._connection
            for trigger in triggers:
                same = select(TRIGGERS.c.id).where(
                    TRIGGERS.c.model == trigger.model, TRIGGERS.c.kind == trigger.kind.value,
                    TRIGGERS.c.identity == trigger.identity,
                )  # fmt: skip
                if connection.execute(same).first() is None:
                    connection.execute(
                        insert(TRIGGERS).values(
                            model=trigger.model, kind=trigger.kind.value, identity=trigger.identity, told_at=_text(at),
                            content=trigger.model_dump_json(),
                        )
                    )  # fmt: skip
                    new += 1
        return new

    def state(self, model: str) -> State:
        """As of now; for a look, not for a decision."""
        with self._clear(), self._engine.connect() as connection:
            return _state(connection, model)

    def waiting(self, model: str) -> list[Received]:
        """The triggers that no decision has settled, as they came in."""
        with self._clear(), self._engine.connect() as connection:
            return _waiting(connection, model)

    def history(self, model: str, *, limit: int | None = None) -> list[Entry]:
        """The decisions about a model (or `*`), oldest first; the newest `limit` of them."""
        with self._clear(), self._engine.connect() as connection:
            return _entries(connection, model, limit=limit)

    def settled_by(self, model: str, number: int) -> list[Received]:
        """The triggers that a decision settled."""
        with self._clear(), self._engine.connect() as connection:
            return _received(connection, model, TRIGGERS.c.decision == number)

    def newest(self, model: str, kind: TriggerKind) -> Trigger | None:
        """The trigger of a kind that came in last, settled or not."""
        query = (
            select(TRIGGERS.c.content).where(TRIGGERS.c.model == model, TRIGGERS.c.kind == kind.value)
            .order_by(TRIGGERS.c.id.desc()).limit(1)
        )  # fmt: skip
        with self._clear(), self._engine.connect() as connection:
            found = connection.execute(query).scalar()
        return Trigger.model_validate_json(found) if found else None

    def models(self) -> list[str]:
        """Every model that was ever told of, sorted."""
        with self._clear(), self._engine.connect() as connection:
            found = {
                str(row[0]) for table in (TRIGGERS, DECISIONS) for row in connection.execute(select(table.c.model))
            }
        return sorted(found - {EVERY_MODEL})

    @contextlib.contextmanager
    def _clear(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:  # a bug of ours or a hand in the tables, not an absence
            raise
        except SQLAlchemyError as error:
            raise JournalUnavailable(
                f"the governor's journal {shown(self.url)}: {str(error).splitlines()[0]}; {JOURNAL_ENV} names it"
            ) from error


def _one_turn(connection: Connection) -> None:
    if connection.execute(select(TURN.c.id)).first() is None:
        connection.execute(insert(TURN).values(id=1, turns=0))


def _state(connection: Connection, model: str) -> State:
    """What only settled triggers is not even read."""
    kept = DECISIONS.c.outcome.not_in([outcome.value for outcome in SETTLED_QUIETLY])
    return fold(_entries(connection, model, kept), _entries(connection, EVERY_MODEL, kept))


def _entries(
    connection: Connection, model: str, condition: ColumnElement[bool] | None = None, *, limit: int | None = None
) -> list[Entry]:
    query = select(DECISIONS.c.entry).where(DECISIONS.c.model == model)
    query = query if condition is None else query.where(condition)
    found = connection.execute(query.order_by(DECISIONS.c.number.desc()).limit(limit))
    return [Entry.model_validate_json(row[0]) for row in found][::-1]


def _waiting(connection: Connection, model: str) -> list[Received]:
    return _received(connection, model, TRIGGERS.c.decision.is_(None))


def _received(connection: Connection, model: str, condition: ColumnElement[bool]) -> list[Received]:
    query = (
        select(TRIGGERS.c.id, TRIGGERS.c.content).where(TRIGGERS.c.model == model, condition).order_by(TRIGGERS.c.id)
    )
    return [Received(id=row[0], trigger=Trigger.model_validate_json(row[1])) for row in connection.execute(query)]


def _text(at: dt.datetime) -> str:
    return at.astimezone(dt.UTC).isoformat()
