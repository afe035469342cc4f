"""A bill of materials in CycloneDX: equal packages give an equal file, and none is written that the schema refuses."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from collections.abc import Iterable
from pathlib import Path

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from flightdeck.delivery.images.packages import Kind, Package

FOLDER = "ci/sbom"  # under the state folder
_TRIVY = "aquasecurity:trivy:"  # Trivy finds Debian's advisories by these and by nothing else


class BillError(ValueError):
    """A bill of materials that its schema refuses."""


def of_image(
    name: str, digest: str, packages: Iterable[Package], *, distro: tuple[str, str] = ("", ""), created: str = ""
) -> str:
    """The bill of an image as JSON.

    Args:
        digest: of the image, `sha256:...`: the root component's version.
        distro: as packages.distro gives it; without one Debian's packages cannot be matched to advisories.
        created: ISO time of the image; the file has no time of its own, so that it is equal for equal images.
    Raises:
        BillError: the schema refuses it.
    """
    purl = PackageURL(type="oci", name=name.rpartition("/")[2], version=digest)
    root = Component(name=name, type=ComponentType.CONTAINER, version=digest, purl=purl, bom_ref=digest)
    made = dt.datetime.fromisoformat(created) if created else None
    return _written(root, packages, distro, made, seed=f"{name}@{digest}")


def of_locks(packages: Iterable[Package]) -> str:
    """The bill of what the locks install, as JSON.

    Raises:
        BillError: the schema refuses it.
    """
    found = sorted(packages)
    root = Component(name="flightdeck", type=ComponentType.APPLICATION, bom_ref="flightdeck")
    return _written(root, found, ("", ""), None, seed=" ".join(it.words for it in found))


def packages_of(bill: str) -> list[Package]:
    """The packages of a bill that was written here."""
    found = []
    for it in json.loads(bill).get("components", ()):
        if "purl" not in it:
            continue
        purl = PackageURL.from_string(it["purl"])
        properties = {item["name"]: item["value"] for item in it.get("properties", ())}
        qualifiers = dict(purl.qualifiers) if isinstance(purl.qualifiers, dict) else {}
        epoch, version, release, source = (
            properties.get(f"{_TRIVY}Src{part}", "") for part in ("Epoch", "Version", "Release", "Name")
        )
        of_source = (f"{epoch}:" if epoch else "") + version + (f"-{release}" if release else "")
        found.append(
            Package(Kind(purl.type), purl.name, str(purl.version), source, of_source, qualifiers.get("arch", ""))
        )
    return found


def keep(bill: str, name: str, state: Path) -> Path:
    """Write it to `ci/sbom/<name>.cdx.json` under the state folder."""
    path = state / FOLDER / f"{name}.cdx.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(bill)
    return path


def _written(
    root: Component, packages: Iterable[Package], distro: tuple[str, str], made: dt.datetime | None, *, seed: str
) -> str:
    parts = [_component(it, "-".join(part for part in distro if part)) for it in sorted(set(packages))]
    if distro[0]:
        system = Component(name=distro[0], version=distro[1], type=ComponentType.OPERATING_SYSTEM, bom_ref="system")
        system.properties.update((Property(name=f"{_TRIVY}Type", value=distro[0]),
                                  Property(name=f"{_TRIVY}Class", value="os-pkgs")))  # fmt: skip
        parts.append(system)
    bom = Bom(
        components=parts, serial_number=uuid.uuid5(uuid.NAMESPACE_OID, seed),
        metadata=BomMetaData(component=root, timestamp=made or dt.datetime(1980, 1, 1, tzinfo=dt.UTC)),
    )  # fmt: skip
    bom.register_dependency(root, parts)
    text = JsonV1Dot6(bom).output_as_string(indent=1)
    refused = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if refused is not None:
        raise BillError(f"the bill of materials of {root.name} is not valid CycloneDX 1.6: {refused}")
    return text + "\n"


def _component(package: Package, distro: str) -> Component:
    purl = package.purl(distro)
    made = Component(
        name=package.name, version=package.version, purl=purl, bom_ref=purl.to_string(),
        type=ComponentType.APPLICATION if package.kind is Kind.GENERIC else ComponentType.LIBRARY,
    )  # fmt: skip
    if package.kind is Kind.DEB:
        epoch, _, rest = package.source_version.rpartition(":")
        version, _, release = rest.rpartition("-") if "-" in rest else (rest, "", "")
        said = {
            "PkgID": f"{package.name}@{package.version}", "PkgType": "debian", "SrcName": package.source,
            "SrcVersion": version, "SrcRelease": release, "SrcEpoch": epoch,
        }  # fmt: skip
        made.properties.update(Property(name=_TRIVY + key, value=value) for key, value in said.items() if value)
    return made
