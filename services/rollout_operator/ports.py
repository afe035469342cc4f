"""What a rollout's tick needs of the world around it. The lab has one set of adapters, the cluster another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from flightdeck.contracts.artefact import ModelManifest
from flightdeck.contracts.model_spec import Task
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import ModelRollout, RolloutSpec
from services.rollout_operator.evidence import Attempts
from services.rollout_operator.remembered import KeptEvidence, Look, Status
from services.rollout_operator.state import Order, State, Stop, Transition, Wanted


class Unavailable(OSError):
    """Something outside does not answer, or not with what it should; the next tick asks again."""


class Seen(msgspec.Struct, frozen=True):
    """The replicas of one release.

    Args:
        ready: that can answer. running: that exist in any state. deaths: of its replicas since it was first wanted.
        last_death: how the last one died, or why one cannot start; empty when none did.
    """

    ready: int = 0
    running: int = 0
    deaths: int = 0
    last_death: str = ""


class Store(Protocol):
    """What people want of a rollout, and what is remembered of it. Every method may raise an OSError."""

    def wanted(self, name: str) -> ModelRollout:
        """What is wanted now. Raises ValueError when it breaks the schema."""

    def orders_after(self, name: str, number: int) -> list[tuple[int, Order]]:
        """Orders that were not obeyed yet, by number, oldest first."""

    def stopped(self, name: str) -> Stop | None:
        """The emergency stop of all rollouts; None while there is none."""

    def read_status(self, name: str) -> Status | None:
        """What was remembered last; None before the first tick."""

    def write_status(self, status: Status) -> None:
        """Remember it. Returns once it is kept: what follows from it happens afterwards."""

    def record(self, name: str, transitions: Sequence[Transition]) -> None:
        """Add to the history; called before the status that they led to is written."""

    def look(self, name: str, look: Look) -> None:
        """Keep a look of the judge, where there is room for such."""

    def save_evidence(self, name: str, started_s: float, cursors: dict[str, str], dump: bytes) -> None:
        """Keep evidence and cursors in one move."""

    def load_evidence(self, name: str) -> KeptEvidence | None:
        """What was saved last; None without one, or when another version wrote it."""


class Records(Protocol):
    """The prediction log and the outcomes since a cursor. Every method may raise Unavailable; then nothing is lost."""

    cursors: dict[str, str]

    def skip_to_now(self) -> None:
        """Forget what was said before this moment."""

    def predictions(self) -> list[PredictionRecord]:
        """New ones."""

    def outcomes(self, task: Task) -> dict[str, float]:
        """entity_id -> what became known."""


class Platform(Protocol):
    """Where releases run, and the gateway before them. Every method may raise an OSError."""

    def look(self) -> None:
        """At the beginning of a tick: what is told in it is of this moment."""

    def seen(self, release: Release | None) -> Seen:
        """Its replicas."""

    def routed(self, candidate: Release | None) -> tuple[int, bool]:
        """The candidate's weight of 100, and whether it gets copies, as the gateway has taken it."""

    def attempts(
        self, champion: Release, candidate: Release, *, copies: bool
    ) -> tuple[Mapping[str, Attempts], Mapping[str, Attempts]]:
        """Cumulative counters of either release by counter; of the candidate's those of copies only, or of users only.

        Each is one counter of the gateway that can begin anew by itself.
        """

    def manifest(self, release: Release) -> ModelManifest:
        """Of the release's model, checked against its digest. Raises ValueError when it is another."""

    def make_true(self, spec: RolloutSpec, state: State, wanted: Wanted) -> None:
        """Routes and replicas; safe to repeat. Tells the gateway before it retires a replica, else retires none."""
