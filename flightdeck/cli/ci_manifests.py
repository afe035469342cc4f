"""`flightdeck ci manifests`."""

from __future__ import annotations

from typing import Annotated

import typer


def manifests(
    rate: Annotated[
        list[float] | None, typer.Option("--rate", min=0.001, help="Requests per second that plans must decide at.")
    ] = None,
) -> None:
    """Render every overlay, hold it to its schemas and to the rules, lint every rollout plan, check the alert rules.

    Example: flightdeck ci manifests --rate 20
    """
    from flightdeck.cli.ci import finish
    from flightdeck.cluster.names import CHECKOUT
    from flightdeck.delivery.manifests import gate

    finish(lambda: gate.judge(root=CHECKOUT, rates_per_s=tuple(rate or gate.RATES_PER_S)))
