"""The prediction record: one per scored row, from the predictor over a Redis stream into the lake."""

from __future__ import annotations

import msgspec

PREDICTION_STREAM = "flightdeck:predictions"  # entries have one field, `r`: a msgpack array of PredictionRecord
OUTCOME_STREAM = "flightdeck:outcomes"  # entries have one field, `r`: msgpack [[known_at_us, entity_id, late, delay]]


class PredictionRecord(msgspec.Struct, frozen=True, array_like=True):
    """What was asked, with which features, and what was answered.

    `features` holds the vector in the order of the model manifest (float32); `ages_s` the age of each stored view's
    values at `asked_at_us`, None when absent. Times are microseconds since 1970 on the clock of contracts.clock.
    """

    request_id: str
    row: int
    entity_id: str
    asked_at_us: int
    model: str
    version: str
    sha256: str
    feature_service: str
    features: list[float | None]
    feature_hash: str  # of the vector's bytes: equal vectors have equal hashes
    score: float
    decision: str
    degraded: list[str]
    ages_s: dict[str, float | None]
    latency_us: int
    replica: str
    release: str = ""  # contracts.release.Release.id of what answered: the role of a record follows from it
    keys: dict[str, str] = {}  # join keys of the row, by name: what answers can be sliced by
