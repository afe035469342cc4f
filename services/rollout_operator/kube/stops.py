"""The emergency stop for all rollouts of a namespace: a ConfigMap that is there, or is not.

    kubectl create configmap rollouts-stopped --from-literal=reason="bad feature data" --from-literal=by=ann
    kubectl delete configmap rollouts-stopped

One object: a stop is one write however many rollouts there are, and holds for those that are made later. Only rollouts
that run or are about to begin have it read, together once in two seconds; a watch tells it sooner and costs nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from services.rollout_operator.kube.api import Api, Refused
from services.rollout_operator.state import CONTROLLER, Stop

logger = logging.getLogger("flightdeck.rollout")
NAME = "rollouts-stopped"
FRESH_S = 2.0


def stop_of(document: Mapping[str, Any] | None) -> Stop | None:
    """What a ConfigMap says; None without one."""
    if document is None:
        return None
    said = document.get("data") or {}
    return Stop(str(said.get("by", "")).strip() or "kubectl", str(said.get("reason", "")).strip() or "no reason given")


class Stops:
    """What is known of it, for all rollouts of this process."""

    def __init__(self, api: Api, clock: Callable[[], float] = time.monotonic) -> None:
        self.api, self.clock = api, clock
        self.found: Stop | None = None
        self.asked_s = float("-inf")
        self.heard = 0  # how often the watch told
        self.lock = threading.Lock()

    def told(self, document: Mapping[str, Any] | None) -> None:
        """By the watch."""
        self.heard += 1
        self.found, self.asked_s = stop_of(document), self.clock()

    def now(self, *, needed: bool) -> Stop | None:
        """The stop, None while there is none.

        Args:
            needed: something depends on it; else what is known already is enough.

        Raises:
            Unavailable: the API server does not answer.
        """
        with self.lock:
            if needed and self.clock() - self.asked_s >= FRESH_S:
                heard = self.heard
                try:
                    found = stop_of(self.api.read("ConfigMap", NAME))
                    if heard == self.heard:  # else the watch told meanwhile, of something newer
                        self.found = found
                except Refused as error:
                    # What runs is protected all the same; what would begin waits: a gate that cannot be read is shut.
                    words = f"whether they are stopped cannot be read: {error}"
                    logger.warning("%s", words)
                    self.found = self.found or Stop(CONTROLLER, words, aborts=False)
                self.asked_s = self.clock()
            return self.found
