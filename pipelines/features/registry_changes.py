"""Decision: what differs between two registries, and what that does to those who read them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping


class Effect(enum.StrEnum):
    """What a change does to those who already use the object."""

    ADDS = "adds"
    CHANGES = "changes"
    DESTROYS = "destroys"


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference between the registry and the definitions."""

    kind: str
    name: str
    what: str
    before: str
    after: str
    effect: Effect


@dataclasses.dataclass(frozen=True)
class Described:
    """A registered object as plain values: what a reader of it can notice."""

    kind: str
    name: str
    facts: Mapping[str, str]


# A new value of these facts changes what is stored, how it is keyed or what a model receives: never without approval.
BREAKING = ("feature ", "input ", "join keys", "value type", "transformation")
# Where data lie or what people read: no consumer can notice.
HARMLESS = ("description", "source path")


def compare(before: Mapping[tuple[str, str], Described], after: Mapping[tuple[str, str], Described]) -> list[Change]:
    """Every difference, each with its effect; destructive first, then by kind and name."""
    changes = []
    for key in sorted(before.keys() | after.keys()):
        kind, name = key
        if key not in after:
            changes.append(Change(kind, name, "removed", "registered", "", Effect.DESTROYS))
        elif key not in before:
            changes.append(Change(kind, name, "added", "", "defined", Effect.ADDS))
        else:
            changes += _fact_changes(before[key], after[key])
    order = list(Effect)[::-1]
    return sorted(changes, key=lambda change: (order.index(change.effect), change.kind, change.name, change.what))


def _fact_changes(before: Described, after: Described) -> list[Change]:
    changes = []
    for fact in dict.fromkeys([*before.facts, *after.facts]):
        old, new = before.facts.get(fact, ""), after.facts.get(fact, "")
        if old == new:
            continue
        breaking = fact.startswith(BREAKING) and not (old == "" and before.kind == "feature view")
        # What a service lists is what models were trained on: any change of it is a new service.
        breaking = breaking or (before.kind == "feature service" and fact not in HARMLESS)
        changes.append(
            Change(before.kind, before.name, fact, old, new, Effect.DESTROYS if breaking else Effect.CHANGES)
        )
    return changes
