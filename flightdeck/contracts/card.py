"""The model card: what a version is, what it was measured to do, and what the gates said. Signed by the gate job."""

from __future__ import annotations

import datetime as dt

import pydantic

from flightdeck.contracts.decision import Verdict


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Interval(_Strict):
    """A point estimate and its confidence interval; None where it could not be computed."""

    value: float | None
    low: float | None
    high: float | None


class GateResult(_Strict):
    """One gate: what was measured against which margin."""

    gate: str
    verdict: Verdict
    measured: float | None
    margin: float | None
    reason: str


class SliceMetric(_Strict):
    """Quality within one slice of the holdout."""

    slice: str
    value: str
    rows: int
    metric: float | None
    calibration_gap: float | None


class Digests(_Strict):
    """From what the version was made; with these any run can be repeated."""

    git_commit: str
    lock_sha256: str
    spec_sha256: str
    holdout_sha256: str
    table_versions: dict[str, int]
    feature_export: str


class ModelCard(_Strict):
    """See docs/model-spec.md for each field's meaning and unit."""

    model: str
    version: str
    sha256: str
    created_at: dt.datetime
    purpose: str
    horizon_min: int
    feature_service: str
    features: list[str]
    train_from: dt.datetime
    train_until: dt.datetime
    holdout_from: dt.datetime
    holdout_until: dt.datetime
    train_rows: int
    holdout_rows: int
    params: dict[str, float | int | str | bool | None]
    metrics: dict[str, Interval]
    champion_version: str | None
    champion_metrics: dict[str, Interval]
    slices: list[SliceMetric]
    importances: dict[str, float] = pydantic.Field(description="Permutation importance on the holdout, metric lost.")
    digests: Digests
    gates: list[GateResult]
    verdict: Verdict
    reason: str


class SignedCard(_Strict):
    """A card's canonical JSON with its Ed25519 signature (RFC 8032), hex."""

    card: ModelCard
    public_key: str
    signature: str
