"""What a rollout remembers, sees, is told and wants: the types of plan.py, and the JSON of its State."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

from flightdeck.contracts.release import Release

CONTROLLER = "controller"


class Phase(enum.StrEnum):
    """Where a rollout is."""

    PENDING = "pending"  # the candidate's replicas start; no user sees them
    SHADOW = "shadow"
    CANARY = "canary"
    PROMOTING = "promoting"  # the weight goes to 100; the champion still stands by
    DONE = "done"
    ABORTING = "aborting"  # the weight goes to 0, then the candidate's replicas go
    ABORTED = "aborted"
    PAUSED = "paused"


RUNNING = frozenset({Phase.PENDING, Phase.SHADOW, Phase.CANARY, Phase.PROMOTING, Phase.PAUSED})
ENDED = frozenset({Phase.DONE, Phase.ABORTED})


class Paused(msgspec.Struct, frozen=True):
    """What was paused, and how many seconds of its deadline were used."""

    phase: Phase
    elapsed_s: float


class State(msgspec.Struct, frozen=True):
    """All that a rollout remembers; `dump` and `load` keep it.

    Args:
        step: index into the plan in SHADOW and CANARY, also while paused there; else None.
        refused: the last candidate sent home for its own fault or by order; not tried again by itself.
        since_s, started_s: Unix time at which the phase or step, and the rollout, began.
        holding: why it stays after a deadline; empty when it does not.
        reason: of the last change, a sentence.
        serial: entries of the history so far.
    """

    phase: Phase
    since_s: float
    started_s: float
    champion: Release | None = None
    candidate: Release | None = None
    queued: Release | None = None
    refused: Release | None = None
    step: int | None = None
    paused: Paused | None = None
    holding: str = ""
    reason: str = ""
    serial: int = 0

    @property
    def works_in(self) -> Phase:
        """The phase, or the one that is paused."""
        return self.paused.phase if self.paused else self.phase


class Stop(msgspec.Struct, frozen=True):
    """A person's word to all rollouts at once: what runs is aborted, and nothing begins until it is lifted.

    Args:
        aborts: False when it is not known whether there is one: then nothing begins, and what runs goes on.
    """

    who: str
    reason: str
    aborts: bool = True

    @property
    def words(self) -> str:
        """`all rollouts are stopped by ann: bad feature data`."""
        return f"all rollouts are stopped by {self.who}: {self.reason}"


class Observed(msgspec.Struct, frozen=True):
    """What is seen now.

    Args:
        champion_ready, candidate_ready: replicas that can answer.
        champion_running, candidate_running: processes that exist, ready or not.
        candidate_deaths: since the rollout began; `candidate_death` says how the last one died.
        routed_weight: per cent that the gateway, by its own word, sends to the candidate's release; 0 without one.
        mirrored: the gateway copies requests to the candidate.
        stopped: the emergency stop of all rollouts.
    """

    champion_ready: int = 0
    candidate_ready: int = 0
    champion_running: int = 0
    candidate_running: int = 0
    candidate_deaths: int = 0
    candidate_death: str = ""
    routed_weight: int = 0
    mirrored: bool = False
    stopped: Stop | None = None


class OrderKind(enum.StrEnum):
    """What a person may say."""

    PROMOTE = "promote"
    ABORT = "abort"
    PAUSE = "pause"
    RESUME = "resume"
    RETRY = "retry"


class Order(msgspec.Struct, frozen=True):
    """A person's word. `who` is for the history, `note` the person's reason."""

    kind: OrderKind
    who: str
    note: str = ""

    @property
    def words(self) -> str:
        """`abort by ann: too slow`."""
        return f"{self.kind} by {self.who}" + (f": {self.note}" if self.note else "")


class Wanted(msgspec.Struct, frozen=True):
    """What must be true now. Replicas of any other release than champion and candidate are not wanted.

    Whoever makes it true tells the gateway before it retires a replica, and of fewer replicas first retires those that
    are not ready.
    """

    champion_replicas: int
    candidate_replicas: int
    weight: int  # per cent of the users that the candidate answers
    mirror: bool


class Transition(msgspec.Struct, frozen=True):
    """One entry of the history. Source and target are the same where only something was said, e.g. that it holds.

    `champion` and `candidate` are the release ids of the rollout it belongs to, as they were before its end. `event`
    is the word for an alarm that the phase does not tell.
    """

    serial: int
    at_s: float
    source: Phase | None
    target: Phase
    step: int | None
    champion: str | None
    candidate: str | None
    reason: str
    who: str
    event: str | None = None


def enc_hook(value: Any) -> Any:
    """For msgspec encoders of a State, or of a struct that holds one: a Release as a plain dict."""
    if isinstance(value, Release):
        return value.model_dump(by_alias=True)
    raise NotImplementedError(f"no JSON for {type(value).__name__}")


def dec_hook(kind: type, value: Any) -> Any:
    """The way back of `enc_hook`."""
    if kind is Release:
        return Release.model_validate(value)
    raise NotImplementedError(f"no {kind.__name__} from JSON")


def dump(state: State) -> bytes:
    """As JSON."""
    return msgspec.json.encode(state, enc_hook=enc_hook)


def load(text: bytes | str) -> State:
    """The state that `dump` wrote.

    Raises:
        msgspec.ValidationError, msgspec.DecodeError: it did not.
    """
    return msgspec.json.decode(text, type=State, dec_hook=dec_hook)
