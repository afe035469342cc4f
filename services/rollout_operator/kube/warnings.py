"""A Warning Event on a ModelRollout that is no transition: something that a person should know of. One per key."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from services.rollout_operator.kube import status
from services.rollout_operator.kube.api import Api, Refused
from services.rollout_operator.ports import Unavailable

logger = logging.getLogger("flightdeck.rollout")


def warning(rollout: Mapping[str, Any], reason: str, message: str, key: str, at_s: float) -> dict[str, Any]:
    """The Event.

    Args:
        reason: one word for programs. key: told twice with the same key, it is still one Event. at_s: Unix time.
    """
    digest = hashlib.sha256(f"{reason} {key}".encode()).hexdigest()[:10]
    return status.event_of(rollout, name=digest, reason=reason, message=message, warning=True, at_s=at_s)


def tell(api: Api, rollout: Mapping[str, Any], reason: str, message: str, *, key: str = "") -> None:
    """Into the log, and as an Event where the API server takes it: it is for people, and nothing waits for it.

    Args:
        key: as in `warning`; else the message is the key.
    """
    logger.warning("%s: %s", rollout["metadata"]["name"], message)
    try:
        api.create(warning(rollout, reason, message, key or message, time.time()))
    except (Unavailable, Refused) as error:  # Conflict as well: it was told already
        logger.info("%s: no Event %s: %s", rollout["metadata"]["name"], reason, error)
