"""Adapter: who looks up what is known against a bill of materials. FLIGHTDECK_SCANNER names one; by default none."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from flightdeck.cluster.commands import CommandFailed, run
from flightdeck.cluster.images import pinned
from flightdeck.cluster.names import CHECKOUT
from flightdeck.delivery.images import bill
from flightdeck.delivery.images.advisories import Severity, Vulnerability, known_against
from flightdeck.delivery.images.packages import Kind

SCANNER_ENV = "FLIGHTDECK_SCANNER"  # trivy: with the database it fetches; osv: a folder of advisories
ADVISORIES_ENV = "FLIGHTDECK_ADVISORIES"  # that folder
Scanner = Callable[[Path], list[Vulnerability]]
_OF_TRIVY = {Kind.DEB: "os-pkgs", Kind.PYPI: "lang-pkgs"}


class CannotScan(RuntimeError):
    """Nothing can be said about what is known against a bill."""


def named(environment: Mapping[str, str], *, state: Path, root: Path = CHECKOUT) -> Scanner | None:
    """The scanner that the environment names; None when it names none.

    Raises:
        CannotScan: it names one that is not there.
    """
    name = environment.get(SCANNER_ENV, "")
    if not name:
        return None
    if name == "trivy":
        return Trivy(pinned("scanner", root), state / "trivy")  # not in ci/, which goes to the run's artefacts
    if name == "osv":
        folder = environment.get(ADVISORIES_ENV, "")
        if not folder or not Path(folder).is_dir():
            raise CannotScan(f"{SCANNER_ENV}=osv needs {ADVISORIES_ENV}, a folder of OSV files; found: {folder or '-'}")
        return Advisories(Path(folder))
    raise CannotScan(f"{SCANNER_ENV} is trivy or osv, not {name}")


class Advisories:
    """A folder of advisories in the OSV format, one JSON file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, path: Path) -> list[Vulnerability]:
        """Raises CannotScan when a file is no advisory, or there is none."""
        advisories = []
        for file in sorted(self.folder.rglob("*.json")):
            try:
                advisory = json.loads(file.read_text())
                advisory["id"], advisory["affected"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise CannotScan(f"{file} is no advisory in the OSV format: {error!r}") from error
            advisories.append(advisory)
        if not advisories:
            raise CannotScan(f"no advisory in {self.folder}")
        return known_against(bill.packages_of(path.read_text()), advisories)


class Trivy:
    """The image aquasec/trivy by digest over the bill alone: it sees neither our images nor Docker."""

    def __init__(self, image: str, cache: Path) -> None:
        self.image, self.cache = image, cache

    def __call__(self, path: Path) -> list[Vulnerability]:
        """Raises CannotScan when it does not run, gets no database, or did not see what is in the bill."""
        self.cache.mkdir(parents=True, exist_ok=True)
        try:
            answer = run(
                (
                    "docker", "run", "--rm", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp",  # noqa: S108 - inside
                    "--user", f"{os.getuid()}:{os.getgid()}", "--volume", f"{path.resolve()}:/bill.cdx.json:ro",
                    "--volume", f"{self.cache.resolve()}:/cache", "--env", "TMPDIR=/cache",
                    "--env", "TRIVY_DISABLE_TELEMETRY=true", "--env", "TRIVY_SKIP_VERSION_CHECK=true",
                    self.image, "sbom", "--cache-dir", "/cache", "--quiet", "--list-all-pkgs", "--format", "json",
                    "/bill.cdx.json",
                ),
                timeout_s=600,
            )  # fmt: skip
        except CommandFailed as error:
            raise CannotScan(f"trivy: {error}") from error
        kinds = {it.kind for it in bill.packages_of(path.read_text())}
        return read_trivy(answer, kinds)


def read_trivy(answer: str, kinds: set[Kind]) -> list[Vulnerability]:
    """Trivy's JSON.

    Args:
        kinds: of the packages in the bill: a kind that Trivy did not see would read like one without a finding.
    Raises:
        CannotScan: no such JSON, or a kind of package was not looked at.
    """
    try:
        results: list[dict[str, Any]] = json.loads(answer)["Results"]
        seen = {it["Class"] for it in results}
        blind = sorted(str(kind) for kind in kinds if kind in _OF_TRIVY and _OF_TRIVY[kind] not in seen)
        if blind:
            raise CannotScan(f"trivy looked at no {' and no '.join(blind)} package of the bill; it looked at: {seen}")
        return [
            Vulnerability(
                it["VulnerabilityID"], kind := Kind.DEB if result["Class"] == "os-pkgs" else Kind.PYPI,
                canonicalize_name(it["PkgName"]) if kind is Kind.PYPI else it["PkgName"], it["InstalledVersion"],
                Severity.of(it.get("Severity", "")), re.split(r",\s*", it.get("FixedVersion", ""))[-1],
                it.get("Title", ""),
            )
            for result in results for it in result.get("Vulnerabilities") or ()
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError) as error:
        raise CannotScan(f"trivy's answer is not understood: {error!r}") from error
