"""ModelRollouts, good and bad, and what a structural schema without its CEL rules says of them."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic
from hypothesis import strategies as st

from flightdeck.contracts.rollout import ModelRollout

Object = dict[str, Any]

GOOD: Object = {
    "apiVersion": "flightdeck.dev/v1alpha1",
    "kind": "ModelRollout",
    "metadata": {"name": "late"},
    "spec": {
        "release": {
            "image": "1a2b3c4d",
            "model": {"name": "late", "version": "7", "sha256": "a" * 64, "image": f"here/late@sha256:{'b' * 64}"},
            "featureService": "late_v1",
        },
        "replicas": 3,
        "plan": [
            {"shadow": {"minPairs": 500, "deadline": "10m"}},
            {"canary": {"weight": 10, "minRequests": 100, "deadline": "1h30m"}},
            {"canary": {"weight": 50, "deadline": "90s"}},
        ],
        "judge": {
            "alpha": 0.05,
            "margins": {"errorRate": 0.01, "scoreShift": 0.1, "labelFlips": 0.05, "latencyP50Ratio": 2},
            "scoreRange": [0, 1],
        },
        "readyDeadline": "2m",
        "onDeadline": "abort",
        "onNoData": "hold",
        "onNewRelease": "queueNewest",
    },
}

# Each field with values around its bounds, right and wrong.
FIELDS: dict[str, list[Any]] = {
    "metadata.name": ["late", "late-2", "2late", "Late", "late-", "l", "a" * 50, "a" * 51],
    "spec.replicas": [0, 1, 100, 101, "three", [3]],
    "spec.readyDeadline": ["5m", "0s", "24h", "25h", "300", "-5m", "5 m", "1.5h", "0.5ms", "99999999999h", 300],
    "spec.onDeadline": ["hold", "abort", "promote", "wait", "Hold"],
    "spec.onNoData": ["hold", "nothing"],
    "spec.onNewRelease": ["queueNewest", "supersede", "queue"],
    "spec.release.image": ["1a2b", ""],
    "spec.release.model.sha256": ["c" * 64, "c" * 63, "C" * 64, "g" * 64],
    "spec.release.model.image": [f"x@sha256:{'0' * 64}", "x:latest"],
    "spec.release.model.version": ["1", ["1"]],
    "spec.plan.0.shadow.minPairs": [1, 0, 10_000_000, 10_000_001],
    "spec.plan.0.shadow.deadline": ["168h", "169h", "10080m1s", "1m"],
    "spec.plan.1.canary.weight": [1, 49, 50, 51, 0, 99, 100],
    "spec.plan.1.canary.minRequests": [1, 0],
    "spec.plan.1.shadow": [{"minPairs": 5, "deadline": "1m"}],
    "spec.plan.1": [
        {}, {"shadow": {"minPairs": 5, "deadline": "1m"}}, {"canary": {"weight": 20}}, {"canary": {"deadline": "1m"}},
    ],
    "spec.plan.0": [{"canary": {"weight": 5, "deadline": "1m"}}, {"canary": {"weight": 10, "deadline": "1m"}}],
    "spec.plan": [
        [], [{"shadow": {"minPairs": 500, "deadline": "10m"}}], [{"canary": {"weight": 5, "deadline": "1m"}}] * 2,
    ],
    "spec.judge.alpha": [0, 0.2, 0.21, -1, 0.001],
    "spec.judge.beta": [0.2, 0, 1],
    "spec.judge.warmup": [0, -1, 10_000, 10_001],
    "spec.judge.maxRestarts": [1, 0, 100, 101],
    "spec.judge.scoreRange": [[0, 300], [1, 0], [0.5, 0.5], [0], [0, 1, 2], [0, 0.05]],
    "spec.judge.margins": [{}, {"errorRate": 0.1}, {"scoreDelta": 0.1}, {"scoreDelta": 1}, {"labelLoss": 2}],
    "spec.judge.margins.errorRate": [0, 0.5, 0.499, 1],
    "spec.judge.margins.latencyP50Ratio": [1, 1.01, 100, 101],
    "spec.judge.margins.latencyP99Ratio": [1, 2],
    "spec.judge.margins.degradedRate": [0.5, 0.1],
    "spec.judge.margins.scoreShift": [0, 0.99, 1],
    "spec.judge.margins.featureSkew": [0, 0.5, 1],
    "spec.judge.margins.labelFlips": [0, 0.5, 1],
    "spec.judge.margins.recall": [0.1],
    "spec.judge.slices": [
        {"by": ["origin"]}, {"by": []}, {"by": ["a", "b", "c", "d", "e"]}, {"by": ["origin", "origin"]}, {},
        {"by": ["or igin"]}, {"by": ["origin"], "of": 1}, {"by": ["origin"], "maxValues": 0},
        {"by": ["origin"], "maxValues": 51}, {"by": ["origin"], "minShare": 0}, {"by": ["origin"], "minShare": 1},
        {"by": ["origin"], "marginFactor": 0.5}, {"by": ["origin"], "marginFactor": 10}, {"by": "origin"},
    ],
    "spec.judge.marginz": [{}],
    "spec.replica": [3],
}  # fmt: skip
REMOVED = [
    "spec.replicas", "spec.plan", "spec.judge", "spec.judge.margins", "spec.onDeadline", "spec.onNoData",
    "spec.onNewRelease", "spec.readyDeadline", "spec.judge.alpha", "spec.judge.scoreRange", "spec.release.model",
    "spec.release.model.image", "spec.plan.0.shadow.deadline", "spec.plan.1.canary.minRequests",
]  # fmt: skip
ABSENT = object()
CHANGES = [(path, value) for path, values in FIELDS.items() for value in values] + [(path, ABSENT) for path in REMOVED]


def changed(path: str, value: Any, of: Object = GOOD) -> Object:
    """A copy with one field set or, with ABSENT, taken away."""
    made = copy.deepcopy(of)
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place: Any = made
    for part in way:
        place = place[part]
    if value is ABSENT:
        place.pop(last, None)
    else:
        place[last] = value
    return made


@st.composite
def objects(draw: st.DrawFn) -> Object:
    """A good one with up to three changes; many are bad, in more than one way."""
    made = copy.deepcopy(GOOD)
    for path, value in draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3)):
        try:
            made = changed(path, value, made)
        except (KeyError, IndexError, TypeError, AttributeError):  # an earlier change took its place away
            continue
    return made


def accepted(value: Object) -> bool:
    """Whether the typed object takes it."""
    try:
        ModelRollout.model_validate(value)
    except pydantic.ValidationError:
        return False
    return True


def problems(schema: Mapping[str, Any], value: Any, where: str = "") -> Iterator[str]:
    """What a structural schema refuses; what CEL rules would refuse is not seen."""
    kind = schema.get("type", "")
    if kind in TYPES and (not isinstance(value, TYPES[kind]) or isinstance(value, bool)):
        yield f"{where}: no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{where}: not in enum"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{where}: pattern"
    if kind in ("integer", "number"):
        yield from _beyond(schema, value, where)
    if kind in ("string", "array"):
        low, high = ("minLength", "maxLength") if kind == "string" else ("minItems", "maxItems")
        if not schema.get(low, 0) <= len(value) <= schema.get(high, len(value)):
            yield f"{where}: length"
    if kind == "array":
        for index, item in enumerate(value):
            yield from problems(schema["items"], item, f"{where}.{index}")
    if kind == "object" and "properties" in schema:
        known = schema["properties"]
        yield from (f"{where}.{name}: absent" for name in schema.get("required", []) if name not in value)
        yield from (f"{where}.{name}: unknown" for name in value if name not in known)
        for name in known.keys() & value.keys():
            yield from problems(known[name], value[name], f"{where}.{name}")


TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "number": (int, float),
}  # fmt: skip


def _beyond(schema: Mapping[str, Any], value: float, where: str) -> Iterator[str]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and (value < low or (schema.get("exclusiveMinimum") and value == low)):
        yield f"{where}: too low"
    if high is not None and (value > high or (schema.get("exclusiveMaximum") and value == high)):
        yield f"{where}: too high"
