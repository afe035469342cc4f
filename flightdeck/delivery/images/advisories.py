"""Which packages an advisory in the OSV format speaks of (https://ossf.github.io/osv-schema). Pure."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from flightdeck.delivery.images.packages import Kind, Package

Advisory = Mapping[str, Any]
_DEBIAN = re.compile(r"(\d+:)?\d[\w.+~:-]*", re.ASCII)
_ECOSYSTEM = {"PyPI": Kind.PYPI, "Debian": Kind.DEB}


class Severity(enum.IntEnum):
    """How bad; what nobody rated is worst, since nobody can say that it is not."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4
    UNKNOWN = 5

    @classmethod
    def of(cls, word: object) -> Severity:
        """From a word of an advisory or a scanner."""
        words = {"MODERATE": cls.MEDIUM, "NEGLIGIBLE": cls.LOW, **cls.__members__}
        return words.get(str(word).upper(), cls.UNKNOWN)


@dataclasses.dataclass(frozen=True, order=True)
class Vulnerability:
    """One thing known against one package.

    Args:
        id, aliases: as in `CVE-2026-1`, `GHSA-...`.
        fixed_in: the version that is well again; empty where none is known.
        where: image, or locks.
    """

    id: str
    kind: Kind
    package: str
    version: str
    severity: Severity
    fixed_in: str = ""
    title: str = ""
    aliases: tuple[str, ...] = ()
    where: str = ""

    @property
    def names(self) -> frozenset[str]:
        """Every id it goes by."""
        return frozenset((self.id, *self.aliases))


def known_against(packages: Iterable[Package], advisories: Iterable[Advisory]) -> list[Vulnerability]:
    """What the advisories say of these packages; a withdrawn advisory says nothing."""
    by_name: dict[tuple[Kind, str], list[Package]] = {}
    for package in packages:
        by_name.setdefault((package.kind, package.source or package.name), []).append(package)
    found = set()
    for advisory in advisories:
        if advisory.get("withdrawn"):
            continue
        for affected in advisory.get("affected", ()):
            named = affected.get("package", {})
            kind = _ECOSYSTEM.get(str(named.get("ecosystem", "")).partition(":")[0])
            if kind is None:
                continue
            name = canonicalize_name(named["name"]) if kind is Kind.PYPI else str(named["name"])
            found |= {
                _vulnerability(advisory, affected, it) for it in by_name.get((kind, name), ()) if _hit(affected, it)
            }
    return sorted(found)


def _vulnerability(advisory: Advisory, affected: Advisory, package: Package) -> Vulnerability:
    rated = [
        place.get("severity")
        for holder in (affected, advisory)
        for place in (holder.get("ecosystem_specific", {}), holder.get("database_specific", {}))
        if isinstance(place.get("severity"), str)
    ]
    own = package.source_version or package.version
    fixes = [
        it for it in _events(affected, "fixed")
        if _readable(package.kind, it) and order(package.kind, it) > order(package.kind, own)
    ]  # fmt: skip
    return Vulnerability(
        advisory["id"], package.kind, package.name, package.version, Severity.of(rated[0] if rated else ""),
        min(fixes, key=lambda it: order(package.kind, it), default=""),
        str(advisory.get("summary", "")), tuple(advisory.get("aliases", ())),
    )  # fmt: skip


def _hit(affected: Advisory, package: Package) -> bool:
    """Whether the version is listed, or lies in a range; of Debian's packages the source's version counts."""
    own = package.source_version or package.version
    if own in affected.get("versions", ()):
        return True
    ranges = [it for it in affected.get("ranges", ()) if it.get("type") in ("ECOSYSTEM", "SEMVER")]
    return any(_within(it.get("events", ()), package.kind, own) for it in ranges)


def _within(events: Iterable[Mapping[str, str]], kind: Kind, own: str) -> bool:
    """OSV's own rule: walk the events in order; the last one that is not beyond the version decides.

    What cannot be read hides nothing: an end is left out, a beginning is before all, an own version is inside.
    """
    if not _readable(kind, own):
        return True
    inside = False
    at = order(kind, own)
    moments = [
        (order(kind, version), name) for event in events for name, version in event.items()
        if name == "introduced" or _readable(kind, version)
    ]  # fmt: skip
    for moment, name in sorted(moments, key=lambda it: (it[0], it[1] != "introduced")):
        if name == "introduced" and at >= moment:
            inside = True
        elif (name == "fixed" and at >= moment) or (name == "last_affected" and at > moment):
            inside = False
    return inside


def _events(affected: Advisory, name: str) -> list[str]:
    ranges = [it for it in affected.get("ranges", ()) if it.get("type") in ("ECOSYSTEM", "SEMVER")]
    return [event[name] for it in ranges for event in it.get("events", ()) if name in event]


def order(kind: Kind, version: str) -> Any:
    """Something that compares as the ecosystem's versions do; one that cannot be read is `0`, before all others."""
    version = version if _readable(kind, version) else "0"
    return _debian(version) if kind is Kind.DEB else Version(version)


def _readable(kind: Kind, version: str) -> bool:
    if kind is Kind.DEB:
        return bool(_DEBIAN.fullmatch(version))
    try:
        Version(version)
    except InvalidVersion:
        return False
    return True


def _debian(version: str) -> tuple[Any, ...]:
    """Debian policy 5.6.12: epoch, upstream, revision; letters before signs, `~` before the end, numbers as numbers."""
    epoch, _, rest = version.rpartition(":")
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "0")
    return int(epoch or 0), _parts(upstream), _parts(revision)


def _parts(text: str) -> tuple[Any, ...]:
    pairs = re.findall(r"(\D*)(\d*)", text)
    rank = {"~": -1}
    return tuple(
        itertools.chain.from_iterable(
            ((*(rank.get(c, ord(c) if c.isalpha() else ord(c) + 256) for c in word), 0), int(number or 0))
            for word, number in pairs
        )
    )
