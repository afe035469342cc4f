"""Whether both releases got the same features: by name, where both were read at one event time. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from flightdeck.contracts.artefact import ModelManifest
from flightdeck.contracts.prediction import PredictionRecord

if TYPE_CHECKING:
    from services.rollout_operator.evidence import Answer

ON_DEMAND = ""  # computed from the request alone: no event time
RATIOS_KEPT = 101
SAME_TIME_S = 1e-3
RELATIVE = 1e-5  # float32 sums in another order differ by less


class Skew(msgspec.Struct):
    """One feature over the shadow's pairs.

    Args:
        compared: pairs in which both read it at one event time. unequal: with two values.
        ratios: candidate's value by the champion's, the first ones; both not 0.
    """

    compared: int = 0
    unequal: int = 0
    ratios: list[float] = msgspec.field(default_factory=list)

    @property
    def share(self) -> float:
        """Of the compared pairs."""
        return self.unequal / self.compared if self.compared else 0.0

    @property
    def ratio(self) -> float | None:
        """The median; None when no pair had one."""
        ordered = sorted(self.ratios)
        return ordered[len(ordered) // 2] if ordered else None


class _Shared(NamedTuple):
    """A feature of both manifests: its place in either vector, its view, and what stands in when it is not known."""

    name: str
    ours: int
    theirs: int
    view: str
    our_default: float
    their_default: float


class Views:
    """Which features two manifests share, where each stands in either vector, and by which view it is read."""

    def __init__(self, champion: ModelManifest, candidate: ModelManifest) -> None:
        ours = {item.name: (at, item) for at, item in enumerate(champion.features)}
        self._shared = [
            _Shared(
                item.name,
                ours[item.name][0],
                at,
                item.view if item.source == "stored" else ON_DEMAND,
                ours[item.name][1].default,
                item.default,
            )
            for at, item in enumerate(candidate.features)
            if item.name in ours and ours[item.name][1].source == item.source
        ]

    def read_at_s(self, record: PredictionRecord) -> dict[str, float]:
        """Event time of each stored view's values, seconds since 1970; a view without values is left out."""
        asked_s = record.asked_at_us / 1e6
        return {view: asked_s - age_s for view, age_s in record.ages_s.items() if age_s is not None}

    def compare(self, champion: Answer, candidate: Answer, skew: dict[str, Skew]) -> float | None:
        """1 when some shared feature has two values at one event time, else 0; None when none could be compared.

        Counts each feature in `skew`. Where both have their own model's default, neither knew the value: a difference
        of training medians is no skew.
        """
        differs: float | None = None
        for shared in self._shared:
            if shared.view != ON_DEMAND:
                one, other = champion.read_at_s.get(shared.view), candidate.read_at_s.get(shared.view)
                if one is None or other is None or abs(one - other) > SAME_TIME_S:
                    continue
            if shared.ours >= len(champion.features) or shared.theirs >= len(candidate.features):
                continue
            a, b = champion.features[shared.ours], candidate.features[shared.theirs]
            found = skew.setdefault(shared.name, Skew())
            found.compared += 1
            differs = differs or 0.0
            if _equal(a, b) or (_equal(a, shared.our_default) and _equal(b, shared.their_default)):
                continue
            differs = 1.0
            found.unequal += 1
            if a and b and math.isfinite(b / a) and len(found.ratios) < RATIOS_KEPT:
                found.ratios.append(b / a)
        return differs


def _equal(a: float | None, b: float | None) -> bool:
    if a is None or b is None or math.isnan(a) or math.isnan(b):
        return (a is None or math.isnan(a)) and (b is None or math.isnan(b))
    return math.isclose(a, b, rel_tol=RELATIVE, abs_tol=1e-9)
