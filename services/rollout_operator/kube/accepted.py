"""The condition PlanAccepted beyond what is refused: a plan that cannot pass in time at the measured rate. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from flightdeck.contracts.rollout import RolloutSpec
from services.rollout_operator import acceptance
from services.rollout_operator.kube import status
from services.rollout_operator.state import ENDED, Phase, State


def rate(before: Mapping[str, Any], measured: float | None) -> float | None:
    """Requests per second to go by: of the status as it was, until a measured one is far from it."""
    return acceptance.steady(before.get("requestsPerSecond"), measured)


def doubt(
    spec: RolloutSpec | None, state: State | None, before: Mapping[str, Any], rate_per_s: float | None, generation: int
) -> str:
    """Why the plan cannot pass in time at this rate; empty when it can, or no rate is known.

    While users see a candidate no tick waits for the linter: what was said of this generation stands until the end.
    """
    said = of(before)
    calm = state is None or state.phase in ENDED or state.phase is Phase.PENDING
    if not calm and said.get("observedGeneration") == generation:
        return str(said["message"]) if said["reason"] == acceptance.TOO_SLOW else ""
    return acceptance.too_slow(spec, rate_per_s) if spec and rate_per_s else ""


def of(before: Mapping[str, Any]) -> Mapping[str, Any]:
    """The condition PlanAccepted in a status; empty without one."""
    return next((it for it in before.get("conditions", ()) if it["type"] == "PlanAccepted"), {})


def event(rollout: Mapping[str, Any], before: Mapping[str, Any], now_s: float) -> status.Document | None:
    """A Warning for `kubectl describe` when the plan of an object is not accepted, for a reason that is new.

    That a plan is too slow is told once per edit of the spec: its words hold the rate, which moves all day.
    """
    now, old = of(rollout.get("status", {})), of(before)
    if now.get("status") != "False" or (now["reason"], now["message"]) == (old.get("reason"), old.get("message")):
        return None
    known = now["reason"], now["observedGeneration"]
    if now["reason"] == acceptance.TOO_SLOW and known == (old.get("reason"), old.get("observedGeneration")):
        return None
    mark = hashlib.sha256(f"{now['reason']} {now['message']} {now_s}".encode()).hexdigest()[:10]
    return status.event_of(
        rollout, name=f"plan.{mark}", reason=now["reason"], message=now["message"], warning=True, at_s=now_s
    )
