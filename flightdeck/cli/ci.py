"""`flightdeck ci`: the gates that a push must pass, one command each."""

from __future__ import annotations

import time
from collections.abc import Callable

import typer

from flightdeck.cli.ci_images import images
from flightdeck.cli.ci_manifests import manifests
from flightdeck.cli.options import layout_of
from flightdeck.delivery import outcome
from flightdeck.delivery.outcome import Outcome

app = typer.Typer(
    no_args_is_help=True,
    help="The gates that a push must pass; each exits 1 when it refuses, says what to do, and keeps its outcome under "
    "ci/ of the state folder for the pull request's comment.\n\nExample: flightdeck ci features",
)


@app.callback()
def _group() -> None:
    """Keep sub-commands, however many there are."""


def finish(judge: Callable[[], Outcome]) -> None:
    """Run one gate, time it, keep and print what it found; exit code 1 when it refuses."""
    started = time.monotonic()
    found = judge().model_copy(update={"took_s": time.monotonic() - started})
    outcome.keep(found, layout_of(None).root)
    outcome.summarise(f"```text\n{found.text()}\n```")
    print(found.text(), flush=True)
    raise typer.Exit(0 if found.found is outcome.Found.PASSED else 1)


app.command()(images)
app.command()(manifests)
