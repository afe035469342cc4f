"""The champion card of an environment, published for CI; the card itself is made in champion_card.py."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping

from flightdeck.cluster.commands import Kubectl
from flightdeck.contracts.ledger import Serving

CARD_ENV = "FLIGHTDECK_CHAMPION_CARD"


def publish_card(models: Mapping[str, Serving], kubectl: Kubectl) -> str:
    """Publish the champion card where FLIGHTDECK_CHAMPION_CARD says; what was done, in words."""
    reference = os.environ.get(CARD_ENV, "")
    if not reference:
        return f"{CARD_ENV} is not set: no champion card is published, and CI compares with none"
    try:
        module = importlib.import_module("flightdeck.delivery.champion_card")
    except ModuleNotFoundError:
        return "NOT PUBLISHED: this version has no champion card"
    releases = {name: it.release for name, it in models.items() if it.release}
    module.publish(module.of_cluster(kubectl, releases), reference)
    return f"{reference}: {json.dumps({name: it.model.version for name, it in releases.items()})}"
