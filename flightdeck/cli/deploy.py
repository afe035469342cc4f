"""`flightdeck deploy`: bring an overlay to the cluster."""

from __future__ import annotations

from typing import Annotated

import typer

from flightdeck.cli.options import State, kubectl_of, layout_of

app = typer.Typer(add_completion=False)


@app.command(
    help="Check an overlay of k8s/ against the API server, then apply it and wait until every part is ready.\n\n"
    "Refused before anything is touched when a manifest has a wrong key; one deploy at a time. Images are those of "
    "`flightdeck images push`, by digest.\n\nExample: flightdeck deploy --overlay kind"
)
def deploy(  # noqa: PLR0917  Typer reads the signature
    overlay: Annotated[str, typer.Option("--overlay", help="Folder under k8s/overlays.")] = "kind",
    context: Annotated[str | None, typer.Option("--context", help="kubectl context; else the current one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check.")] = False,
    wait_s: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until all is ready.")] = 600.0,
    yes: Annotated[bool, typer.Option("--yes", help="Also when the context looks like production.")] = False,
    state: State = None,
) -> None:
    """Deploy one overlay."""
    from flightdeck.cluster import overlays
    from flightdeck.cluster.commands import CommandFailed
    from flightdeck.cluster.deploy import DeployRefused
    from flightdeck.cluster.manifests import ManifestError
    from flightdeck.cluster.names import PLATFORM, SERVING
    from flightdeck.cluster.readiness import NotReady, wait_ready
    from flightdeck.cluster.target import Refused

    layout = layout_of(state)
    try:
        kubectl = kubectl_of(context, sure=yes or dry_run)
        changed = overlays.bring(kubectl, overlay, layout.root, tell=lambda it: print(f"... {it}"), dry_run=dry_run)
        if dry_run:
            print(f"{overlay}: the API server accepts all of it")
            return
        print("\n".join(changed) if changed else "nothing changed")
        parts = wait_ready(kubectl, (PLATFORM, SERVING), timeout_s=wait_s)
        print(f"{len(parts)} parts ready")
    except (CommandFailed, DeployRefused, ManifestError, NotReady, Refused) as error:
        typer.echo(f"flightdeck deploy: {error}", err=True)
        raise typer.Exit(1) from error
