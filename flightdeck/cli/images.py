"""`flightdeck images`: build, push and weigh our images."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from flightdeck.cli.options import State, layout_of

app = typer.Typer(
    no_args_is_help=True,
    help="Our images: built when their content changed, pushed, named by digest.\n\n"
    "Example: flightdeck images build && flightdeck images push --registry localhost:5001/flightdeck",
)

Names = Annotated[list[str] | None, typer.Argument(help="predictor, pipelines, mlflow, operator; default: all.")]


def chosen(names: list[str] | None) -> list[str]:
    """The images that were named, all of the stack by default.

    Raises:
        typer.BadParameter: one is none of ours.
    """
    from flightdeck.cluster.names import IMAGES

    unknown = sorted(set(names or ()) - set(IMAGES))
    if unknown:
        raise typer.BadParameter(f"no image {', '.join(unknown)}; there are: {', '.join(IMAGES)}")
    return list(names or IMAGES)


@app.command()
def build(names: Names = None) -> None:
    """Build what is not there yet; an image is named by its content. Example: flightdeck images build predictor"""
    from flightdeck.cluster import images
    from flightdeck.cluster.commands import CommandFailed

    try:
        for name in chosen(names):
            built = images.build(name, tell=lambda it: print(f"... {it}", flush=True))
            print(f"{built.tag}  {built.size_mb:.0f} MB{'' if built.fresh else '  (there)'}")
    except CommandFailed as error:
        print(f"flightdeck images build: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


@app.command()
def push(
    registry: Annotated[str, typer.Option("--registry", envvar="REGISTRY", help="Host and path of the registry.")],
    names: Names = None,
    state: State = None,
) -> None:
    """Push built images and keep their digests for `flightdeck deploy`.

    Example: flightdeck images push --registry localhost:5001/flightdeck
    """
    from flightdeck.cluster import images
    from flightdeck.cluster.commands import CommandFailed

    root = layout_of(state).root
    try:
        for name in chosen(names):
            print(images.push(name, registry, state=root, tell=lambda it: print(f"... {it}", flush=True)))
    except CommandFailed as error:
        print(f"flightdeck images push: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


@app.command()
def sizes() -> None:
    """Megabytes of each image above its base, against images/budget.yaml; exit code 1 when one is over.

    Example: flightdeck images sizes
    """
    from flightdeck.cluster import images
    from flightdeck.cluster.commands import CommandFailed

    try:
        found = images.sizes()
    except CommandFailed as error:
        print(f"flightdeck images sizes: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    for it in found:
        print(
            f"{it.name:<10} {it.above_mb:6.0f} MB above the base, at most {it.budget_mb:.0f}{'' if it.ok else '  OVER'}"
        )
    raise typer.Exit(0 if all(it.ok for it in found) else 1)
