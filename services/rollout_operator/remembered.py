"""What is kept of a rollout beside its State: what people see, what the next process goes on from, evidence, looks."""

from __future__ import annotations

import msgspec

from flightdeck.contracts.release import Release
from services.rollout_operator.state import Phase, State
from services.rollout_operator.verdict import Judgement


class Status(msgspec.Struct):
    """What the controller tells of a rollout, and goes on from after a kill.

    Args:
        rollout: the ModelRollout, as YAML, whose plan and judge are in force: while one runs, those it began with.
        judgement: the last one. weight: per cent that the gateway sends to the candidate.
        orders_done: number of the last order that was obeyed.
        replicas: in force, of champion and candidate each. champion_running: pods that exist, ready or not.
        releases: that were champion, newest first, for `undo`.
        doubt: why the evidence may be incomplete; empty when nothing speaks for it.
    """

    name: str
    state: State | None = None
    judgement: Judgement | None = None
    rollout: str = ""
    weight: int = 0
    mirrored: bool = False
    champion_ready: int = 0
    candidate_ready: int = 0
    replicas: int = 0
    champion_running: int = 0
    orders_done: int = 0
    updated_at_s: float = 0.0
    controller_pid: int = 0
    releases: list[Release] = []
    doubt: str = ""


class Look(msgspec.Struct, frozen=True):
    """One look of the judge, for the evidence page. `started_s` says of which rollout, `weight` is per cent."""

    at_s: float
    started_s: float
    phase: Phase
    step: int
    weight: int
    judgement: Judgement


class KeptEvidence(msgspec.Struct, frozen=True):
    """What was collected, and up to which entry of each stream: one value, so that neither can be without the other."""

    started_s: float
    cursors: dict[str, str]
    dump: bytes
