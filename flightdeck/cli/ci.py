"""`flightdeck ci`: the gates that a push must pass, one command each."""

from __future__ import annotations

import time
from collections.abc import Callable

import typer

from flightdeck.cli import ci_champion_card, ci_data, ci_features, ci_models, ci_parts, ci_release, ci_report
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


app.command()(ci_data.data)
app.command()(ci_features.features)
app.command()(ci_models.models)
app.add_typer(ci_champion_card.app, name="champion-card")


@app.callback()
def _group() -> None:
    """Keep sub-commands, however many there are."""


def finish(judge: Callable[[], Outcome]) -> None:
    """Run one gate, time it, keep and print what it found; exit code 1 when it refuses."""
    started = time.monotonic()
    found = judge().model_copy(update={"took_s": time.monotonic() - started})
    outcome.keep(found, layout_of(None).root)
    outcome.summarise(outcome.fenced(found.text()))
    print(found.text(), flush=True)
    raise typer.Exit(0 if found.found is outcome.Found.PASSED else 1)


for _command in (ci_parts.check, ci_parts.integration, ci_parts.e2e, ci_report.report):
    app.command()(_command)
for _command in (ci_release.passed, ci_release.sign, ci_release.release):
    app.command()(_command)
app.command()(images)
app.command()(manifests)
