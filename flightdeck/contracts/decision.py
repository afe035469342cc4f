"""Three outcomes, and a reason that a person can read."""

from __future__ import annotations

import dataclasses
import enum


class Verdict(enum.StrEnum):
    """What a gate or a judge says of a candidate."""

    PROMOTE = "PROMOTE"
    HOLD = "HOLD"  # not enough evidence either way: never a pass
    REJECT = "REJECT"


@dataclasses.dataclass(frozen=True)
class Decision:
    """A verdict and why; `reason` is shown as is in logs, status, report and pull request."""

    verdict: Verdict
    reason: str
