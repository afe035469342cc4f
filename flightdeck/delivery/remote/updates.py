"""Decision: what a push may do to the remote's refs, and what it sets in motion."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Sequence

MAIN = "refs/heads/main"
MOST_CHECKED = 5  # trees in one push; each costs a whole CI


class Kind(enum.StrEnum):
    """What a ref is to us."""

    MAIN = "main"
    BRANCH = "branch"
    TAG = "tag"
    OTHER = "other"


@dataclasses.dataclass(frozen=True)
class Update:
    """One line of what git tells a receive hook; `old` or `new` is all zeros where there is none."""

    old: str
    new: str
    ref: str

    @property
    def deletes(self) -> bool:
        """Whether the ref goes away."""
        return not self.new.strip("0")

    @property
    def creates(self) -> bool:
        """Whether the ref was not there before."""
        return not self.old.strip("0")

    @property
    def kind(self) -> Kind:
        """By the ref's folder."""
        if self.ref == MAIN:
            return Kind.MAIN
        if self.ref.startswith("refs/heads/"):
            return Kind.BRANCH
        return Kind.TAG if self.ref.startswith("refs/tags/") else Kind.OTHER

    @property
    def name(self) -> str:
        """As people write it."""
        return self.ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


@dataclasses.dataclass(frozen=True)
class Found:
    """What git knows of an update's new value.

    Args:
        commit: that it leads to, None when it leads to none.
        tree: of that commit.
        lost: how many commits leave the ref; 0 for a fast-forward.
        on_main: the commit is in the history of the remote's main.
        tracks: names at the top of the tree that CI keeps for itself.
    """

    commit: str | None
    tree: str | None
    lost: int = 0
    on_main: bool = False
    tracks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Ruling:
    """What happens with one update.

    Args:
        refused: why and what to do, empty when it is let in after CI.
        checks: CI runs on its tree, unless that tree has passed before.
        says: what the pusher must know.
    """

    refused: str = ""
    checks: bool = False
    says: tuple[str, ...] = ()


def parse(lines: Iterable[str]) -> tuple[Update, ...]:
    """Git's lines `old new ref`.

    Raises:
        ValueError: a line is none of these.
    """
    found = []
    for line in lines:
        parts = line.rstrip("\n").split(" ", 2)
        if len(parts) != 3:
            raise ValueError(f"git told the hook {line!r}, which is not `old new ref`")
        found.append(Update(*parts))
    return tuple(found)


def rule(update: Update, found: Found) -> Ruling:
    """Branches and tags may come, move and go; main only moves; whatever comes must pass CI."""
    if update.kind is Kind.OTHER:
        return Ruling(f"{update.ref}: only branches and tags are kept here; push refs/heads/… or refs/tags/…")
    if update.deletes:
        if update.kind is Kind.MAIN:
            return Ruling("main cannot be deleted: it is what is deployed; to go back, revert the commit and push main")
        return Ruling(says=(f"{update.kind} {update.name} is deleted; nothing runs, and nothing deployed changes",))
    if found.commit is None:
        return Ruling(f"{update.kind} {update.name} does not lead to a commit; CI needs one, tag a commit instead")
    if found.tracks:
        names = ", ".join(found.tracks)
        return Ruling(
            f"commit {found.commit[:9]} tracks {names}, which CI keeps for itself; `git rm -r --cached {names}`"
        )
    says = []
    if found.lost:
        says.append(
            f"forced: {found.lost} commit(s) leave {update.kind} {update.name} "
            f"({update.old[:9]} -> {found.commit[:9]}); CI judges the new state like any other"
        )
    if update.kind is Kind.TAG:
        says.append(
            f"tag {update.name}: CI only; the release itself is made by release.yml on GitHub, "
            "nothing deploys from here"
        )
        if found.on_main:
            says.append(f"tag {update.name} names a commit in main's history: what is deployed stays")
    return Ruling(checks=True, says=tuple(says))


def too_many(trees: Sequence[str]) -> str:
    """Why one push asks for too much CI, or nothing."""
    if len(trees) <= MOST_CHECKED:
        return ""
    return (
        f"{len(trees)} different states in one push, each needs a CI of its own; "
        f"push at most {MOST_CHECKED} refs at once"
    )
