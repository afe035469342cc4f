"""Adapter: MLflow's alias `champion`, a copy of the rollout's champion for people and tools, repaired until it agrees.

A rollout never waits for it: MLflow may be down. It is set by `flightdeck models promote`, in a process of its own, so
that the rule stands (only a PROMOTE verdict on a signed card gets the alias) and the controller imports no MLflow.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from flightdeck.contracts.layout import STATE_ENV, StateLayout
from flightdeck.contracts.release import ModelRef

REPEAT_S, LONGEST_REPEAT_S = 15.0, 600.0  # twice as long after each refusal
_QUIETLY = 15  # added to the niceness: nobody waits for it


class AliasCopy:
    """Keeps the alias on a model version, one process at a time."""

    def __init__(self, layout: StateLayout, tracking_uri: str) -> None:
        self._layout, self._tracking_uri = layout, tracking_uri
        self._set: ModelRef | None = None
        self._wanted: ModelRef | None = None
        self._running: subprocess.Popen[bytes] | None = None
        self._next_s, self._pause_s = 0.0, REPEAT_S

    def keep(self, champion: ModelRef) -> None:
        """Call at every tick; returns at once."""
        if self._running is not None:
            code = self._running.poll()
            if code is None:
                return
            self._running = None
            if code == 0:
                self._set, self._pause_s = self._wanted, REPEAT_S
            else:
                self._next_s = time.monotonic() + self._pause_s
                self._pause_s = min(2 * self._pause_s, LONGEST_REPEAT_S)
        if champion == self._set or time.monotonic() < self._next_s:
            return
        self._wanted = champion
        argv = [sys.executable, "-m", "flightdeck.cli", "models", "promote", champion.name, champion.version]
        self._running = subprocess.Popen(
            argv, env={**os.environ, STATE_ENV: str(self._layout.root), "MLFLOW_TRACKING_URI": self._tracking_uri},
            stdin=subprocess.DEVNULL, preexec_fn=lambda: os.nice(_QUIETLY),  # noqa: PLW1509 - one thread, no locks
        )  # fmt: skip
