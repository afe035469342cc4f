"""`flightdeck release`: the ledger of deliveries of one environment."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from flightdeck.cli.options import State, in_environment, kubectl_of, layout_of, show_table

if TYPE_CHECKING:
    from flightdeck.cluster.commands import Kubectl
    from flightdeck.contracts.ledger import DeliveryRecord

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="What was delivered to an environment, read from its cluster, and the way back.\n\n"
    "Example: flightdeck release list --environment dev",
)
Environment = Annotated[
    str, typer.Option("--environment", envvar="FLIGHTDECK_ENVIRONMENT", help="One of k8s/environments.yaml.")
]
Context = Annotated[str | None, typer.Option("--context", help="kubectl context; else the environment's or current.")]
AsJson = Annotated[bool, typer.Option("--json", help="All of it, one record a line.")]
INTERRUPTED = 130


@app.command("list")
def list_(environment: Environment = "dev", context: Context = None, as_json: AsJson = False) -> None:
    """Every delivery, oldest first; exit code 1 when the ledger has a gap. Example: flightdeck release list"""
    in_environment(environment)
    from flightdeck.delivery import ledger

    with _told():
        kubectl, records = _records(context)
        if as_json:
            print("\n".join(it.text for it in records))
        else:
            show_table(
                ("", "when (UTC)", "verdict", "commit", "models", "who", "took", "reason"),
                [_row(it) for it in records],
            )
            for line in _under_way(kubectl):
                print(line)
        gaps = ledger.gaps(records)
        for words in gaps:
            print(f"WARNING: {words}", file=sys.stderr)
    raise typer.Exit(1 if gaps else 0)


@app.command()
def show(
    number: Annotated[int, typer.Argument(min=1, help="Of the delivery; `list` names them.")],
    environment: Environment = "dev",
    context: Context = None,
    as_json: AsJson = False,
) -> None:
    """One delivery with all its digests and seconds. Example: flightdeck release show 3"""
    in_environment(environment)
    from flightdeck.delivery.decisions import timetable

    with _told():
        _, records = _records(context)
        found = next((it for it in records if it.number == number), None)
        if found is None:
            there = ", ".join(str(it.number) for it in records) or "none"
            raise ValueError(f"no delivery {number}; there are: {there}")
        if as_json:
            print(found.text)
            return
        show_table((f"delivery {found.number}", ""), _lines(found))
        print("\n".join(timetable(found.stages)))


@app.command()
def undo(
    number: Annotated[
        int | None, typer.Argument(min=1, help="Deliver this one again; default: the last that was something else.")
    ] = None,
    environment: Environment = "dev",
    overlay: Annotated[str | None, typer.Option("--overlay", hidden=True)] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Also when the context looks like production.")] = False,
    state: State = None,
) -> None:
    """Deploy again what a recorded delivery deployed, same digests. Refuses, and says so, what is no longer there.

    Models go through their rollout like any candidate; it is recorded as another delivery.

    Example: flightdeck release undo 3 --environment dev
    """
    in_environment(environment)
    from flightdeck.delivery.deliver import Asked, Stopped
    from flightdeck.delivery.undo import STAGES, Undo
    from flightdeck.progress import Board

    board = Board(list(STAGES), title=f"Undo in {environment}")
    try:
        with board:
            record = Undo(layout_of(state).root, board, Asked(sure=yes, overlay=overlay), number=number).run()
    except KeyboardInterrupt:
        print("\nstopped in the middle; what served before keeps serving; run it again to go on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except Stopped as error:
        board.console.print(board.table())
        print(f"\nflightdeck release undo: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    board.console.print(board.table())
    print(f"\ndelivery {record.number} undoes to {record.undoes}: {record.verdict}: {record.reason}")
    raise typer.Exit(0 if board.ok else 1)


def _records(context: str | None) -> tuple[Kubectl, list[DeliveryRecord]]:
    from flightdeck.cluster.names import PLATFORM
    from flightdeck.delivery import ledger

    kubectl = kubectl_of(context, sure=True)  # it only looks
    return kubectl, ledger.read(kubectl, PLATFORM)


def _under_way(kubectl: Kubectl) -> list[str]:
    from flightdeck.cluster.names import PLATFORM
    from flightdeck.delivery import ledger

    if not (found := ledger.noted(kubectl, PLATFORM)):
        return []
    return [f"not ended: {found.get('commit', '?')[:12]} by {found.get('who', '?')}, at {found.get('stage', '?')}"]


def _row(record: DeliveryRecord) -> tuple[str, ...]:
    models = ", ".join(f"{name} v{it.release.model.version}" for name, it in record.models.items() if it.release)
    verdict = str(record.verdict) + (f" (undo to {record.undoes})" if record.undoes else "")
    took = f"{sum(it.seconds for it in record.stages) / 60:.1f} min"
    reason = record.reason.splitlines()[0][:80] if record.reason else ""
    return (
        str(record.number), f"{record.at:%Y-%m-%d %H:%M}", verdict, record.commit[:12], models, record.who, took,
        reason,
    )  # fmt: skip


def _lines(record: DeliveryRecord) -> list[tuple[str, str]]:
    rows = [
        ("when", f"{record.at:%Y-%m-%d %H:%M:%S} UTC"),
        ("environment", f"{record.environment}, overlay {record.overlay}"),
        ("verdict", f"{record.verdict}: {record.reason}"), ("commit", record.commit), ("who", record.who),
        ("lock", record.lock_sha256), ("manifests", record.manifests),
    ]  # fmt: skip
    if record.undoes:
        rows.append(("undo to", f"delivery {record.undoes}"))
    rows += sorted(record.images.items())
    for name, it in record.models.items():
        if it.release:
            rows += [(name, it.release.short), (f"{name}, artefact", it.release.model.sha256)]
        if it.made_from:
            tables = ", ".join(f"{table} {version}" for table, version in sorted(it.made_from.table_versions.items()))
            rows += [
                (f"{name}, data", tables), (f"{name}, features", it.made_from.feature_export),
                (f"{name}, code and lock", f"{it.made_from.git_commit}, {it.made_from.lock_sha256}"),
                (f"{name}, spec and holdout", f"{it.made_from.spec_sha256}, {it.made_from.holdout_sha256}"),
            ]  # fmt: skip
    return rows


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Expected failures end the command with their words; exit code 1."""
    from flightdeck.cluster.commands import CommandFailed
    from flightdeck.delivery.ledger import LedgerError

    try:
        yield
    except (CommandFailed, LedgerError, ValueError) as error:
        print(f"flightdeck release: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
