"""The commands by which a person steps into a rollout: the same for one of the lab and for one of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

Note = Annotated[str, typer.Option("--note", help="Why; kept in the history.")]
ORDERS = {
    "promote": (
        "Skip the rest of the plan: to 100 % as soon as every replica of the candidate is ready.",
        "only a text was changed",
    ),
    "abort": ("Send the candidate home, from any phase; all users go back to the champion.", "numbers look odd"),
    "pause": (
        "Stay as it is: weight, copies and what is left of the deadline. A candidate that surely fails is still "
        "aborted.",
        "the network is being worked on",
    ),
    "resume": ("Go on after a pause.", ""),
    "retry": ("Try a release again that was sent home.", "the full disk was to blame"),
}


def add(app: typer.Typer, prefix: str, name: Any, where: Any, order: Callable[[Any, str, str, str], None]) -> None:
    """One command per order.

    Args:
        prefix: what one types before the order. name, where: types of the argument and of the option that says where.
        order: of where, name, order and note; gives it.
    """
    for kind, (does, note) in ORDERS.items():
        example = f"{prefix} {kind} late" + (f' --note "{note}"' if note else "")
        app.command(name=kind, help=f"{does}\n\nExample: {example}")(_command(kind, name, where, order))


def _command(kind: str, name: Any, where: Any, order: Callable[[Any, str, str, str], None]) -> Callable[..., None]:
    def command(name, where=None, note=""):  # type: ignore[no-untyped-def]
        order(where, name, kind, note)

    command.__annotations__ = {"name": name, "where": where, "note": Note, "return": None}  # what Typer reads
    return command
