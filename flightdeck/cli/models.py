"""`flightdeck models`: registered versions, their cards and artefacts; and what `train` and `gate` share with it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from flightdeck.cli.options import State, layout_of

app = typer.Typer(
    no_args_is_help=True,
    help="Registered models.\n\nExample: flightdeck models list && flightdeck models verify late champion",
)

Tracking = Annotated[str | None, typer.Option("--tracking-uri", help="MLflow server; else $MLFLOW_TRACKING_URI.")]
Name = Annotated[str, typer.Argument(help="Model name.")]
Version = Annotated[str, typer.Argument(help="Version number, or `champion`.")]


@contextlib.contextmanager
def told(command: str) -> Iterator[None]:
    """Expected failures end the command with their words instead of a traceback; exit code 5."""
    from pipelines.data.lake import LakeError
    from pipelines.features.export import ExportError
    from pipelines.features.registry import RegistryError
    from pipelines.features.training_frame import TrainingFrameError
    from pipelines.registry.mlflow_adapter import RegistryRefused, RegistryUnavailable
    from pipelines.registry.oci import PushFailed
    from pipelines.registry.versions import NotPromotable

    try:
        yield
    except (
        RegistryUnavailable, RegistryRefused, NotPromotable, LakeError, ExportError, RegistryError, TrainingFrameError,
        PushFailed, ValueError, OSError,
    ) as error:  # fmt: skip
        print(f"flightdeck {command}: {error}", file=sys.stderr)
        raise typer.Exit(5) from error


@app.command("list")
def list_versions(
    name: Annotated[str | None, typer.Argument(help="Only this model.")] = None, tracking_uri: Tracking = None
) -> None:
    """Every registered version with verdict, digest and reason. Example: flightdeck models list late"""
    with told("models list"):
        from pipelines.registry.mlflow_adapter import CHAMPION, MlflowRegistry, tracking_uri_or_env

        registry = MlflowRegistry(tracking_uri_or_env(tracking_uri))
        found = registry.versions(name)
        champions = {item.name: registry.alias(item.name, CHAMPION) for item in found}
        for item in found:
            top = champions[item.name]
            star = "champion" if top is not None and str(top.version) == str(item.version) else ""
            tags = dict(item.tags)
            reason = tags.get("reason", "never gated")
            print(
                f"{item.name} v{item.version}  {tags.get('verdict', '-'):<8}{star:<9} {tags.get('sha256', '-')[:12]}  "
                f"until {tags.get('until_utc', '-')[:10]}  {reason[:110]}"
            )
        if not found:
            print("no registered versions" + (f" of {name}" if name else ""))


@app.command()
def show(name: Name, version: Version, state: State = None, tracking_uri: Tracking = None) -> None:
    """The signed card of a version, as JSON. Example: flightdeck models show late champion"""
    with told("models show"):
        from pipelines.registry.versions import verify_version

        print(verify_version(name, version, layout_of(state), tracking_uri=tracking_uri).card.model_dump_json(indent=2))


@app.command()
def verify(
    name: Name,
    version: Version,
    public_key: Annotated[
        str | None, typer.Option("--public-key", help="Trusted Ed25519 key, hex; else this installation's own.")
    ] = None,
    state: State = None,
    tracking_uri: Tracking = None,
) -> None:
    """Check signature of the card, every byte of the artefact, and the gate's approval.

    Exit code 5 also when the card says PROMOTE and no release of the version would be let in.

    Example: flightdeck models verify late 3
    """
    with told("models verify"):
        from flightdeck.contracts.decision import Verdict
        from pipelines.registry.versions import verify_version

        found = verify_version(name, version, layout_of(state), tracking_uri=tracking_uri, public_key=public_key)
        print(
            f"{found.ref.name} v{found.ref.version}: card signed by the trusted key, artefact {found.ref.sha256} whole"
        )
        if not found.unapproved:
            print("approved by the gate: a release of it is let in")
        elif found.card.verdict is Verdict.PROMOTE:
            raise ValueError(f"{found.ref.name} v{found.ref.version} says PROMOTE, but {found.unapproved}")
        else:
            print(f"not approved: its card says {found.card.verdict.value}")


@app.command()
def fetch(name: Name, version: Version, state: State = None, tracking_uri: Tracking = None) -> None:
    """Download a version's artefact into the store, checked. Example: flightdeck models fetch late champion"""
    with told("models fetch"):
        from pipelines.registry import versions

        ref = versions.find_version(name, version, tracking_uri=tracking_uri)
        print(versions.fetch(ref, layout_of(state), tracking_uri=tracking_uri))


@app.command()
def promote(name: Name, version: Version, state: State = None, tracking_uri: Tracking = None) -> None:
    """Make a version that passed the gates the champion. Example: flightdeck models promote late 3"""
    with told("models promote"):
        from pipelines.registry import versions

        ref = versions.find_version(name, version, tracking_uri=tracking_uri)
        versions.promote(ref, layout=layout_of(state), tracking_uri=tracking_uri)
        print(f"champion of {ref.name} is v{ref.version}")
