"""Which packages a text names: Debian's status file, the METADATA of a wheel, a lock. Pure."""

from __future__ import annotations

import dataclasses
import email.parser
import enum
import re
from collections.abc import Iterable
from pathlib import Path

from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


class Kind(enum.StrEnum):
    """Who packs it; the type of a purl."""

    PYPI = "pypi"
    DEB = "deb"
    GENERIC = "generic"


@dataclasses.dataclass(frozen=True, order=True)
class Package:
    """One package in one version.

    Args:
        source, source_version: what Debian built it from: its advisories go by that name.
        arch: Debian's, as in `amd64`.
    """

    kind: Kind
    name: str
    version: str
    source: str = ""
    source_version: str = ""
    arch: str = ""

    def purl(self, distro: str = "") -> PackageURL:
        """Its name anywhere.

        Args:
            distro: as in `debian-12`; only Debian's packages carry it.
        """
        if self.kind is not Kind.DEB:
            return PackageURL(type=str(self.kind), name=self.name, version=self.version)
        wanted = {"arch": self.arch, "distro": distro, "upstream": self.source if self.source != self.name else ""}
        qualifiers = {key: value for key, value in wanted.items() if value}
        return PackageURL(type="deb", namespace="debian", name=self.name, version=self.version, qualifiers=qualifiers)

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.name} {self.version}"


def from_dpkg(status: str) -> list[Package]:
    """The installed packages of /var/lib/dpkg/status."""
    found = []
    for block in re.split(r"\n\s*\n", status):
        fields: dict[str, str] = dict(re.findall(r"^([A-Za-z-]+): (.*)$", block, re.MULTILINE))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        name, version = fields["Package"], fields["Version"]
        source, _, source_version = fields.get("Source", name).partition(" (")
        of_source = source_version.rstrip(")") or version
        found.append(Package(Kind.DEB, name, version, source, of_source, fields.get("Architecture", "")))
    return sorted(found)


def from_metadata(text: str) -> Package:
    """The package that a wheel's METADATA describes.

    Raises:
        ValueError: it names none.
    """
    fields = email.parser.HeaderParser().parsestr(text)
    name, version = fields["Name"], fields["Version"]
    if not name or not version:
        raise ValueError("a METADATA without Name or Version")
    return Package(Kind.PYPI, canonicalize_name(name), version)


def from_lock(text: str) -> list[Package]:
    """The pins of a lock, whatever their marker: some machine installs each.

    Raises:
        ValueError: a line is no pin; it is quoted.
    """
    found = set()
    for line in text.splitlines():
        if not line.strip() or line[0] in " \t#-":
            continue
        try:
            wanted = Requirement(line.rstrip("\\ "))
        except InvalidRequirement as error:
            raise ValueError(f"no requirement: {line}") from error
        pins = [it.version for it in wanted.specifier if it.operator == "=="]
        if len(pins) != 1:
            raise ValueError(f"not pinned to one version: {line}")
        found.add(Package(Kind.PYPI, canonicalize_name(wanted.name), pins[0]))
    return sorted(found)


def from_locks(paths: Iterable[Path]) -> dict[Package, list[str]]:
    """Pin -> names of the locks that have it.

    Raises:
        ValueError: a lock cannot be read; it is named.
    """
    found: dict[Package, list[str]] = {}
    for path in sorted(paths):
        try:
            pins = from_lock(path.read_text())
        except (OSError, ValueError) as error:
            raise ValueError(f"{path.name}: {error}") from error
        for pin in pins:
            found.setdefault(pin, []).append(path.name)
    return found


def distro(os_release: str) -> tuple[str, str]:
    """(id, version) of an /etc/os-release, as in ("debian", "12"); empty where it does not say."""
    fields = {key: value.strip('"') for key, value in re.findall(r"^([A-Z_]+)=(.*)$", os_release, re.MULTILINE)}
    return fields.get("ID", ""), fields.get("VERSION_ID", "")
