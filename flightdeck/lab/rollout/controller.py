"""Entry point: the rollout controller, `python -m flightdeck.lab.rollout.controller`. A supervised process of its own.

The tick is the operator's (services/rollout_operator/tick.py). Here stands what it moves in the lab: replicas through
the keeper's files, routes through Envoy's, artefacts from the state folder.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from flightdeck.contracts.artefact import ModelManifest, verify_artefact
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import RolloutSpec
from flightdeck.lab.rollout import replicas
from flightdeck.lab.rollout.alias import AliasCopy
from flightdeck.lab.rollout.gateway import Attempts, Gateway
from flightdeck.lab.rollout.store import Store
from services.rollout_operator.plan import Phase, State, Wanted
from services.rollout_operator.ports import Records, Seen
from services.rollout_operator.records import connect
from services.rollout_operator.tick import Rollout

TICK_S = 0.4


@dataclasses.dataclass(frozen=True)
class LabPlatform:
    """Processes of this machine behind one Envoy."""

    layout: StateLayout
    gateway: Gateway

    def look(self) -> None:
        """Each question reads the newest file by itself."""

    def seen(self, release: Release | None) -> Seen:
        """As the keeper saw them."""
        found = replicas.observed_of(self.layout, release)
        return Seen(len(found.ready), found.running, found.deaths, found.last_death)

    def routed(self, candidate: Release | None) -> tuple[int, bool]:
        """As Envoy says."""
        return self.gateway.routed(candidate.id if candidate else None)

    def attempts(
        self, champion: Release, candidate: Release, *, copies: bool
    ) -> tuple[Mapping[str, Attempts], Mapping[str, Attempts]]:
        """One look at Envoy's counters."""
        counted = self.gateway.attempts()
        return counted.of(champion.id), counted.of(candidate.id, mirrored=copies)

    def manifest(self, release: Release) -> ModelManifest:
        """Of the release's model, checked to the last byte."""
        return verify_artefact(self.layout.artefacts / release.model.sha256, release.model.sha256)

    def make_true(self, spec: RolloutSpec, state: State, wanted: Wanted) -> None:
        """The gateway first: no replica goes before it knows."""
        champion = replicas.observed_of(self.layout, state.champion)
        candidate = replicas.observed_of(self.layout, state.candidate)
        if state.champion is None:
            if state.candidate and wanted.weight == 100:  # the first release: nobody else could answer
                self.gateway.route(state.candidate.id, candidate.ready)
            elif state.phase is Phase.ABORTING:
                self.gateway.clear()
        elif champion.running or candidate.running:
            taken = candidate.ready if state.candidate else ()
            self.gateway.route(
                state.champion.id, champion.ready, state.candidate.id if state.candidate and taken else None, taken,
                weight=wanted.weight, mirror=wanted.mirror,
            )  # fmt: skip
        pairs = ((state.champion, wanted.champion_replicas), (state.candidate, wanted.candidate_replicas))
        replicas.want(self.layout, [(release, count) for release, count in pairs if release and count])


def rollout_of(name: str, store: Store, layout: StateLayout, gateway: Gateway, records: Records) -> Rollout:
    """A rollout of the lab."""
    return Rollout(name, store, LabPlatform(layout, gateway), records)


def main() -> int:
    """Tick until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    layout = StateLayout.from_env()
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    store = Store(layout.rollouts)
    gateway = Gateway(layout.run / "envoy", int(os.environ["FLIGHTDECK_GATEWAY_ADMIN_PORT"]))
    alias = AliasCopy(layout, os.environ["MLFLOW_TRACKING_URI"])
    rollout: Rollout | None = None
    alive = layout.run / "rollouts.alive"
    while not end.wait(TICK_S):
        if rollout is None and (name := store.served()):
            records = connect(os.environ["FLIGHTDECK_STREAMS_REDIS"])
            rollout = rollout_of(name, store, layout, gateway, records)
        if rollout is not None:
            rollout.tick(time.time())
            if rollout.status.state and rollout.status.state.champion:
                alias.keep(rollout.status.state.champion.model)
        _touch(alive)
    return 0


def _touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


if __name__ == "__main__":
    sys.exit(main())
