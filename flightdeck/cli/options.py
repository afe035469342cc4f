"""What the sub-commands share: the option for the state folder, and times."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Annotated

import typer

from flightdeck.contracts.layout import STATE_ENV, StateLayout

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
