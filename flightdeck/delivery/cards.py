"""What serves in an environment, published for CI: champion_card.py makes and publishes it, here it is asked for."""

from __future__ import annotations

import datetime as dt
import importlib
import os
from collections.abc import Mapping
from pathlib import Path

import httpx

from flightdeck.cluster.champion import PUBLIC
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import ENVIRONMENT, PLATFORM, SERVING
from flightdeck.contracts import approval
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.ledger import Serving
from flightdeck.delivery import training
from flightdeck.delivery.users import FellShort

CARD_ENV = "FLIGHTDECK_CHAMPION_CARD"
MAKER = "flightdeck.delivery.champion_card"


def publish_card(models: Mapping[str, Serving], kubectl: Kubectl, state: Path) -> str:
    """Publish the champion card where FLIGHTDECK_CHAMPION_CARD says; what was done, in words.

    Raises:
        FellShort: it cannot be made or published, with the reason; CI would go on comparing with what served before.
    """
    reference = os.environ.get(CARD_ENV, "")
    if not reference:
        return f"{CARD_ENV} is not set: no champion card is published, and CI compares with none"
    try:
        maker = importlib.import_module(MAKER)
        features = importlib.import_module("pipelines.features.registry")
    except ModuleNotFoundError as error:
        return f"NOT PUBLISHED: {error.name} is not there"
    served = {name: it.release.model.version for name, it in models.items() if it.release}
    try:
        keys = approval.keys_in(kubectl.get("configmap", PUBLIC, "-n", SERVING)["data"]["signing.pub"])
        releases, read = maker.releases_in(kubectl("get", "modelrollouts.flightdeck.dev", "-n", SERVING, "-o", "json"))
        with forward(kubectl, PLATFORM, "mlflow", 5000) as tracking:
            signed = [training.signed_card(tracking, name, version) for name, version in served.items()]
        card = maker.collect(
            signed, maker.registered_here(StateLayout(state), definitions=True), environment=ENVIRONMENT.name,
            trusted=keys, releases=releases, still_read=features.protected_services(read),
            now_utc=dt.datetime.now(dt.UTC),
        )  # fmt: skip
        return f"published {maker.publish(card, reference)}"
    except (httpx.HTTPError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise FellShort(f"no champion card at {reference}: {type(error).__name__}: {error}") from error
