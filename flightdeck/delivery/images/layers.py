"""Adapter: reads an image out of Docker, layer by layer, without starting it."""

from __future__ import annotations

import dataclasses
import io
import json
import posixpath
import subprocess
import tarfile
from collections.abc import Callable
from typing import IO, Any, cast

from flightdeck.cluster.commands import CommandFailed, run

_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
Wanted = Callable[[str, int], bool]  # (path, bytes) -> whether the content is kept


@dataclasses.dataclass(frozen=True)
class Layer:
    """What one layer adds: path -> content, None where it was not asked for or is a link's; and what it takes away."""

    files: dict[str, bytes | None]
    gone: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Image:
    """What is known of an image.

    Args:
        digest: of the image, as Docker names it.
        user: that it starts as.
        layers: from the base upwards; a file that a later layer hides is still in there.
    """

    digest: str
    created: str
    user: str
    environment: dict[str, str]
    layers: tuple[Layer, ...]

    @property
    def shipped(self) -> list[tuple[str, bytes | None]]:
        """Every file of every layer: whoever pulls the image can read also what a later layer hides or overwrites."""
        return [it for layer in self.layers for it in layer.files.items()]

    @property
    def files(self) -> dict[str, bytes | None]:
        """What a container sees."""
        seen: dict[str, bytes | None] = {}
        for layer in self.layers:
            for gone in layer.gone:
                seen = {path: it for path, it in seen.items() if path != gone and not path.startswith(gone + "/")}
            seen |= layer.files
        return seen


def read(tag: str, wanted: Wanted) -> Image:
    """An image of the local Docker.

    Raises:
        CommandFailed: Docker is absent, or has no such image.
    """
    said: dict[str, Any] = json.loads(run(("docker", "image", "inspect", tag), timeout_s=60))[0]
    config = said["Config"]
    environment = dict(it.partition("=")[::2] for it in config.get("Env") or ())
    with subprocess.Popen(("docker", "image", "save", tag), stdout=subprocess.PIPE) as saving:
        assert saving.stdout
        try:
            layers = read_archive(saving.stdout, wanted)
        except (tarfile.TarError, KeyError, ValueError) as error:
            saving.kill()
            raise CommandFailed(f"docker image save {tag}: not understood: {error!r}") from error
    if saving.returncode:
        raise CommandFailed(f"docker image save {tag} ended with {saving.returncode}")
    return Image(said["Id"], said["Created"], config.get("User", ""), environment, layers)


def read_archive(stream: IO[bytes], wanted: Wanted) -> tuple[Layer, ...]:
    """The layers of what `docker image save` writes, in order; read once, as it comes.

    Raises:
        TarError, KeyError, ValueError: it is no such archive.
    """
    layers: dict[str, Layer] = {}
    links: dict[str, str] = {}
    manifest: list[dict[str, Any]] = []
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.issym():  # older archives link layers that are equal
                links[member.name] = _target(member.name, member.linkname)
            opened = archive.extractfile(member) if member.isreg() else None
            if opened is None:
                continue
            buffered = io.BufferedReader(cast(io.RawIOBase, opened))
            if member.name == "manifest.json":
                manifest = json.load(buffered)
            elif _may_be_layer(member.name) and buffered.peek(1)[:1] not in (b"{", b""):
                layers[member.name] = _layer(buffered, wanted)
    (image,) = manifest
    return tuple(layers[links.get(name, name)] for name in image["Layers"])


def _may_be_layer(name: str) -> bool:
    """By name: OCI's blobs (configurations, which begin with a brace, are blobs too), or the older layout."""
    return name.startswith("blobs/") or name.endswith("/layer.tar")


def _target(name: str, target: str) -> str:
    """Where a link inside an archive leads."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), target))


def _layer(stream: IO[bytes], wanted: Wanted) -> Layer:
    files: dict[str, bytes | None] = {}
    gone = []
    with tarfile.open(fileobj=stream, mode="r|*") as layer:
        for member in layer:
            path = _path(member.name)
            folder, _, name = path.rpartition("/")
            if name == _OPAQUE:
                gone.append(folder)
            elif name.startswith(_WHITEOUT):
                gone.append(f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/"))
            elif member.islnk():  # to a file before it in the same layer
                files[path] = files.get(_path(member.linkname))
            elif not member.isdir():
                kept = layer.extractfile(member) if member.isreg() and wanted(path, member.size) else None
                files[path] = kept.read() if kept else None
    return Layer(files, tuple(gone))


def _path(name: str) -> str:
    return name.removeprefix("./").lstrip("/")
