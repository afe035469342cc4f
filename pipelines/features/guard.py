"""Decision: which changes of the registry a release that is served, waits or can be undone to does not survive.

Approval is for what nobody reads any more. What a protected feature service reads goes in three steps: expand (a new
service beside the old one), roll out (until no release names the old one), contract (remove it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipelines.features.registry_changes import Change, Described, Effect

ADVICE = (
    "expand: make a new version of the feature service beside it; roll out a model that reads the new one; "
    "contract: remove the old one when no release that serves, waits or can be undone to reads it"
)


def refused(
    changes: Sequence[Change], before: Mapping[tuple[str, str], Described], protected: Sequence[str]
) -> list[tuple[Change, str]]:
    """Destructive changes of what a protected service reads, each with the service (the first that reads it).

    A protected service that is not registered cannot tell what it reads: then every destructive change is refused.
    """
    found = []
    for change in changes:
        if change.effect is not Effect.DESTROYS:
            continue
        for service in protected:
            if ("feature service", service) not in before or _reads(change, before, service):
                found.append((change, service))
                break
    return found


def words(found: Sequence[tuple[Change, str]]) -> str:
    """Why, and what to do instead."""
    lines = [f"{change.kind} {change.name}: {change.what} (read by {service})" for change, service in found]
    return f"{len(found)} change(s) would break a release, approved or not: {'; '.join(lines)}. Instead, {ADVICE}"


def _reads(change: Change, before: Mapping[tuple[str, str], Described], service: str) -> bool:
    """Whether the service reads what the change takes away."""
    if change.kind == "feature service":
        return change.name == service
    prefix = "features of "
    facts = before["feature service", service].facts
    read = {fact.removeprefix(prefix): names.split(", ") for fact, names in facts.items() if fact.startswith(prefix)}
    views = [item for (kind, name), item in before.items() if kind in _VIEWS and name in read]
    if change.kind in _VIEWS:
        if change.name not in read:
            return False
        # Another feature of the same view is nothing to this service.
        return not change.what.startswith("feature ") or change.what.removeprefix("feature ") in read[change.name]
    if change.kind == "entity":
        entity = before.get(("entity", change.name))
        key = entity.facts.get("join keys", change.name) if entity else change.name
        return any(key in view.facts.get("join keys", "").split(", ") for view in views)
    if change.kind == "source":
        return any(view.facts.get("source") == change.name or change.name == f"{view.name}_batch" for view in views)
    return True  # a kind that this rule does not know: rather refused than broken


_VIEWS = ("feature view", "on-demand view")
