"""Records and releases for the tests of deliveries."""

from __future__ import annotations

import datetime as dt
from typing import Any

from flightdeck.contracts.ledger import DeliveryRecord, Serving, TrainingInputs, Verdict
from flightdeck.contracts.release import ModelRef, Release

INPUTS = TrainingInputs(code="c", features="f", spec="s", lock="l")


def release(version: int = 1, code: str = "a") -> Release:
    model = ModelRef(name="late", version=str(version), sha256=f"{version:064d}")
    return Release.model_validate(
        {"image": f"r/predictor@sha256:{code * 64}", "model": model, "featureService": "late_v1"}
    )


def record(number: int, verdict: Verdict = Verdict.DELIVERED, previous: str = "", **more: Any) -> DeliveryRecord:
    values: dict[str, Any] = {
        "number": number, "at": dt.datetime(2026, 1, number, tzinfo=dt.UTC), "environment": "dev", "overlay": "kind",
        "commit": f"commit{number}", "who": "ann", "verdict": verdict, "reason": "because", "images": {},
        "manifests": f"m{number}", "lock_sha256": "l", "previous": previous,
        "models": {"late": Serving(release=release(number), trained_from=INPUTS)},
    }  # fmt: skip
    return DeliveryRecord.model_validate({**values, **more})


def chain(*verdicts: Verdict) -> list[DeliveryRecord]:
    found: list[DeliveryRecord] = []
    for number, verdict in enumerate(verdicts, start=1):
        found.append(record(number, verdict, found[-1].sha256 if found else ""))
    return found
