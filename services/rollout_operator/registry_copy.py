"""What the model registry shall say of a rollout: a copy for people and tools, compared with what it does say. Pure.

The truth is ModelRollout.status. The registry's alias `champion` and four tags of a version follow it: `rollout` (what
the version is in it), `rollout_release`, `rollout_since_utc` and `rollout_reason`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from flightdeck.contracts.release import Release

ALIAS = "champion"
ROLE, RELEASE, SINCE, REASON = "rollout", "rollout_release", "rollout_since_utc", "rollout_reason"
RETIRED, WITHDRAWN = "retired", "withdrawn"
_OVER = frozenset({RETIRED, WITHDRAWN, "aborted"})
REASON_CHARACTERS = 400


class Part(msgspec.Struct, frozen=True):
    """A version that has a part in the rollout now.

    Args:
        sha256: of the bytes that the release names; the registry's must be the same.
        tags: all four.
    """

    sha256: str
    tags: dict[str, str]


class Copy(msgspec.Struct, frozen=True):
    """What the registry shall say: of the model, who is champion (None: nothing is said), and of each version."""

    model: str
    champion: str | None
    parts: dict[str, Part]  # version ->


class Found(msgspec.Struct, frozen=True):
    """What it says.

    Args:
        champion: version that the alias points to; None without one.
        tags: version -> tags, of every version with the tag `rollout` and of each that the copy asks for and that
            exists.
    """

    champion: str | None
    tags: dict[str, dict[str, str]]


class Point(msgspec.Struct, frozen=True):
    """Write: the alias onto a version."""

    version: str


class Tag(msgspec.Struct, frozen=True):
    """Write: a tag of a version."""

    version: str
    key: str
    value: str


Write: TypeAlias = Point | Tag


def copy_of(status: Mapping[str, Any]) -> Copy | None:
    """Of a ModelRollout's status; None while no release has a part in it."""
    parts: dict[str, Part] = {}
    # One version may be in several releases, with other code: the champion's word is the last.
    for key, role in (("refused", "aborted"), ("candidate", str(status.get("phase", ""))), ("champion", ALIAS)):
        if key not in status:
            continue
        release = Release.model_validate(status[key])
        entry = _came_to_it(status.get("history", ()), release.id)
        tags = {
            RELEASE: release.id,
            SINCE: str(entry.get("at", "unknown")),
            REASON: str(entry.get("reason", "it served before this history begins"))[:REASON_CHARACTERS],
            ROLE: role,
        }
        parts[release.model.version] = Part(release.model.sha256, tags)
    if not parts:
        return None
    champion = status.get("champion")
    named = champion or status.get("candidate") or status["refused"]
    return Copy(named["model"]["name"], champion["model"]["version"] if champion else None, parts)


def writes(copy: Copy, found: Found) -> tuple[list[Write], list[str]]:
    """What must be written, in this order, and what cannot be, in words; nothing when all agrees.

    A version's time and reason go along when its part changes, and are no reason to write: the history forgets. The
    tag `rollout` is the last of a version, so that what was broken off is begun again.
    """
    todo: list[Write] = []
    told: list[str] = []
    for version, part in copy.parts.items():
        tags = found.tags.get(version)
        if tags is None:
            told.append(f"the registry has no version {version} of {copy.model}")
            continue
        if tags.get("sha256") != part.sha256:
            told.append(
                f"version {version} of {copy.model} has sha256 {tags.get('sha256', 'none')} in the registry, the "
                f"release has {part.sha256}: nothing is written to it"
            )
            continue
        if version == copy.champion and found.champion != version:
            todo.append(Point(version))
        if any(tags.get(key) != part.tags[key] for key in (ROLE, RELEASE)):
            todo += [Tag(version, key, value) for key, value in part.tags.items() if tags.get(key) != value]
    for version, tags in sorted(found.tags.items()):
        if version not in copy.parts and tags.get(ROLE, WITHDRAWN) not in _OVER:
            todo.append(Tag(version, ROLE, RETIRED if tags[ROLE] == ALIAS else WITHDRAWN))
    return todo, told


def _came_to_it(history: Any, release: str) -> Mapping[str, Any]:
    """The entry of the history in which the release came to where it is; empty when the history forgot it."""
    entries = [it for it in history if it.get("candidate") == release and it.get("source") != it.get("target")]
    return entries[-1] if entries else {}
