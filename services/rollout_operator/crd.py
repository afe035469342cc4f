"""The CustomResourceDefinition of ModelRollout, made from the types: `make crd` writes k8s/crds/modelrollouts.yaml.

The API server refuses what the typed object refuses: single fields by the schema, fields that hang together by CEL
rules. Only `spec.release` may be absent here: Git does not contain it, a release sets it under its own field manager.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import yaml
from pydantic.alias_generators import to_camel

from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import API_VERSION, KIND, SHADOW_ONLY, SLICED, Margins, ModelRollout, duration_text
from services.rollout_operator.state import Phase
from services.rollout_operator.verdict import Verdict

Schema: TypeAlias = dict[str, Any]

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "modelrollouts"
NAME = f"{PLURAL}.{GROUP}"
HEADER = "# Written by `make crd` from flightdeck/contracts/rollout.py: change it there.\n"
_BOUNDS = {
    "minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below",
}  # fmt: skip
_KEPT = ("type", "description", "enum", "pattern", "minLength", "maxLength", "minItems", "maxItems")
_LONGEST_DURATION = 40  # characters, as duration_s; CEL reckons a rule's cost with it


def document() -> Schema:
    """The whole object, as kubectl applies it."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": NAME, "labels": {"app.kubernetes.io/part-of": "flightdeck"}},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND, "listKind": f"{KIND}List", "plural": PLURAL, "singular": KIND.lower(),
                "shortNames": ["mr"], "categories": ["flightdeck"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": _columns(),
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": schema()},
                }
            ],
        },
    }  # fmt: skip


def as_yaml() -> str:
    """The file's content."""
    return HEADER + yaml.dump(document(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=116)


class _Plain(yaml.SafeDumper):
    """Says a part again rather than pointing back at it."""

    def ignore_aliases(self, data: Any) -> bool:
        """None."""
        return True


def schema() -> Schema:
    """The structural OpenAPI schema of the object."""
    typed = ModelRollout.model_json_schema(by_alias=True)
    spec = structural(typed["properties"]["spec"], typed["$defs"])
    spec["required"].remove("release")
    spec["x-kubernetes-validations"] = _spec_rules()
    judge = spec["properties"]["judge"]
    judge["x-kubernetes-validations"] = _judge_rules()
    judge["properties"]["margins"]["x-kubernetes-validations"] = [_margins_rule()]
    judge["properties"]["slices"]["x-kubernetes-validations"] = [
        _rule("self.by.all(x, self.by.exists_one(y, y == x))", "by: each key once")
    ]
    plan = spec["properties"]["plan"]
    plan["x-kubernetes-list-type"] = "atomic"
    plan["x-kubernetes-validations"] = _plan_rules()
    plan["items"]["x-kubernetes-validations"] = [
        _rule("has(self.shadow) != has(self.canary)", "a step is either `shadow` or `canary`, exactly one of them")
    ]
    name = typed["$defs"]["Metadata"]["properties"]["name"]["pattern"]
    return {
        "type": "object",
        "description": "How a new release of one model takes over from the serving one: step by step, judged by what "
        "it answers. Guide: docs/rollout.md.",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": _status(),
        },
        "x-kubernetes-validations": [
            _rule(
                f"self.metadata.name.matches('{name}')",
                "metadata.name: lower-case letters, digits and hyphens, beginning with a letter, at most 50",
            )
        ],
    }


def structural(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """What pydantic says, in the words of a Kubernetes structural schema: no references, no unions, bounds as flags.

    Descriptions take in what `kubectl explain` would not show: default and bounds. Unknown keys are not told here: the
    API server refuses them by itself when asked strictly, as kubectl does.
    """
    node, known = _resolved(node, definitions)
    found: Schema = {key: node[key] for key in _KEPT if node.get(key) is not None}
    if known is not None:
        found["default"] = known
    for end in ("minimum", "maximum") if node.get("type") != "string" else ():
        strict = f"exclusive{end.capitalize()}"
        if strict in node:
            found |= {end: node[strict], strict: True}
        elif end in node:
            found[end] = node[end]
    if node.get("type") == "object":
        found["properties"] = {
            name: structural(value, definitions) for name, value in node.get("properties", {}).items()
        }
        if node.get("required"):
            found["required"] = list(node["required"])
    if node.get("type") == "array":
        item = node["items"] if "items" in node else node["prefixItems"][0]
        found["items"] = structural(item, definitions)
    if "ms|s|m|h" in node.get("pattern", ""):
        found["maxLength"] = _LONGEST_DURATION
        found["x-kubernetes-validations"] = [_duration_rule(node)]
        if isinstance(known, int | float):
            found["default"] = duration_text(known)
    if words := _words(node, found.get("default")):
        found["description"] = words
    return found


def _resolved(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> tuple[Schema, Any]:
    """(without reference and without the union with null, default)."""
    flat = dict(node)
    known = flat.pop("default", None)
    if "anyOf" in flat:
        (only,) = [item for item in flat.pop("anyOf") if item.get("type") != "null"]
        flat = {**only, **flat}
    if "$ref" in flat:
        target = definitions[flat.pop("$ref").rpartition("/")[2]]
        said = [it["description"] for it in (flat, target) if it.get("description")]
        flat = {**target, **flat, "description": " ".join(said)}
    return flat, known


def _words(node: Mapping[str, Any], default: Any) -> str:
    said = " ".join(str(node.get("description", "")).split())
    unit = " A duration such as 90s, 10m or 1h30m." if "ms|s|m|h" in node.get("pattern", "") else ""
    shown = {key: _figure(node[key]) for key in _BOUNDS if key in node}
    if unit and shown:
        shown = {key: duration_text(node[key]) if node[key] else "0s" for key in shown}
    bounds = " and ".join(f"{_BOUNDS[key]} {value}" for key, value in shown.items())
    bounds = bounds or _size(node)
    parts = [f"{said}{unit}".strip()]
    if bounds:
        parts.append(f"{bounds[0].upper()}{bounds[1:]}.")
    if default is not None:
        parts.append(f"Default: {default}.")
    return " ".join(part for part in parts if part)


def _size(node: Mapping[str, Any]) -> str:
    """Of a list or a text, in words; empty when it has no bounds."""
    of = "items" if node.get("type") == "array" else "characters"
    least, most = (node.get(f"{end}{'Items' if of == 'items' else 'Length'}") for end in ("min", "max"))
    if least is not None and least == most:
        return f"exactly {least} {of}"
    ends = [f"{word} {value:,}" for word, value in (("at least", least), ("at most", most)) if value is not None]
    return f"{' and '.join(ends)} {of}" if ends else ""


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _rule(rule: str, message: str) -> Schema:
    return {"rule": rule, "message": message}


def _duration_rule(node: Mapping[str, Any]) -> Schema:
    longest = node["maximum"]
    return _rule(
        f"duration(self) > duration('0s') && duration(self) <= duration('{longest:g}s')",
        f"must be above 0s and at most {duration_text(longest)}",
    )


def _plan_rules() -> list[Schema]:
    weights = "self.filter(s, has(s.canary)).map(s, s.canary.weight)"
    return [
        _rule(
            "self.all(s, !has(s.shadow)) || (has(self[0].shadow) && self.exists_one(s, has(s.shadow)))",
            "the shadow comes first and once; later it would overlap a weight above 0",
        ),
        _rule(
            f"{weights}.isSorted() && self.filter(s, has(s.canary)).all(s, self.exists_one(t, has(t.canary) && "
            "t.canary.weight == s.canary.weight))",
            "weights must rise from step to step",
        ),
        _rule(
            "self.exists(s, has(s.canary))",
            "no canary step; errors under real traffic would never be judged before 100 %",
        ),
    ]


def _spec_rules() -> list[Schema]:
    return [
        _rule(
            f"!has(self.judge.margins.{name}) || self.plan.exists(s, has(s.shadow))",
            f"judge.margins.{name} has no effect: it compares two answers to one request, and the plan has no shadow "
            "step",
        )
        for name in map(to_camel, SHADOW_ONLY)
    ]


def _judge_rules() -> list[Schema]:
    width = "self.scoreRange[1] - self.scoreRange[0]"
    rules = [_rule("self.scoreRange[0] < self.scoreRange[1]", "scoreRange must rise")]
    rules += [
        _rule(
            f"!has(self.margins.{name}) || self.margins.{name} < {width}",
            f"margins.{name} can never be exceeded: it is as wide as scoreRange",
        )
        for name in ("scoreShift", "scoreDelta", "labelLoss")
    ]
    sliced = " || ".join(f"has(self.margins.{to_camel(name)})" for name in SLICED)
    rules.append(
        _rule(f"!has(self.slices) || {sliced}", "slices has no effect: no metric that a slice shows has a margin")
    )
    for field in SLICED:
        name, widest = to_camel(field), "1.0" if field in ("degraded_rate", "label_flips") else width
        fits = f"self.margins.{name} * self.slices.marginFactor < {widest}"
        rules.append(
            _rule(
                f"!has(self.slices) || !has(self.margins.{name}) || {fits}",
                f"slices.marginFactor makes the margin of {name} so wide that no slice can exceed it",
            )
        )
    return rules


def _margins_rule() -> Schema:
    named = " || ".join(f"has(self.{to_camel(name)})" for name in Margins.model_fields)
    return _rule(named, "margins names no metric: a candidate would be promoted on nothing")


def _columns() -> list[Schema]:
    return [
        {"name": name, "type": kind, "jsonPath": path, "description": words} | ({"priority": 1} if wide else {})
        for wide, rows in ((False, _STORY), (True, _WIDE))
        for name, kind, path, words in rows
    ]


_STORY = (
    ("Model", "string", ".spec.release.model.name", "Registered name of the model."),
    ("Champion", "string", ".status.championVersion", "Version that serves."),
    ("Candidate", "string", ".status.candidateVersion", "Version that wants to."),
    ("Phase", "string", ".status.phase", "Where the rollout is."),
    ("Weight", "integer", ".status.weight", "Per cent of the users that the candidate answers."),
    ("Verdict", "string", ".status.verdict", "What the judge says."),
    ("Reason", "string", ".status.reason", "Of the last change."),
    ("Age", "date", ".metadata.creationTimestamp", "Since it was made."),
)
_WIDE = (  # kubectl get -o wide
    ("Accepted", "string", '.status.conditions[?(@.type=="PlanAccepted")].status', "Whether the plan is accepted."),
    ("Stopped", "string", '.status.conditions[?(@.type=="Stopped")].status', "Whether all rollouts are stopped."),
    ("Requests/s", "number", ".status.requestsPerSecond", "Of the users, as last measured at the gateway."),
)


def _status() -> Schema:
    release = structural(Release.model_json_schema(by_alias=True), Release.model_json_schema(by_alias=True)["$defs"])

    def of(words: str) -> Schema:
        return {**release, "description": words}

    def text(words: str, **more: Any) -> Schema:
        return {"type": "string", "description": words, **more}

    def number(words: str) -> Schema:
        return {"type": "integer", "description": words}

    condition = {
        "type": "object",
        "description": "One thing that is true, false or not known of the rollout.",
        "required": ["type", "status", "reason", "lastTransitionTime"],
        "properties": {
            "type": text("What it is about, e.g. Complete."),
            "status": text("True, False or Unknown.", enum=["True", "False", "Unknown"]),
            "reason": text("One word for programs."),
            "message": text("A sentence for people."),
            "lastTransitionTime": text("When it last changed.", format="date-time"),
            "observedGeneration": number("Generation of the object that it was said of."),
        },
    }
    return {
        "type": "object",
        "description": "What is true now. Only its controller writes it.",
        "x-kubernetes-preserve-unknown-fields": True,  # what it remembers, between its own versions
        "properties": {
            "phase": text("Where the rollout is.", enum=[str(phase) for phase in Phase]),
            "champion": of("The release that serves: the one truth about it."),
            "championVersion": text("Its version, for lists."),
            "championRelease": text("Its release id: eight hex digits that name code, model and feature service."),
            "candidate": of("The release that wants to serve."),
            "candidateVersion": text("Its version, for lists."),
            "candidateRelease": text("Its release id."),
            "queued": of("The newest release that waits for the end of the running rollout."),
            "refused": of("The last one that was sent home; not tried again by itself."),
            "weight": number("Per cent of the users that the candidate answers."),
            "verdict": text("What the judge says.", enum=[str(verdict) for verdict in Verdict]),
            "reason": text("Of the last change, a sentence."),
            "doubt": text("Why the evidence may be incomplete: counters of replicas, gateway and log disagree."),
            "mirrored": {"type": "boolean", "description": "Whether the candidate gets a copy of each user request."},
            "wantedReplicas": number("Replicas that each of the two shall have."),
            "candidateReady": number("Replicas of the candidate that can answer."),
            "replicas": number("Replicas of the champion that exist, ready or not."),
            "championReady": number("Those that can answer."),
            "requestsPerSecond": {
                "type": "number",
                "description": "Attempts of the users at the gateway per second, as last measured; renewed when it "
                "moved by a quarter. What `kubectl flightdeck lint` and the condition PlanAccepted go by.",
            },
            "selector": text("Labels of the champion's pods, for an HPA on the scale subresource."),
            "observedGeneration": number("Generation of the spec that this is about."),
            "conditions": {
                "type": "array", "items": condition, "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
                "description": "Progressing, Complete, PlanAccepted and, once all rollouts were stopped, Stopped; for "
                "`kubectl wait`.",
            },
            "history": {
                "type": "array", "items": _entry(text, number),
                "description": "What was decided, ordered and said, oldest first; the newest 50. `kubectl flightdeck "
                "history` shows it as a table.",
            },
        },
    }  # fmt: skip


def _entry(text: Callable[..., Schema], number: Callable[[str], Schema]) -> Schema:
    return {
        "type": "object",
        "description": "One entry. Source and target are the same where only something was said.",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": {
            "serial": number("Counted from 1, for the life of the object."),
            "at": text("When, in UTC, to the second."),
            "source": text("Phase before; absent before the first release."),
            "target": text("Phase after."),
            "step": number("Step of the plan, counted from 0; absent outside of one."),
            "champion": text("Release id of the champion before its end; absent without one."),
            "candidate": text("Release id of the candidate; absent without one."),
            "reason": text("A sentence with the figures."),
            "who": text("Who decided: `controller`, or a person."),
        },
    }
