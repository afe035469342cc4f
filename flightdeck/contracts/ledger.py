"""One entry of the ledger of deliveries: what went to an environment, by digests, by whom, and how it ended."""

from __future__ import annotations

import datetime as dt
import enum
import hashlib

import pydantic

from flightdeck.contracts.card import Digests
from flightdeck.contracts.release import Release


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Verdict(enum.StrEnum):
    """How a delivery ended."""

    DELIVERED = "delivered"  # all of it serves
    CANDIDATE_REFUSED = "candidate-refused"  # deployed; the gate or the canary sent the model or its code home
    UNDER_WAY = "under-way"  # deployed; the rollout had not ended when the delivery stopped waiting, and goes on
    ROLLED_BACK = "rolled-back"  # it fell short, and what was recorded before was deployed again
    FAILED = "failed"  # it fell short, and there was nothing to go back to, or going back failed


class StageTime(_Strict):
    """How long a stage took, seconds of real time."""

    name: str
    seconds: float


class TrainingInputs(_Strict):
    """What a training is made from, each by digest of its content: a change of any asks for another training."""

    code: str
    features: str
    spec: str
    lock: str


class Serving(_Strict):
    """What serves of one model at the end of a delivery.

    Args:
        made_from: data table versions, features, code and lock of the served version; None when its card was not read.
        trained_from: the inputs of the last training here, whose candidate need not be what serves.
    """

    release: Release | None = None
    made_from: Digests | None = None
    trained_from: TrainingInputs | None = None


class DeliveryRecord(_Strict):
    """One delivery. Records are never changed: each names the digest of the one before, so a missing one is seen.

    Args:
        number: 1 is the first of its environment.
        commit: of Git, with `-dirty` when tracked files were changed; `unknown` outside of a checkout.
        images: name in the manifests -> reference by digest.
        manifests: sha256 of the documents, which are kept beside the record.
        undoes: number of the record that was deployed again, when this is an undo.
        previous: sha256 of the record before; empty for the first.
    """

    number: int = pydantic.Field(ge=1)
    at: dt.datetime
    environment: str
    overlay: str
    commit: str
    who: str
    verdict: Verdict
    reason: str
    images: dict[str, str]
    manifests: str
    lock_sha256: str
    models: dict[str, Serving] = pydantic.Field(default_factory=dict)
    stages: tuple[StageTime, ...] = ()
    undoes: int | None = None
    previous: str = ""

    @property
    def stands(self) -> bool:
        """Its manifests were left in the cluster, having passed smoke: one can go back to it."""
        return self.verdict in (Verdict.DELIVERED, Verdict.CANDIDATE_REFUSED, Verdict.UNDER_WAY)

    @property
    def text(self) -> str:
        """As it is kept: the same text for the same record."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    @property
    def sha256(self) -> str:
        """Of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()
