"""Whether a release may be rolled out at all: by the gate's approval, or because a person broke the glass. Pure.

What is not let in changes nothing: the rollout goes on with what was let in last (docs/adr/0010).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from flightdeck.contracts import approval
from flightdeck.contracts.release import Release
from services.rollout_operator.state import State


class Trust(msgspec.Struct, frozen=True):
    """The public keys that count now, hex. Without any nothing is approved; `problem` says why there is none."""

    keys: tuple[str, ...] = ()
    problem: str = ""


class Said(msgspec.Struct, frozen=True):
    """The break-glass annotation as it stands: its whole text, and in it who says why; without a why it is nothing."""

    text: str
    who: str
    why: str


class Glass(msgspec.Struct, frozen=True):
    """A break-glass text and the one release that it counts for: the one that was wanted when it was first seen.

    Args:
        release: id. used: it was needed, and let that release in.
    """

    text: str
    release: str
    used: bool = False


class Memory(msgspec.Struct, frozen=True):
    """What is kept between two ticks.

    Args:
        asked: the release that was let in last: what people want, as far as it may be had.
    """

    asked: Release | None = None
    glass: Glass | None = None


class Admission(msgspec.Struct, frozen=True):
    """What the rollout is told to want.

    Args:
        release: None when there is nothing yet to go on with.
        refusal: why it is not the release that is asked for; empty when it is.
        broken: by whom and why the glass was broken, in this very look; None else.
    """

    release: Release | None
    refusal: str
    memory: Memory
    broken: Said | None = None


def refusal(release: Release, trust: Trust, accepted: Sequence[Release]) -> str:
    """Why a release is not let in; empty when it is.

    Args:
        accepted: releases that were champion already. Their models need no approval again: for an undo or other code.
    """
    if any(_model(release) == _model(it) for it in accepted):
        return ""
    if not trust.keys:
        return f"no approval can be checked: {trust.problem or 'no key is trusted'}"
    return approval.refusal(release, trust.keys)


def admit(
    wanted: Release, memory: Memory, state: State | None, releases: Sequence[Release], *, trust: Trust,
    said: Said | None,
) -> Admission:  # fmt: skip
    """The release that is asked for when it is let in, else the one to go on with.

    Args:
        state: None before the first release. releases: that were champion. said: None without an annotation.
    """
    accepted = [*releases, *((state.champion,) if state and state.champion else ())]
    glass = memory.glass
    if said is not None and said.why and (glass is None or glass.text != said.text):
        glass = Glass(said.text, wanted.id)  # also where it is not needed: a text that stands there is no open door
    why = refusal(wanted, trust, accepted)
    if not why:
        return Admission(wanted, "", Memory(wanted, glass))
    if glass is not None and glass.release == wanted.id and (glass.used or said is not None):
        used = msgspec.structs.replace(glass, used=True)
        return Admission(wanted, "", Memory(wanted, used), None if glass.used else said)

    def passes(release: Release) -> bool:
        by_glass = glass is not None and glass.used and glass.release == release.id
        return by_glass or not refusal(release, trust, accepted)

    words = f"{wanted.short} [{wanted.id}] is not let in: {why}{_of_glass(said, glass)}"
    return Admission(_going_on(memory.asked, state, passes), words, memory)


def _going_on(asked: Release | None, state: State | None, passes: Callable[[Release], bool]) -> Release | None:
    """As if the refused one had not been asked for. What is under way goes on; what begins must pass now."""
    if state is None:
        return None
    running = state.candidate
    if asked is not None and (passes(asked) or (running is not None and running.id == asked.id)):
        return asked
    return running or state.champion


def _of_glass(said: Said | None, glass: Glass | None) -> str:
    if said is None:
        return ""
    if not said.why:
        return "; the break-glass annotation gives no reason"
    assert glass is not None  # a new text counts for the release that is wanted now
    return f"; the break-glass {said.why!r} was for release {glass.release}: give a reason for this one"


def _model(release: Release) -> tuple[str, str, str, str]:
    """What the gate looked at; where the artefact lies and which code serves it are no part of it."""
    model = release.model
    return model.name, model.version, model.sha256, release.feature_service
