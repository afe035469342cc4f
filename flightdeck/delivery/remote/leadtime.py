"""Decision: what a push took, stage by stage, and where the time went."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

# The first word that is in a stage's name decides.
_SHORTENS = (
    ("e2e", "run only what the change needs (`make ci-changes`), or leave e2e to a machine with more cores"),
    ("integration", "more cores; the lab inside it replays fewer hours when the change is small"),
    ("check", "more cores; the packages and the type checker's cache are kept from one push to the next"),
    ("image", "keep Docker's layer cache; only what comes after a changed lock or file is built again"),
    ("training", "fewer trials or more cores (spec: search); nothing is trained when no pipeline code or data changed"),
    ("canary", "more requests a second or more replicas: `flightdeck rollout lint` forecasts it for your rate"),
    ("rollout", "more requests a second or more replicas: `flightdeck rollout lint` forecasts it for your rate"),
    ("champion", "more requests a second or more replicas: `flightdeck rollout lint` forecasts it for your rate"),
    ("model", "a smaller sample or fewer trials for the gate's small training"),
    ("data", "a smaller committed sample"),
    ("feature", "the champion card as a file beside the remote instead of in a registry"),
    ("manifest", "keep the rendered overlays that did not change"),
    ("wait", "push less often, or gather changes: a deploy is never interrupted"),
    ("deploy", "pods that are ready sooner (smaller images, fewer replicas in dev)"),
)
_OTHERWISE = "look at its log: it says when each part began"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of the way from push to champion.

    Args:
        name: what people call it.
        took_s: real time, seconds.
    """

    name: str
    took_s: float


def gates(outcomes: Sequence[Mapping[str, Any]], whole_s: float) -> list[Stage]:
    """CI by gate; what the gates do not account for (packages, waiting, the runner itself) is one stage more."""
    found = [Stage(f"CI: {item['gate']}", float(item.get("took_s") or 0.0)) for item in outcomes]
    rest = whole_s - sum(stage.took_s for stage in found)
    return [*found, Stage("CI: all else" if found else "CI", rest)] if rest >= 0.5 or not found else found


def shortens(name: str) -> str:
    """What would make a stage of this name shorter."""
    low = name.lower()
    return next((advice for word, advice in _SHORTENS if word in low), _OTHERWISE)


def table(stages: Sequence[Stage], total_s: float) -> list[str]:
    """Lines: every stage in order, the total, and the three longest with what would shorten them."""
    width = max(len("lead time since the push"), *(len(stage.name) for stage in stages))
    lines = [f"{stage.name:<{width}} {_clock(stage.took_s):>9}  {_share(stage.took_s, total_s)}" for stage in stages]
    lines.append(f"{'lead time since the push':<{width}} {_clock(total_s):>9}")
    longest = sorted((stage for stage in stages if stage.took_s >= 1), key=lambda stage: -stage.took_s)[:3]
    return lines + [
        f"{place}. longest: {stage.name}; shorter with: {shortens(stage.name)}"
        for place, stage in enumerate(longest, 1)
    ]


def _clock(seconds: float) -> str:
    return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s" if seconds >= 59.5 else f"{seconds:.1f} s"


def _share(seconds: float, total_s: float) -> str:
    return f"{100 * seconds / total_s:3.0f} %" if total_s > 0 else ""
