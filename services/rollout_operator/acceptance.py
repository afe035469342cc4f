"""What the operator says of a plan before it begins: the linter's words, at the rate that the cluster has. Pure.

- Refused: what no rate could make pass. Nothing new begins with it.
- Doubted: what cannot pass in time at the present rate. It may begin all the same: the rate of the past is no promise,
  a night's traffic must not lock out a repair, and the plan says itself what its deadlines do (onDeadline, onNoData).
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

from flightdeck.contracts.rollout import RolloutSpec
from services.rollout_operator.forecast import Traffic
from services.rollout_operator.lint import Level, lint, propose

ACCEPTED, REFUSED, TOO_SLOW = "Accepted", "Refused", "CannotPassInTime"  # reasons of the condition PlanAccepted
CEILING_PER_S = 100_000.0  # no model of anybody's has more requests
DEAD_BAND = 0.25  # a rate that moved by less is still the same: else each tick would write a status and lint a plan


@dataclasses.dataclass(frozen=True)
class _Plan:
    """A spec by what the linter looks at; the release is none of it."""

    text: str
    spec: RolloutSpec = dataclasses.field(compare=False)


def never(spec: RolloutSpec) -> str:
    """Why no rate of requests lets a good candidate pass this plan; empty when some does. Cheap when asked again."""
    return _words(_plan(spec), CEILING_PER_S)


def too_slow(spec: RolloutSpec, rate_per_s: float) -> str:
    """Why a good candidate does not pass in time at this rate, and what would; empty when it does."""
    return _words(_plan(spec), rate_per_s)


def steady(before: float | None, measured: float | None) -> float | None:
    """The rate to go by, to two digits: the one before, as long as the measured one is near it. None: not known."""
    if measured is None or measured <= 0:  # no user now: no data, which is neither a pass nor a fail
        return before
    if before and abs(measured - before) <= DEAD_BAND * before:
        return before
    return round(measured, 1 - math.floor(math.log10(measured)))


def _plan(spec: RolloutSpec) -> _Plan:
    return _Plan(spec.model_dump_json(by_alias=True, exclude={"release"}), spec)


@functools.lru_cache(maxsize=1024)
def _words(plan: _Plan, rate_per_s: float) -> str:
    traffic = Traffic(rate_per_s)
    errors = [it for it in lint(plan.spec, traffic) if it.level is Level.ERROR]
    if not errors:
        return ""
    at = "at any rate" if rate_per_s == CEILING_PER_S else f"at the measured {rate_per_s:g} requests per second"
    why = "; ".join(f"{it.path}: {it.sentence}" for it in errors)
    better = propose(plan.spec, traffic)
    changes = ", ".join(_changes("spec", _plain(plan.spec), _plain(better))) if better else ""
    way_out = f"passes: {changes}" if changes else "no plan of at most a week a step passes: take wider margins"
    return f"the plan cannot pass in time {at}: {why}. Better, and it {way_out}" if changes else (
        f"the plan cannot pass in time {at}: {why}. Of plans like it {way_out}"
    )  # fmt: skip


def _plain(spec: RolloutSpec) -> Any:
    return spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"release"})


def _changes(path: str, old: Any, new: Any) -> Iterator[str]:
    if isinstance(new, dict) and isinstance(old, dict):
        for key in new:
            yield from _changes(f"{path}.{key}", old.get(key), new[key])
    elif isinstance(new, list) and isinstance(old, list) and len(new) == len(old):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes(f"{path}[{index}]", before, after)
    elif new != old:
        yield f"{path} {new}"
