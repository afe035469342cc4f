"""Adapter: files as an OCI image in a registry, pushed and pulled (image-spec 1.1; distribution-spec 1.1).

One layer, made so that equal content has equal bytes. The package `oras` packs tars with the time of packing, so the
same content would get another digest each time; the few requests that are needed stand below.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import io
import json
import os
import re
import tarfile
import urllib.parse
from collections.abc import Generator, Iterator, Mapping

import httpx

USER_ENV, PASSWORD_ENV = "FLIGHTDECK_MODEL_USER", "FLIGHTDECK_MODEL_PASSWORD"  # the registry's, if it asks
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
TIMEOUT_S = 60
ASK_LOGIN = f"set {USER_ENV} and {PASSWORD_ENV} to a login that may"


class RegistryFailed(RuntimeError):
    """The registry does not answer, refuses, or does not hold what is asked for."""


@dataclasses.dataclass(frozen=True)
class OciImage:
    """The bytes of an image: what is pushed."""

    layer: bytes
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        """`sha256:...` of the manifest: what names the image."""
        return digest_of(self.manifest)


def digest_of(content: bytes) -> str:
    """As OCI writes it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def image_with(files: Mapping[str, bytes], annotations: Mapping[str, str]) -> OciImage:
    """The image of these files; they lie at the root, readable for every user."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644  # times, owner and group stay 0: equal content, equal bytes
            tar.addfile(entry, io.BytesIO(content))
    layer = buffer.getvalue()
    config = _json(
        {
            "architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
        }
    )  # fmt: skip
    document = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": digest_of(config), "size": len(config)},
            "layers": [{"mediaType": LAYER_TYPE, "digest": digest_of(layer), "size": len(layer)}],
            "annotations": dict(annotations),
        }
    )
    return OciImage(layer, config, document)


def _json(content: dict[str, object]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


class Login(httpx.Auth):
    """Answers what a registry asks for: nothing, basic authentication, or a token of its own (ghcr.io, Docker Hub).

    User and password come from the environment; without them a token is asked for as anybody.

    Args:
        pushes: ask at once for a token that may push: some registries refuse one that may not instead of asking again.
    """

    requires_response_body = True

    def __init__(self, *, pushes: bool) -> None:
        self._pushes = pushes
        user = os.environ.get(USER_ENV)
        login = f"{user}:{os.environ.get(PASSWORD_ENV, '')}".encode()
        self._basic = f"Basic {base64.b64encode(login).decode()}" if user else None
        self._header: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """See httpx."""
        if self._header:
            request.headers["authorization"] = self._header
        answer = yield request
        kind, _, rest = answer.headers.get("www-authenticate", "").partition(" ")
        if answer.status_code != httpx.codes.UNAUTHORIZED:
            return
        if kind.lower() == "basic" and self._basic:
            self._header = self._basic
        elif kind.lower() == "bearer":
            asked = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            realm = asked.pop("realm", "")
            if self._pushes:
                asked["scope"] = re.sub(r":pull$", ":pull,push", asked.get("scope", ""))
            token = httpx.Request("GET", realm, params={k: v for k, v in asked.items() if k in {"service", "scope"}})
            if self._basic:
                token.headers["authorization"] = self._basic
            told = yield token
            body = told.json() if told.status_code == httpx.codes.OK else {}
            word = body.get("token") or body.get("access_token")
            if not word:  # httpx takes the last answer for the registry's: never let this one pass for it
                raise RegistryFailed(
                    f"{realm} gives no token for {asked.get('scope', 'anything')}: {told.status_code}; {ASK_LOGIN}"
                )
            self._header = f"Bearer {word}"
        else:
            return
        request.headers["authorization"] = self._header
        yield request


def address(text: str) -> tuple[str, str]:
    """`(https://host, path)` of an address with or without a scheme; a registry on this machine speaks plain HTTP.

    Raises:
        ValueError: it names no host or no path.
    """
    if "://" not in text:
        host = text.partition("/")[0]
        name = host.partition(":")[0]
        local = name == "localhost" or name.startswith("127.") or "." not in name
        text = f"{'http' if local else 'https'}://{text}"
    at = urllib.parse.urlsplit(text)
    if at.scheme not in ("http", "https") or not at.netloc:
        raise ValueError(f"{text}: not an address like http://kind-registry:5000/flightdeck/models")
    return f"{at.scheme}://{at.netloc}", at.path.strip("/")


def push(image: OciImage, base: str, repository: str, tag: str) -> None:
    """Push an image under a tag. Safe to repeat: what the registry has is not sent again.

    Args:
        base: scheme and host.
    Raises:
        RegistryFailed: the registry does not answer, refuses, or stored something else.
    """
    name = repository.rpartition("/")[2]
    with _client(base, pushes=True) as client:
        for blob in (image.layer, image.config):
            _push_blob(client, repository, blob)
        url = f"/v2/{repository}/manifests/{tag}"
        put = client.put(url, content=image.manifest, headers={"content-type": MANIFEST_TYPE})
        _expect(put, 201, f"put the manifest of {name}")
        found = client.head(f"/v2/{repository}/manifests/{image.digest}", headers={"accept": MANIFEST_TYPE})
        _expect(found, 200, f"find {name}@{image.digest} again")


def pull(base: str, repository: str, tag: str) -> dict[str, bytes]:
    """The files of an image that `push` made, every byte checked against the manifest's digests.

    Args:
        tag: or a digest.
    Raises:
        RegistryFailed: it is not there, is another kind of image, or was altered.
    """
    with _client(base) as client:
        found = client.get(f"/v2/{repository}/manifests/{tag}", headers={"accept": MANIFEST_TYPE})
        _expect(found, 200, f"give {repository}:{tag}")
        if tag.startswith("sha256:") and digest_of(found.content) != tag:
            raise RegistryFailed(f"{repository}@{tag}: the registry gave another manifest")
        try:
            (layer,) = found.json()["layers"]
            if layer["mediaType"] != LAYER_TYPE:
                raise ValueError(f"its layer is {layer['mediaType']}")
            wanted = str(layer["digest"])
        except (ValueError, KeyError, TypeError) as error:
            raise RegistryFailed(f"{repository}:{tag} is no image of one plain layer: {error}") from error
        blob = client.get(f"/v2/{repository}/blobs/{wanted}")
        _expect(blob, 200, f"give the layer of {repository}:{tag}")
    if digest_of(blob.content) != wanted:
        raise RegistryFailed(f"{repository}:{tag}: the layer's bytes are not those that {wanted} names")
    try:
        with tarfile.open(fileobj=io.BytesIO(blob.content)) as tar:
            return {it.name: part.read() for it in tar if (part := tar.extractfile(it)) is not None}
    except tarfile.TarError as error:
        raise RegistryFailed(f"{repository}:{tag}: its layer is no tar: {error}") from error


@contextlib.contextmanager
def _client(base: str, *, pushes: bool = False) -> Iterator[httpx.Client]:
    try:
        with httpx.Client(base_url=base, auth=Login(pushes=pushes), timeout=TIMEOUT_S, follow_redirects=True) as client:
            yield client
    except httpx.HTTPError as error:
        raise RegistryFailed(f"the registry at {base} does not answer: {error or type(error).__name__}") from error


def _push_blob(client: httpx.Client, repository: str, content: bytes) -> None:
    digest = digest_of(content)
    if client.head(f"/v2/{repository}/blobs/{digest}").status_code == httpx.codes.OK:
        return
    started = client.post(f"/v2/{repository}/blobs/uploads/")
    _expect(started, 202, "start an upload")
    where = httpx.URL(started.headers["location"])
    place = where.copy_merge_params({"digest": digest})
    done = client.put(place, content=content, headers={"content-type": "application/octet-stream"})
    _expect(done, 201, f"upload {len(content):,} bytes")


def _expect(answer: httpx.Response, status: int, what: str) -> None:
    if answer.status_code == status:
        return
    refused = answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
    hint = f"; {ASK_LOGIN}" if refused else ""
    raise RegistryFailed(
        f"the registry at {answer.request.url.host} did not {what}: {answer.status_code} {answer.text[:300]}{hint}"
    )
