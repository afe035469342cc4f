"""The gate on Kubernetes: trusted keys from a mounted ConfigMap, a break-glass from an annotation, Events.

`flightdeck.dev/break-glass: <reason>` lets in the release that is asked for when the text is first seen, and only that
one. As in an order, `by=ann` as the first word says who.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from flightdeck.contracts.approval import PUBLIC_KEY_ENV, keys_in
from flightdeck.contracts.release import Release
from services.rollout_operator import gate
from services.rollout_operator.kube import status
from services.rollout_operator.kube.orders import said_by
from services.rollout_operator.state import Phase, State, Transition, dec_hook

ANNOTATION = "flightdeck.dev/break-glass"
KEPT = "gate"  # key of the status
UNAPPROVED, BROKEN = "Unapproved", "BreakGlass"  # reasons of condition and Events
Document = dict[str, Any]


def key_file() -> gate.Trust:
    """The keys in the file that $FLIGHTDECK_PUBLIC_KEY_FILE names, read anew each time: a rotation needs no restart."""
    given = os.environ.get(PUBLIC_KEY_ENV)
    if not given:
        return gate.Trust(problem=f"{PUBLIC_KEY_ENV} is not set, so no key is trusted")
    try:
        return gate.Trust(keys_in(Path(given).read_text()))
    except (OSError, ValueError) as error:
        return gate.Trust(
            problem=f"no key is trusted, {given}: {error}; it is `signing.pub` of ConfigMap signing-public"
        )


def text(who: str, why: str) -> str:
    """The annotation that `said` reads."""
    return f"by={who} {why}"


def said(rollout: Mapping[str, Any]) -> gate.Said | None:
    """The annotation; None without one."""
    found = (rollout["metadata"].get("annotations") or {}).get(ANNOTATION)
    if found is None:
        return None
    who, why = said_by(str(found).strip())
    return gate.Said(str(found), who, why)


def admit(rollout: Mapping[str, Any], wanted: Release, trust: gate.Trust) -> gate.Admission:
    """What the rollout is told to want, from the object as it was read.

    Raises:
        ValueError: the status is of another version of the operator.
    """
    kept = status.remembered(rollout["metadata"]["name"], rollout.get("status", {}), 0.0)
    state, releases = (kept.state, kept.releases) if kept else (None, ())
    memory = msgspec.convert(rollout.get("status", {}).get(KEPT, {}), gate.Memory, dec_hook=dec_hook)
    return gate.admit(wanted, memory, state, releases, trust=trust, said=said(rollout))


def kept(memory: gate.Memory) -> Document:
    """For the status; without nulls, as all of it."""
    found: Document = {}
    if memory.asked:
        found["asked"] = memory.asked.model_dump(mode="json", by_alias=True, exclude_none=True)
    if memory.glass:
        found["glass"] = msgspec.to_builtins(memory.glass)
    return found


def entered(
    state: State, new: Sequence[Transition], wanted: Release, broken: gate.Said, now_s: float
) -> tuple[State, list[Transition]]:
    """The history's new entries with that of the broken glass before them, and the state that has counted it."""
    source = new[0].source if new else state.phase
    first = Transition(
        serial=state.serial - len(new) + 1, at_s=now_s, source=source,
        target=source or (new[0].target if new else Phase.DONE), step=None,
        champion=state.champion.id if state.champion else None, candidate=wanted.id,
        reason=f"{wanted.short} [{wanted.id}] is let in without the gate's approval: {broken.why}",
        who=broken.who, event=BROKEN,
    )  # fmt: skip
    later = [msgspec.structs.replace(it, serial=it.serial + 1) for it in new]
    return msgspec.structs.replace(state, serial=state.serial + 1), [first, *later]
