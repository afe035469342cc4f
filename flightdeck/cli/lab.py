"""`flightdeck lab`: the whole loop on this machine."""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from flightdeck.cli.options import State, layout_of
from flightdeck.contracts.layout import StateLayout

if TYPE_CHECKING:
    from rich.console import Console

    from flightdeck.lab.daemon import Shown
    from flightdeck.lab.stack import Stack
    from flightdeck.progress import Board

app = typer.Typer(
    no_args_is_help=True,
    help="The whole loop on this machine: data, features, models, serving, replayed users, report.\n\n"
    "Example: flightdeck lab run",
)

Days = Annotated[int, typer.Option(min=1, max=31, help="Days of July to replay at most.")]
Trials = Annotated[int | None, typer.Option(min=0, max=50, help="Search trials per model; default: the spec's.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Run the main job although an earlier one left a model.")]
INTERRUPTED = 130


def _told(layout: StateLayout, error: BaseException) -> int:
    """The words for an end that was not the plan; returns the exit code."""
    import traceback

    from flightdeck.lab.session import is_full_disk

    if is_full_disk(error):
        print("\nflightdeck lab: the disk is full. Make room, then run it again: it starts afresh.", file=sys.stderr)
        return 1
    trace = layout.logs / "error.log"
    trace.parent.mkdir(parents=True, exist_ok=True)
    trace.write_text("".join(traceback.format_exception(error)))
    print(f"\nflightdeck lab: {error}\n(in full: {trace})", file=sys.stderr)
    return 1


@app.callback()
def _lab() -> None:
    """Sub-commands below."""


@app.command()
def run(state: State = None, days: Days = 31, trials: Trials = None) -> None:
    """The main job, from raw flights to a served model and a report; nothing is left running.

    Exit code 1 when a stage fell short, 130 after ctrl-C. What an earlier run left is set aside.

    Example: flightdeck lab run --days 7
    """
    raise typer.Exit(_run(layout_of(state), days, trials, "flightdeck lab run"))


@app.command()
def up(
    state: State = None,
    days: Days = 31,
    trials: Trials = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Run the main job although an earlier one left a model.")
    ] = False,
) -> None:
    """The main job (unless an earlier run left a model), then leave the lab running and print every address.

    Example: flightdeck lab up
    """
    from flightdeck.lab import background, lock
    from flightdeck.lab.daemon import read_status

    layout = layout_of(state)
    code = 0
    if holder := lock.holder(layout.root):
        shown = read_status(layout)
        if shown and shown.pid == holder.get("pid"):
            print("the lab is already running")
            _show(shown)
            raise typer.Exit(0)
    if fresh or not background.can_serve(layout):
        code = _run(layout, days, trials, "flightdeck lab up")
        if code == INTERRUPTED or not background.can_serve(layout):
            raise typer.Exit(code or 1)
    print("starting the lab in the background ...")
    try:
        shown = background.start(layout, lambda _: None)
    except KeyboardInterrupt:
        for sentence in background.stop(layout):
            print(sentence)
        raise typer.Exit(INTERRUPTED) from None
    except background.NotUp as error:
        print(f"flightdeck lab up: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    _show(shown)
    _example(layout, shown)
    raise typer.Exit(code)


@app.command()
def faults(state: State = None) -> None:
    """Roll out the champion with one planted fault after the other, and against itself, under live traffic.

    Needs a champion that an earlier `lab run` or `lab up` made. Exit code 1 when a fault got through, or a good release
    did not.

    Example: flightdeck lab faults
    """
    from flightdeck.lab import background

    layout = layout_of(state)
    if not background.can_serve(layout):
        print(f"flightdeck lab faults: no champion in {layout.root}; run `flightdeck lab run` first", file=sys.stderr)
        raise typer.Exit(1)
    raise typer.Exit(_run_faults(layout))


@app.command()
def down(state: State = None) -> None:
    """Stop the lab, and whatever a half-dead earlier one left running.

    Example: flightdeck lab down
    """
    from flightdeck.lab import background

    layout = layout_of(state)
    said = background.stop(layout) if layout.root.is_dir() else []
    print("\n".join(said) if said else f"no lab runs in {layout.root}")


@app.command()
def status(state: State = None) -> None:
    """Tell what runs, where, and how it is. Exit code 0: all is well, 1: something is not, 3: no lab runs.

    Example: flightdeck lab status
    """
    from flightdeck.lab import lock
    from flightdeck.lab.daemon import read_status

    layout = layout_of(state)
    holder = lock.holder(layout.root)
    if holder is None:
        print(f"no lab runs in {layout.root}; start one with `flightdeck lab up`")
        raise typer.Exit(3)
    shown = read_status(layout)
    if shown is None or shown.pid != holder.get("pid"):
        print(f"`{holder.get('doing')}` runs since {holder.get('since')}, pid {holder.get('pid')}")
        raise typer.Exit(0)
    _show(shown)
    raise typer.Exit(0 if shown.phase == "running" and all(item["healthy"] for item in shown.processes) else 1)


def _show(shown: Shown) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"lab {shown.phase} since {shown.since}, pid {shown.pid}; serves {shown.release}", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for column in ("process", "pid", "health", "restarts"):
        table.add_column(column)
    for item in shown.processes:
        health = "[green]well[/]" if item["healthy"] else f"[red]{item['problem']}[/]"
        table.add_row(item["name"], str(item["pid"] or "-"), health, str(item["restarts"]))
    console.print(table)
    width = max(map(len, shown.urls), default=0)
    for name, url in shown.urls.items():
        console.print(f"{name:<{width}}  {url}", soft_wrap=True)


def _environment(shown: Shown) -> str:
    """What the other commands need to work on the running lab."""
    online = shown.urls["Redis (online features)"].removeprefix("redis://")
    return f"export FLIGHTDECK_ONLINE_REDIS={online} MLFLOW_TRACKING_URI={shown.urls['MLflow']}"


def _example(layout: StateLayout, shown: Shown) -> None:
    from flightdeck.lab.background import example_request

    print(f"\nfor the other commands:\n{_environment(shown)}")
    print(f"\ntry it:\n{example_request(layout, shown.urls['API'])}\n\nstop it:\nflightdeck lab down")


def _run(layout: StateLayout, days: int, trials: int | None, doing: str) -> int:
    def tell(stack: Stack, console: Console) -> tuple[Board, Callable[[], None]]:
        from flightdeck.lab.story import STAGES, Story
        from flightdeck.progress import Board

        board = Board(list(STAGES), console)
        return board, lambda: Story(stack, board, days=days, trials=trials).run()

    return _told_live(layout, doing, tell, fresh=True, page="lab.html")


def _run_faults(layout: StateLayout) -> int:
    def tell(stack: Stack, console: Console) -> tuple[Board, Callable[[], None]]:
        from flightdeck.lab.fault_story import FaultStory, stages
        from flightdeck.progress import Board

        board = Board(stages(), console)
        return board, lambda: FaultStory(stack, board).run()

    return _told_live(layout, "flightdeck lab faults", tell, fresh=False, page="faults.html")


def _told_live(
    layout: StateLayout, doing: str, tell: Callable[[Stack, Console], tuple[Board, Callable[[], None]]], *,
    fresh: bool, page: str,
) -> int:  # fmt: skip
    """Run a story in a session of its own, drawn live; its table comes last. Returns the exit code."""
    from rich.console import Console

    from flightdeck.lab.lock import LabIsRunning
    from flightdeck.lab.session import NoRoom, session

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        with session(layout, doing, fresh=fresh, say=console.print) as stack:
            board, story = tell(stack, console)
            try:
                with board:
                    story()
            finally:
                console.print(board.table())
            console.print("stopping ...")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print("\ninterrupted; every process was stopped. Run it again: it starts afresh.", file=sys.stderr)
        return INTERRUPTED
    except (LabIsRunning, NoRoom) as error:
        print(f"flightdeck lab: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        return _told(layout, error)
    minutes, seconds = divmod(round(board.seconds), 60)
    spent = sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    console.print(f"{minutes}:{seconds:02d} minutes, {spent:.0f} s of CPU time on {os.cpu_count()} cores")
    console.print(f"report: {layout.reports / page}", soft_wrap=True)
    for sentence in board.shortfalls():
        print(sentence, file=sys.stderr)
    return 0 if board.ok else 1


def _as_interrupt(*_: object) -> None:
    raise KeyboardInterrupt
