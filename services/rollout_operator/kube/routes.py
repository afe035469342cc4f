"""What an HTTPRoute says, and whether it says what is wanted. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.rollout_operator.ports import Unavailable


def routed(route: Mapping[str, Any] | None, candidate: str | None) -> tuple[int, bool]:
    """The weight of 100 of the candidate's Service, and whether it gets copies, in rules that the Gateway has taken.

    Of several rules, as a hand edit may leave them, the one that sends it most.

    Raises:
        Unavailable: there is no route, or no Gateway has taken its newest version.
    """
    if route is None:
        raise Unavailable("there is no HTTPRoute of the model's name; Git owns it: `flightdeck deploy` makes it")
    if not taken(route):
        raise Unavailable(f"the Gateway has not taken version {route['metadata'].get('generation')} of the HTTPRoute")
    most, copies = 0, False
    for rule in route["spec"].get("rules") or ():
        backends = {it["name"]: it.get("weight", 1) for it in rule.get("backendRefs") or ()}
        if (total := sum(backends.values())) and candidate in backends:
            most = max(most, round(100 * backends[candidate] / total))
        copies = copies or (candidate is not None and candidate in mirrors(rule))
    return most, copies


def taken(route: Mapping[str, Any]) -> bool:
    """Whether the Gateways that it hangs on have accepted its newest version."""
    parents = route.get("status", {}).get("parents") or ()
    generation = route["metadata"].get("generation", 0)
    return bool(parents) and all(
        any(
            it["type"] == "Accepted" and it["status"] == "True" and it.get("observedGeneration", 0) >= generation
            for it in parent.get("conditions", ())
        )
        for parent in parents
    )


def mirrors(rule: Mapping[str, Any]) -> set[str]:
    """Services that get a copy of each request."""
    filters = [it for it in rule.get("filters") or () if it["type"] == "RequestMirror"]
    return {it["requestMirror"]["backendRef"]["name"] for it in filters}


def same(found: Mapping[str, Any] | None, wanted: Mapping[str, Any]) -> bool:
    """Whether the rules are the wanted ones, apart from what the API server fills in."""
    rules = (found or {}).get("spec", {}).get("rules") or ()
    return [_plain(rule) for rule in rules] == [_plain(rule) for rule in wanted["spec"].get("rules") or ()]


def names(route: Mapping[str, Any] | None) -> set[str]:
    """Every Service that it sends anything to."""
    rules: Sequence[Mapping[str, Any]] = (route or {}).get("spec", {}).get("rules") or ()
    return {it["name"] for rule in rules for it in rule.get("backendRefs") or ()}.union(*map(mirrors, rules))


def _plain(value: Any) -> Any:
    """Without the defaults of group, kind and weight of a backend."""
    if isinstance(value, Mapping):
        defaults = {"group": "", "kind": "Service"}
        return {key: _plain(it) for key, it in value.items() if defaults.get(key) != it}
    return [_plain(it) for it in value] if isinstance(value, list | tuple) else value
