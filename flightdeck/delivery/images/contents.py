"""What must not be in an image, and what of it tells its packages. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from flightdeck.delivery.images.packages import Kind, Package, distro, from_dpkg, from_metadata

_SMALL = 64 * 1024  # bytes; a key or a settings file is no larger
_KEY = re.compile(rb"^-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----\r?\n", re.MULTILINE)
_OF_OTHERS = ("usr/", "venv/lib/", "lib/", "var/lib/", "etc/ssl/")  # the base's, and installed packages
_KEY_FILES = re.compile(r"(^|/)(id_(rsa|dsa|ecdsa|ed25519)|[^/]*\.(p12|pfx|jks)|\.netrc|\.pypirc|\.git-credentials)$")
_DPKG, _RELEASES = "var/lib/dpkg/status", ("etc/os-release", "usr/lib/os-release")
_TESTS_OF_PACKAGES = re.compile(r"site-packages/.*/tests?/")


def wanted(path: str, size: int) -> bool:
    """Whether the content of a file of an image is needed for what follows."""
    if path == _DPKG or path in _RELEASES or _is_metadata(path):
        return True
    return size <= _SMALL and (not path.startswith(_OF_OTHERS) or path.endswith((".pem", ".key")))


def forbidden(files: Iterable[tuple[str, bytes | None]]) -> list[str]:
    """What must not be in an image, each with why.

    Args:
        files: (path, content) of every layer: what a later one hides or overwrites can still be pulled.
    """
    found: dict[str, str] = {}
    for path, content in files:
        why = _why(path, content)
        if why:
            found.setdefault(why, path)
    return sorted(f"/{path}: {why}" for why, path in found.items())


def _why(path: str, content: bytes | None) -> str:
    parts = PurePosixPath(path).parts
    ours = not path.startswith(_OF_OTHERS)
    if ".git" in parts:
        return "the repository's history"
    if parts[-1] == ".env" or (parts[-1].startswith(".env.") and ours):
        return "settings of a machine, often with passwords"
    if (_KEY_FILES.search(path) or (content and _KEY.search(content))) and not _TESTS_OF_PACKAGES.search(path):
        return "a private key or a password"
    if ours and "tests" in parts[:-1]:
        return "tests, which never run there"
    return ""


def may_be_root(user: str) -> bool:
    """Whether an image's user is none, a name (nobody knows which number), or root's number."""
    number = user.partition(":")[0]
    return not number.isdigit() or int(number) == 0


def packages(
    files: Mapping[str, bytes | None], environment: Mapping[str, str]
) -> tuple[list[Package], tuple[str, str]]:
    """The packages of an image, and its distribution as (id, version).

    Raises:
        ValueError: a METADATA is none, or what tells packages was not read; it is named.
    """
    for path, content in files.items():
        if content is None and (path == _DPKG or _is_metadata(path)):
            raise ValueError(f"/{path}: a link whose content was not read; make it a file")
    release = next((text for it in _RELEASES if (text := files.get(it))), b"")
    found = from_dpkg((files.get(_DPKG) or b"").decode())
    for path, content in files.items():
        if content is not None and _is_metadata(path):
            try:
                found.append(from_metadata(content.decode(errors="replace")))
            except ValueError as error:
                raise ValueError(f"/{path}: {error}") from error
    if version := environment.get("PYTHON_VERSION"):
        found.append(Package(Kind.GENERIC, "python", version))
    return sorted(set(found)), distro(release.decode())


def _is_metadata(path: str) -> bool:
    return path.endswith(".dist-info/METADATA")
