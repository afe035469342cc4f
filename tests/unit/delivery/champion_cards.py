"""Model cards and champion cards for tests, signed by a key of their own."""

from __future__ import annotations

import datetime as dt
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flightdeck.contracts.card import Digests, Interval, ModelCard
from flightdeck.contracts.champion_card import ChampionCard, RegisteredObject
from flightdeck.contracts.decision import Verdict
from flightdeck.delivery.champion_card import collect
from pipelines.registry.signing import public_hex, sign

KEY = Ed25519PrivateKey.generate()
AT = dt.datetime(2013, 7, 1, tzinfo=dt.UTC)
REGISTRY = (
    RegisteredObject(kind="entity", name="origin", facts={"join keys": "origin"}),
    RegisteredObject(
        kind="feature service", name="late_v2",
        facts={"features of weather": "temp_f, dewp_f", "order of views": "weather"},
    ),
    RegisteredObject(kind="feature service", name="late_v1", facts={"features of weather": "temp_f"}),
    RegisteredObject(
        kind="feature view", name="weather",
        facts={"join keys": "origin"} | {f"feature {name}": "Float32" for name in ("temp_f", "dewp_f", "visib_mi")},
    ),
)  # fmt: skip


def model_card(model: str = "late", auc: float = 0.78, **changes: Any) -> ModelCard:
    """A card whose figures are easy to follow."""
    content: dict[str, Any] = {
        "model": model, "version": "3", "sha256": "a" * 64, "created_at": AT, "purpose": "test", "horizon_min": 120,
        "feature_service": "late_v2", "features": ["temp_f", "dewp_f"], "train_from": AT - dt.timedelta(180),
        "train_until": AT - dt.timedelta(21), "holdout_from": AT - dt.timedelta(21), "holdout_until": AT,
        "train_rows": 1000, "holdout_rows": 200, "params": {},
        "metrics": {
            "auc": Interval(value=auc, low=auc - 0.02, high=auc + 0.02),
            "calibration_error": Interval(value=0.03, low=0.02, high=0.04),
            "baseline_auc": Interval(value=0.7, low=0.66, high=0.73),
            "baseline_calibration_error": Interval(value=0.1, low=0.05, high=0.2),
        },
        "champion_version": None, "champion_metrics": {}, "slices": [], "importances": {},
        "digests": Digests(
            git_commit="c", lock_sha256="l", spec_sha256="s", holdout_sha256="h", table_versions={}, feature_export="x"
        ),
        "gates": [], "verdict": Verdict.PROMOTE, "reason": "fine",
    }  # fmt: skip
    return ModelCard.model_validate({**content, **changes})


def champion(*cards: ModelCard, registry: tuple[RegisteredObject, ...] = REGISTRY, **more: Any) -> ChampionCard:
    """A champion card of these, `late` by default."""
    signed = [sign(it, KEY) for it in cards or (model_card(),)]
    return collect(signed, registry, environment="dev", trusted=[public_hex(KEY)], now_utc=AT, **more)
