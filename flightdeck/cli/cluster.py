"""`flightdeck cluster`: the whole loop on Kubernetes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from flightdeck.cli.options import State, kubectl_of, layout_of

app = typer.Typer(
    no_args_is_help=True,
    help="The whole loop on Kubernetes: kind, minikube, or the cluster of the current kubectl context.\n\n"
    "Example: flightdeck cluster up && flightdeck cluster status",
)

Yes = Annotated[bool, typer.Option("--yes", help="Also when the context looks like production.")]
Context = Annotated[str | None, typer.Option("--context", help="kubectl context; else the current one.")]
Namespace = Annotated[str | None, typer.Option("--namespace", help="Where the stores are; default: the environment's.")]
INTERRUPTED = 130


@app.command()
def up(
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="kind or minikube; default: the current context, else kind.")
    ] = None,
    overlay: Annotated[
        str | None, typer.Option("--overlay", help="Folder under k8s/overlays; default: it fits.")
    ] = None,
    yes: Yes = False,
    state: State = None,
) -> None:
    """From whatever is there to a stack that answers: cluster, images, manifests, first pipeline, first champion.

    Safe to repeat: what is there and right stays as it is. Exit code 1 when a part fell short, with pod, reason and its
    last log lines.

    Example: flightdeck cluster up --cluster kind
    """
    from rich.console import Console

    from flightdeck.cluster.failures import EXPECTED
    from flightdeck.cluster.up import STAGES, Up
    from flightdeck.progress import Board

    layout, console = layout_of(state), Console()
    board = Board(list(STAGES), console, "Flightdeck on Kubernetes")
    run = Up(layout.root, board, wanted=cluster or None, sure=yes, overlay=overlay)
    try:
        with board:
            run.all()
    except KeyboardInterrupt:
        console.print(board.table())
        print("interrupted; run it again to go on, or `flightdeck cluster down`", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except EXPECTED as error:
        console.print(board.table())
        print(f"\nflightdeck cluster up: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    console.print(board.table())
    for name, address in run.addresses().items():
        print(f"{name:<12} {address}")
    for sentence in board.shortfalls():
        print(sentence, file=sys.stderr)
    raise typer.Exit(0 if board.ok else 1)


@app.command()
def down(context: Context = None, yes: Yes = False, state: State = None) -> None:
    """Take away what `cluster up` made: the cluster if it made it, else its namespaces and what it installed.

    Where several clusters were made, --context says which. Where nothing is known of what was made, it refuses.

    Example: flightdeck cluster down
    """
    from flightdeck.cluster.down import take_down
    from flightdeck.cluster.failures import EXPECTED

    try:
        said = take_down(layout_of(state).root, context=context, sure=yes, tell=lambda it: print(f"... {it}"))
    except EXPECTED as error:
        print(f"flightdeck cluster down: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print("\n".join(said) or "nothing to take away")


@app.command()
def status(context: Context = None) -> None:
    """Each part, whether it is ready, and what is wrong with those that are not. Exit code 1 while one is not.

    Example: flightdeck cluster status
    """
    from rich.console import Console
    from rich.table import Table

    from flightdeck.cluster.failures import EXPECTED
    from flightdeck.cluster.names import PLATFORM, SERVING
    from flightdeck.cluster.readiness import explain, look

    try:
        kubectl = kubectl_of(context, sure=True)  # it only looks
        parts, troubles = look(kubectl, (PLATFORM, SERVING))
        table = Table("part", "ready", "", title=kubectl.context, title_justify="left", box=None)
        for part in parts:
            table.add_row(part.name, f"{part.ready}/{part.wanted}", part.failed or ("" if part.done else "waits"))
        Console().print(table)
        if troubles:
            print(explain(kubectl, troubles))
    except EXPECTED as error:
        print(f"flightdeck cluster status: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    raise typer.Exit(0 if parts and all(part.done for part in parts) else 1)


@app.command()
def backup(
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to make; default: a new one under backups/ of the state folder.")
    ] = None,
    context: Context = None,
    namespace: Namespace = None,
    yes: Yes = False,
    state: State = None,
) -> None:
    """Copy databases and buckets into a folder, while everything works. The folder is there when it is whole.

    Not in it: Secrets, the registry's images, what Valkey holds. docs/runbooks/restore.md says why, and what to keep.

    Example: flightdeck cluster backup --to /mnt/backups/monday
    """
    import datetime as dt

    from flightdeck.cluster.backup import default_folder, take
    from flightdeck.cluster.failures import EXPECTED
    from flightdeck.cluster.names import PLATFORM

    try:
        kubectl = kubectl_of(context, sure=yes)
        folder = (to or default_folder(layout_of(state).root, dt.datetime.now(dt.UTC))).absolute()
        done = take(kubectl, folder, namespace=namespace or PLATFORM, tell=_tell)
    except EXPECTED as error:
        print(f"flightdeck cluster backup: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"{folder}: {done.words}")


@app.command()
def restore(
    folder: Annotated[Path, typer.Argument(help="As `backup` left it.")],
    replace: Annotated[bool, typer.Option("--replace", help="Lose what the target holds.")] = False,
    context: Context = None,
    namespace: Namespace = None,
    yes: Yes = False,
) -> None:
    """Make databases and buckets what a backup says; refused where something is, unless --replace.

    What writes to them (MLflow, Dagster, upkeep) is stopped meanwhile; answers go on.

    Example: flightdeck cluster restore .flightdeck/backups/20260301T021700Z --replace
    """
    from flightdeck.cluster.failures import EXPECTED
    from flightdeck.cluster.names import PLATFORM
    from flightdeck.cluster.restore import next_steps
    from flightdeck.cluster.restore import restore as bring

    namespace = namespace or PLATFORM
    try:
        done = bring(kubectl_of(context, sure=yes), folder, namespace=namespace, replace=replace, tell=_tell)
    except EXPECTED as error:
        print(f"flightdeck cluster restore: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"{namespace} is as of {done.taken_at:%Y-%m-%d %H:%M} UTC: {done.words}. Next:")
    for line in next_steps(namespace):
        print(f"  {line}")


def _tell(words: str) -> None:
    print(f"... {words}", flush=True)
