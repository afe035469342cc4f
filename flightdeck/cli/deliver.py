"""`flightdeck deliver`: a commit to the users of one environment."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flightdeck.cli.options import State, in_environment, layout_of

if TYPE_CHECKING:
    from flightdeck.progress import Board

app = typer.Typer(add_completion=False)
INTERRUPTED = 130


@app.command(
    help="Carry the checkout to the users of one environment: images, deploy, smoke, a short load test, training where "
    "what a model is made from changed, canary, ledger.\n\nWhat falls short before the canary is rolled back to the "
    "last recorded delivery. Safe to repeat: a delivery that was stopped is gone on with.\n\n"
    "Example: flightdeck deliver --environment dev"
)
def deliver(
    *,
    environment: Annotated[
        str, typer.Option("--environment", envvar="FLIGHTDECK_ENVIRONMENT", help="One of k8s/environments.yaml.")
    ] = "dev",
    digests: Annotated[
        Path | None,
        typer.Option("--digests", exists=True, dir_okay=False, help="Deliver these images (images.json), build none."),
    ] = None,
    cluster: Annotated[
        str | None, typer.Option("--cluster", help="kind or minikube: made where no cluster answers.")
    ] = None,
    overlay: Annotated[
        str | None, typer.Option("--overlay", help="Folder under k8s/overlays, instead of the environment's.")
    ] = None,
    allow_older: Annotated[
        bool, typer.Option("--allow-older", help="Also a commit older than what was delivered last.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for another delivery to this environment.")
    ] = 3600.0,
    yes: Annotated[bool, typer.Option("--yes", help="Also when the context looks like production.")] = False,
    state: State = None,
) -> None:
    """One delivery. Exit code 0: all of it serves, 1: it does not, and why, 130: ctrl-C; run it again to go on."""
    in_environment(environment)
    from flightdeck.delivery.deliver import STAGES, Asked, Delivery, Stopped
    from flightdeck.progress import Board

    layout = layout_of(state)
    board = Board(list(STAGES), title=f"Delivery to {environment}")
    try:
        asked = Asked(
            digests=_digests(digests), cluster=cluster or None, overlay=overlay or None, allow_older=allow_older,
            sure=yes, wait_s=wait_s,
        )  # fmt: skip
        signal.signal(signal.SIGTERM, _as_interrupt)  # a workflow that is cancelled
        delivery = Delivery(layout.root, board, asked)
        with board:
            record = delivery.run()
    except KeyboardInterrupt:
        _tell(board)
        print(
            f"\nstopped in the middle. What served before keeps serving; run the same again to go on (make deliver "
            f"ENVIRONMENT={environment}), or go back: flightdeck release undo",
            file=sys.stderr,
        )
        raise typer.Exit(INTERRUPTED) from None
    except (Stopped, ValueError) as error:
        _tell(board)
        print(f"\nflightdeck deliver: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    _tell(board)
    print(f"\ndelivery {record.number} to {record.environment}: {record.verdict}: {record.reason}")
    raise typer.Exit(0 if board.ok else 1)


def _digests(path: Path | None) -> dict[str, str] | None:
    import json

    from flightdeck.cluster.names import IMAGES
    from flightdeck.delivery.decisions import digests_in

    if path is None:
        return None
    try:
        return digests_in(json.loads(path.read_text()), IMAGES)
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _as_interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _tell(board: Board) -> None:
    """What happened, then how long it took."""
    from flightdeck.contracts.ledger import StageTime
    from flightdeck.delivery import outcome
    from flightdeck.delivery.decisions import timetable

    board.console.print(board.table())
    took = [StageTime(name=it.name, seconds=it.seconds) for it in board.stages.values() if it.started]
    if took:
        text = "\n".join(timetable(took))
        print(f"\nSeconds by stage:\n{text}")
        outcome.summarise(outcome.fenced(text))
