"""What a release carries: notes out of CHANGELOG.md, every overlay rendered with digests, checksums of all files."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

TAG = re.compile(r"v\d+\.\d+\.\d+(?:[a-z0-9.-]*)")
SUMS = "SHA256SUMS"


class NoRelease(ValueError):
    """This commit cannot be released under this tag; the words say what to do."""


def version_of(tag: str, project: str) -> str:
    """The version of a tag `v1.2.3`, which is that of pyproject.toml.

    Raises:
        NoRelease: the tag is no version, or another one.
    """
    if not TAG.fullmatch(tag):
        raise NoRelease(f"the tag {tag[:40]!r} is no version; name it like v1.2.3")
    wanted, found = tag[1:], tomllib.loads(project)["project"]["version"]
    if wanted != found:
        raise NoRelease(
            f"the tag says {wanted}, pyproject.toml says {found}: set the version there, commit, tag that commit"
        )
    return wanted


def notes(version: str, changelog: str) -> str:
    """The section of CHANGELOG.md about this version.

    Raises:
        NoRelease: there is none, or nothing is in it.
    """
    pieces = re.split(r"^## ", changelog, flags=re.M)
    for piece in pieces[1:]:
        title, _, body = piece.partition("\n")
        if title.strip().strip("[]").split(" ")[0].strip("[]") == version and body.strip():
            return body.strip() + "\n"
    raise NoRelease(
        f"CHANGELOG.md has no section `## {version}` with something in it: rename `## Unreleased`, commit, tag that"
    )


def write(folder: Path, files: Mapping[str, str]) -> Path:
    """All files and their checksums, in the form that `sha256sum --check` reads; returns the checksums' file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in sorted(files.items()))
    (folder / SUMS).write_text(sums)
    return folder / SUMS
