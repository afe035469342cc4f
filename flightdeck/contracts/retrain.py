"""The retrain governor's types: what asks for a training, what was decided and why (docs/governor.md)."""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
from collections.abc import Mapping
from types import MappingProxyType

import pydantic

from flightdeck.contracts.card import Interval

EVERY_MODEL = "*"  # of a freeze; no model can be called so


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TriggerKind(enum.StrEnum):
    """What was seen."""

    SCHEDULE = "schedule"  # no training for as long as the spec allows
    NEW_DATA = "new_data"  # the lake has so much more than the champion was trained on
    DRIFT = "drift"  # the inputs moved
    QUALITY = "quality"  # the outcomes say that the champion got worse
    CODE = "code"  # spec, features or training code changed
    HAND = "hand"  # a person asks
    BROKEN_DATA = "broken_data"  # what the source delivers is wrong
    SKEW = "skew"  # served features differ from those that training would have
    DATA_CLEAN = "data_clean"  # a later check of the data found nothing wrong
    SKEW_CLEAN = "skew_clean"  # a later check of the served features found no difference


COMPLAINTS = frozenset({TriggerKind.DRIFT, TriggerKind.QUALITY})  # they are about the champion that serves
ASKING = COMPLAINTS | {TriggerKind.SCHEDULE, TriggerKind.NEW_DATA, TriggerKind.CODE}  # a spec says which it follows
CLEARED_BY: Mapping[TriggerKind, TriggerKind] = MappingProxyType(
    {TriggerKind.BROKEN_DATA: TriggerKind.DATA_CLEAN, TriggerKind.SKEW: TriggerKind.SKEW_CLEAN}
)  # what opens an incident -> what ends it


class Severity(enum.StrEnum):
    """How grave."""

    INFO = "info"  # kept, and asks for nothing
    WARNING = "warning"
    CRITICAL = "critical"  # trains even when the pre-test cannot tell


class Trigger(_Strict):
    """One observation about one model, in the words of whoever made it.

    Raises:
        pydantic.ValidationError: a time without zone, no evidence, or an unknown kind.
    """

    model: str = pydantic.Field(pattern=r"^[a-z][a-z0-9_-]{1,40}$")
    kind: TriggerKind
    at: pydantic.AwareDatetime = pydantic.Field(description="Clock time of the observation.")
    evidence: str = pydantic.Field(min_length=1, max_length=2000, description="A sentence with figures.")
    severity: Severity = Severity.WARNING
    source: str = pydantic.Field(min_length=1, max_length=100, description="The part or person that says so.")
    key: str = pydantic.Field(
        default="",
        max_length=200,
        description="Told again under the same key it counts once; else made of its content.",
    )

    @property
    def identity(self) -> str:
        """What makes it one and the same when it is told twice."""
        content = f"{self.at.astimezone(dt.UTC).isoformat()}\n{self.evidence}"
        return self.key or hashlib.sha256(content.encode()).hexdigest()[:32]


class Received(_Strict):
    """A trigger in the journal; a higher id came in later."""

    id: int
    trigger: Trigger


class Outcome(enum.StrEnum):
    """What a decision does."""

    IDLE = "IDLE"  # nothing asks; never kept
    PRETEST = "PRETEST"  # the pre-test has to answer first; never kept
    WAIT = "WAIT"  # the request stays; `cause` and `until` say for what
    TRAIN = "TRAIN"  # one training for all that asked
    SKIP = "SKIP"  # the pre-test says that it would not pay
    NOTED = "NOTED"  # the policy does not follow these triggers
    ANSWERED = "ANSWERED"  # a training that has been made already answers these
    INCIDENT = "INCIDENT"  # opened: no training on a broken pipeline
    RESOLVED = "RESOLVED"  # an incident ended
    TRAINED = "TRAINED"  # a training that was ordered came to its end
    FAILED = "FAILED"  # it ended without a candidate
    FROZEN = "FROZEN"
    UNFROZEN = "UNFROZEN"


class Cause(enum.StrEnum):
    """What a request waits for; the first that applies, in this order."""

    FREEZE = "freeze"
    INCIDENT = "incident"
    BUSY = "busy"
    COOL_DOWN = "cool_down"
    BUDGET = "budget"


class Answer(enum.StrEnum):
    """What the pre-test says."""

    WOULD_WIN = "would win"
    WOULD_NOT = "would not"
    CANNOT_TELL = "cannot tell"


class Pretest(_Strict):
    """Whether training on recent data would beat the champion, with the figures.

    Args:
        gain: root mean squared error of the champion's score minus that of the small model, in the score's unit, on
            the same rows, with its paired interval over days; None when it could not be computed.
    """

    answer: Answer
    reason: str
    gain: Interval | None = None
    small_rmse: float | None = None
    champion_rmse: float | None = None
    champion: str | None = None
    train_rows: int = 0
    holdout_rows: int = 0
    seconds: float = 0.0


class Decision(_Strict):
    """One decision about one model.

    Args:
        reason: shown as is.
        cause, until: of a WAIT; `until` only where the clock alone ends it.
        claims: ids of the triggers that it settles; they ask for nothing any more.
        kind: of INCIDENT and RESOLVED: the trigger kind it is about.
        seen_at, seen_id: of an INCIDENT: time and id of its newest evidence.
        of: of TRAINED and FAILED: the number of the TRAIN; of RESOLVED: of the INCIDENT.
    """

    outcome: Outcome
    reason: str
    cause: Cause | None = None
    until: dt.datetime | None = None
    claims: tuple[int, ...] = ()
    counts: dict[TriggerKind, int] = pydantic.Field(default_factory=dict)
    kind: TriggerKind | None = None
    seen_at: dt.datetime | None = None
    seen_id: int | None = None
    of: int | None = None
    pretest: Pretest | None = None


class Entry(_Strict):
    """A decision as it is kept, once and for all. `number` counts per model from 1."""

    model: str
    number: int
    at: dt.datetime = pydantic.Field(description="Clock time.")
    by: str
    decision: Decision


class Order(_Strict):
    """A training to make; the same key is the same training, however often it is asked for.

    Args:
        until: clock time of the training: nothing known later is used.
    """

    model: str
    number: int
    until: dt.datetime
    reason: str

    @property
    def key(self) -> str:
        """Names the run, e.g. `late-17`."""
        return f"{self.model}-{self.number}"


class Incident(_Strict):
    """Something is broken; trainings of the model wait until it is resolved."""

    number: int
    kind: TriggerKind
    opened_at: dt.datetime
    seen_at: dt.datetime
    seen_id: int
    reason: str


class Freeze(_Strict):
    """A person stopped trainings, of one model or (`*`) of all."""

    model: str
    at: dt.datetime
    by: str
    reason: str


class Request(_Strict):
    """All that asks for a training of one model now, as one."""

    model: str
    triggers: tuple[Received, ...] = pydantic.Field(min_length=1)

    @property
    def ids(self) -> tuple[int, ...]:
        """Of its triggers."""
        return tuple(item.id for item in self.triggers)

    @property
    def kinds(self) -> frozenset[TriggerKind]:
        """Of its triggers."""
        return frozenset(item.trigger.kind for item in self.triggers)

    @property
    def counts(self) -> dict[TriggerKind, int]:
        """Triggers per kind, the most first."""
        found = [item.trigger.kind for item in self.triggers]
        return {kind: found.count(kind) for kind in sorted(self.kinds, key=lambda it: (-found.count(it), it))}

    @property
    def gravest(self) -> Trigger:
        """The newest of the gravest."""
        order = list(Severity)
        best = max(self.triggers, key=lambda it: (order.index(it.trigger.severity), it.trigger.at, it.id))
        return best.trigger

    @property
    def words(self) -> str:
        """For reasons: `1,000 triggers since 2013-07-01 06:00Z (drift 990, schedule 10); quality: <evidence>`."""
        number, first = len(self.triggers), min(item.trigger.at for item in self.triggers)
        counts = ", ".join(f"{kind.value} {count:,}" for kind, count in self.counts.items())
        many = (
            f"{number:,} triggers since {first.astimezone(dt.UTC):%Y-%m-%d %H:%MZ} ({counts}); " if number > 1 else ""
        )
        return f"{many}{self.gravest.kind.value}: {self.gravest.evidence}"
