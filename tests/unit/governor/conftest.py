"""Triggers, policies and states as short as the tests want them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

import pytest

from flightdeck.contracts.model_spec import Retrain
from flightdeck.contracts.retrain import Received, Severity, Trigger, TriggerKind

NOW = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)
PRETEST = {"train_days": 60, "sample_rows": 1000, "min_gain": 0, "on_cannot_tell": "skip"}


@pytest.fixture
def now() -> dt.datetime:
    return NOW


@pytest.fixture
def policy() -> Retrain:
    """Everything trains at once but drift, which is asked about first; a cool-down of an hour, three a day."""
    return Retrain.model_validate({
        "triggers": {"schedule": "train", "new_data": "train", "drift": "pretest", "quality": "train"},
        "every": "P7D", "cool_down": "PT1H", "budget_per_day": 3, "pretest": PRETEST,
    })  # fmt: skip


@pytest.fixture
def told() -> Callable[..., list[Received]]:
    """`told("drift", "skew", ...)`: one trigger each, numbered from `first`, one minute old unless `at` says else."""

    def make(
        *kinds: str, first: int = 1, at: dt.datetime | Sequence[dt.datetime] = NOW - dt.timedelta(minutes=1),
        severity: str = "warning",
    ) -> list[Received]:  # fmt: skip
        times = [at] * len(kinds) if isinstance(at, dt.datetime) else at
        return [
            Received(
                id=number,
                trigger=Trigger(
                    model="late", kind=TriggerKind(kind), at=when, evidence=f"{kind} number {number} moved by 0.31",
                    severity=Severity(severity), source="test",
                ),
            )
            for number, (kind, when) in enumerate(zip(kinds, times, strict=True), first)
        ]  # fmt: skip

    return make
