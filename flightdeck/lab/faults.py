"""The fault catalogue: what can be wrong with a release, who must notice, and by what. Data only; see faulty.py.

A release whose image is `<code>+fault-<name>` runs the real predictor with that one fault in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Literal

MARK = "+fault-"


@dataclasses.dataclass(frozen=True)
class Fault:
    """One planted fault.

    Args:
        does: what it does, in a sentence.
        caught_in: where a rollout must stop it; `never` for one that harms nobody.
        metrics: one of these must be the reason; `restarts` is the judge's bound on deaths of replicas, `readyDeadline`
            the time in which they must be ready.
        margins: what the plan must have to find it, where the shipped one rightly leaves room for a retrained model.
    """

    name: str
    does: str
    caught_in: Literal["pending", "shadow", "canary", "never"]
    metrics: tuple[str, ...] = ()
    margins: Mapping[str, float] = dataclasses.field(default_factory=dict)


class UnknownFault(ValueError):
    """The image names a fault that is not in the catalogue."""


CATALOGUE = {
    fault.name: fault
    for fault in (
        Fault(
            "unit",
            "serves a distance in kilometres to a model that was trained on miles; no offline gate runs this code",
            "shadow",
            ("featureSkew",),
        ),
        Fault("crash-at-start", "ends with an error before it is ready, each time", "pending", ("restarts",)),
        Fault(
            "crash-100",
            "dies without a word at its hundredth user request; copies in the shadow do not count",
            "canary",
            ("errorRate", "restarts"),
        ),
        Fault(
            "never-ready",
            "answers whoever asks, and says that it is not ready; a probe for its start may end it meanwhile",
            "pending",
            ("readyDeadline", "restarts"),
        ),
        Fault("slow-50ms", "answers 50 ms later", "shadow", ("latencyP50Ratio", "latencyP99Ratio")),
        Fault("slow-2s", "answers 2 s later", "shadow", ("latencyP50Ratio", "latencyP99Ratio")),
        Fault(
            "errors-5pct",
            "answers 500 to one request in twenty; which ones depends on request id and replica, so that the same "
            "replica fails it again and another one hardly ever",
            "shadow",
            ("errorRate",),
        ),
        Fault("constant", "gives every row the same score", "shadow", ("scoreShift", "scoreDelta", "labelFlips")),
        Fault(
            "shift-005",
            "adds 0.05 to every score: less than the shipped margins, which leave room for a retrained model",
            "shadow",
            ("scoreShift", "scoreDelta"),
            {"scoreShift": 0.03, "scoreDelta": 0.03},
        ),
        Fault(
            "nan",
            "has no finite score for any row; the predictor answers the base rate and says that it is degraded",
            "shadow",
            ("degradedRate",),
        ),
        Fault("code-fine", "is other code that answers just the same", "never"),
        Fault(
            "code-bad",
            "takes the schedule's UTC for local time: hours, weekdays and holidays of the request are off",
            "shadow",
            ("featureSkew",),
        ),
    )
}


def fault_of(image: str) -> Fault | None:
    """The fault that an image carries; None for an honest one.

    Raises:
        UnknownFault: it names one that is not in the catalogue.
    """
    _, mark, name = image.partition(MARK)
    if not mark:
        return None
    if name not in CATALOGUE:
        raise UnknownFault(f"image {image!r}: no fault {name!r}; there are {', '.join(sorted(CATALOGUE))}")
    return CATALOGUE[name]


def with_fault(image: str, name: str) -> str:
    """The image with the fault `name` in it, in place of any other.

    Raises:
        UnknownFault: there is none of that name.
    """
    found = f"{image.partition(MARK)[0]}{MARK}{name}"
    fault_of(found)
    return found
