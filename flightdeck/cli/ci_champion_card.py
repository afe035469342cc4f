"""`flightdeck ci champion-card`: what serves, written where CI finds it without a cluster."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from flightdeck.cli.models import Tracking
from flightdeck.cli.options import State, layout_of

app = typer.Typer(
    no_args_is_help=True,
    help="What serves, as a document that CI reads without a cluster: metrics, holdout, features.\n\n"
    "Example: flightdeck ci champion-card publish --to ghcr.io/acme/flightdeck/champion-card:dev",
)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Expected failures end the command with their words."""
    from flightdeck.delivery.champion_card import CardRefused, CardUnreadable
    from pipelines.features.registry import RegistryError
    from pipelines.registry.distribution import RegistryFailed
    from pipelines.registry.mlflow_adapter import RegistryRefused, RegistryUnavailable

    try:
        yield
    except (
        CardRefused, CardUnreadable, RegistryError, RegistryFailed, RegistryRefused, RegistryUnavailable, ValueError,
        OSError,
    ) as error:  # fmt: skip
        print(f"flightdeck ci champion-card: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


@app.command()
def publish(  # noqa: PLR0917  Typer reads the signature
    to: Annotated[
        str | None, typer.Option("--to", help="REGISTRY/NAME:TAG, or a file; else $FLIGHTDECK_CHAMPION_CARD.")
    ] = None,
    environment: Annotated[str, typer.Option("--environment", help="Which one serves so.")] = "dev",
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Its champion in MLflow; may be repeated. Default: late.")
    ] = None,
    card: Annotated[
        list[Path] | None,
        typer.Option("--card", help="A signed model card's file, instead of asking MLflow; may be repeated."),
    ] = None,
    rollouts: Annotated[
        Path | None,
        typer.Option(
            "--rollouts", help="What `kubectl get modelrollouts -A -o json` printed: releases and what they read."
        ),
    ] = None,
    definitions: Annotated[
        bool, typer.Option("--definitions", help="The checkout's feature definitions, instead of the registry's.")
    ] = False,
    state: State = None,
    tracking_uri: Tracking = None,
) -> None:
    """Write the champion card; only cards that a trusted key signed go in.

    Example: flightdeck ci champion-card publish --to ./champion-card.json --tracking-uri http://127.0.0.1:5000
    """
    with _told():
        import datetime as dt

        from flightdeck.delivery import champion_card
        from pipelines.features.registry import protected_services
        from pipelines.registry.mlflow_adapter import tracking_uri_or_env

        layout, where = layout_of(state), to or os.environ.get(champion_card.REFERENCE_ENV)
        if not where:
            raise ValueError(
                "where to? --to ghcr.io/OWNER/flightdeck/champion-card:dev, or a file ending in .json, or set "
                + champion_card.REFERENCE_ENV
            )
        trusted = champion_card.trusted_here(layout)
        releases, read = champion_card.releases_in(rollouts.read_text()) if rollouts else ({}, ())
        if card:
            signed = [champion_card.read_signed(path) for path in card]
        else:
            names = model or sorted(releases) or ["late"]
            signed = champion_card.registered_cards(names, tracking_uri_or_env(tracking_uri), trusted, releases)
        made = champion_card.collect(
            signed, champion_card.registered_here(layout, definitions=definitions), environment=environment,
            trusted=trusted, releases=releases, still_read=protected_services(read), now_utc=dt.datetime.now(dt.UTC),
        )  # fmt: skip
        print(f"champion card of {environment}: {champion_card.publish(made, where)}")


@app.command()
def show(
    reference: Annotated[str | None, typer.Argument(help="Else $FLIGHTDECK_CHAMPION_CARD.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it.")] = False,
) -> None:
    """Print what serves. Example: flightdeck ci champion-card show ./champion-card.json"""
    with _told():
        from flightdeck.cli.options import show_table
        from flightdeck.delivery import champion_card

        found = champion_card.wanted(reference)
        if found is None:
            raise ValueError(f"which card? name one, or set {champion_card.REFERENCE_ENV}")
        if as_json:
            print(found.model_dump_json(indent=1))
            return
        print(f"{found.environment}, written {found.written_at:%Y-%m-%d %H:%M} UTC, {len(found.registry)} objects")
        rows = [
            (
                f"{name} v{it.version}", it.model_card.feature_service, it.holdout_sha256[:12],
                ", ".join(f"{key} {each.value:.4f}" for key, each in it.metrics.items() if each.value is not None),
            )
            for name, it in found.models.items()
        ]  # fmt: skip
        show_table(("model", "reads", "holdout", "metrics"), rows)
        print(f"feature services that are still read: {', '.join(found.protected)}")
