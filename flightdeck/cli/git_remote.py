"""`flightdeck git-remote`: a local remote whose hooks are CI and CD."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from flightdeck.cli.options import State, layout_of

app = typer.Typer(help="A local remote: `git push flightdeck main` is tested, then deployed, without GitHub.")


@app.command()
def git_remote(
    path: Annotated[
        Path | None, typer.Option("--path", help="Of the bare repository; default: NAME.git beside the checkout.")
    ] = None,
    state: State = None,
) -> None:
    """Make a bare repository with hooks, and the remote `flightdeck` that leads to it.

    Safe to repeat, also to renew the hooks. A push runs its code as you: push only what you would run.

    Example: flightdeck git-remote && git push flightdeck main
    """
    from flightdeck.delivery.remote.install import REMOTE, Refused, make

    try:
        made = make(Path.cwd(), path=path, state=layout_of(state).root)
    except Refused as error:
        print(f"flightdeck git-remote: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(f"{made.bare}: {'made' if made.new else 'there already'}, hooks renewed; remote `{REMOTE}`")
    runner = "the workflow itself, with act" if shutil.which("act") else "`make ci` (no act on the PATH)"
    print(f"  git push {REMOTE} BRANCH   runs CI: {runner}; red turns the push back")
    print(f"  git push {REMOTE} main     the same, then `make deliver ENVIRONMENT=dev` to the current cluster")
    print("A push runs its code as you, on this machine: push only what you would run.")
