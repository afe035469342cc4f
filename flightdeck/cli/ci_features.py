"""`flightdeck ci features`: may these feature definitions follow those that serve?"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from flightdeck.delivery.outcome import Outcome


def features(
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Label of the pull request; may be repeated. Added to $FLIGHTDECK_LABELS."),
    ] = None,
) -> None:
    """Definitions against the champion card's registry: what a serving release reads can never be taken away.

    Another destructive change needs the label features:destructive. Example: flightdeck ci features
    """

    from flightdeck.cli.ci import finish

    def judge() -> Outcome:
        from flightdeck.delivery import feature_gate
        from flightdeck.delivery import features as gate
        from flightdeck.delivery.specs import shipped
        from pipelines.features.registry import protected_services

        labels = feature_gate.labels_of(label or (), os.environ.get(feature_gate.LABELS_ENV, ""))
        specs, broken = shipped()
        if broken:
            return Outcome(gate=feature_gate.GATE, findings=broken)
        return gate.check(specs, labels, protected_services())

    finish(judge)
