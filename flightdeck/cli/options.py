"""What the sub-commands share: the option for the state folder, the cluster they work on, times, and tables."""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flightdeck.contracts.layout import STATE_ENV, StateLayout

if TYPE_CHECKING:
    from rich.console import Console

    from flightdeck.cluster.commands import Kubectl

State = Annotated[Path | None, typer.Option("--state", help=f"State folder; else ${STATE_ENV}, else .flightdeck.")]


def layout_of(state: Path | None) -> StateLayout:
    """The state folder, also told to what reads the environment."""
    layout = StateLayout(state.absolute()) if state else StateLayout.from_env()
    os.environ[STATE_ENV] = str(layout.root)
    return layout


def utc_time(text: str) -> dt.datetime:
    """A time like 2013-07-01 or 2013-07-01T09:00Z, in UTC; it is UTC when it names no zone.

    Raises:
        typer.BadParameter: it is no such time.
    """
    try:
        value = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a time like 2013-07-01 or 2013-07-01T09:00Z") from error
    return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


def plain_console() -> Console:
    """A console that prints what it is given: no colours by guess, and wide enough where there is no terminal."""
    from rich.console import Console

    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 150)


def show_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows under their columns, folded and never cut."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    plain_console().print(table)


def kubectl_of(context: str | None, *, sure: bool) -> Kubectl:
    """Of the named or the current context, which is not production, or is meant.

    Raises:
        Refused: there is none, or it looks like production.
    """
    from flightdeck.cluster.commands import Kubectl, current_context
    from flightdeck.cluster.target import Refused, looks_like_production

    chosen = context or current_context()
    if not chosen:
        raise Refused("no kubectl context; `make up` makes a cluster, or give --context")
    if looks_like_production(chosen) and not sure:
        raise Refused(f"the context {chosen!r} looks like production; add --yes; nothing was touched")
    return Kubectl(chosen)


def in_environment(name: str) -> None:
    """This process works on the named environment: before anything of flightdeck.cluster is imported.

    Raises:
        typer.BadParameter: something is imported already, for another one.
    """
    from flightdeck.contracts.environments import ENVIRONMENT_ENV

    os.environ[ENVIRONMENT_ENV] = name
    try:
        from flightdeck.cluster.names import ENVIRONMENT
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if name != ENVIRONMENT.name:
        raise typer.BadParameter(f"this process works on {ENVIRONMENT.name} already; start another for {name}")
