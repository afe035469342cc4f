"""An artefact as an OCI image, pushed to a registry of the test's own process."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import re
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flightdeck.contracts.artefact import MANIFEST, ArtefactError
from pipelines.registry.oci import PushFailed, image_of, push_model


@pytest.fixture
def artefact(tmp_path: Path) -> tuple[Path, str]:
    from tests.integration.lab.conftest import write_artefact

    sha256 = write_artefact(tmp_path)
    return tmp_path / sha256, sha256


class Registry(http.server.BaseHTTPRequestHandler):
    """As much of the distribution API as a push needs; refuses a blob whose digest is not that of its bytes."""

    blobs: dict[str, bytes]
    manifests: dict[str, bytes]
    spoils = False

    def log_message(self, *_: object) -> None: ...

    def _say(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"content-length": "0", **headers}.items():
            self.send_header(key, value)
        self.end_headers()

    def do_HEAD(self) -> None:
        kind, name = self.path.split("/")[-2:]
        there = name in (self.blobs if kind == "blobs" else self.manifests)
        self._say(200 if there else 404)

    def do_POST(self) -> None:
        self._say(202, location=f"{self.path}one?state=x")

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        if "/manifests/" in self.path:
            if not self.spoils:
                self.manifests[digest] = content
            self._say(201)
            return
        asked = re.search(r"digest=(sha256(?::|%3A)[0-9a-f]{64})", self.path)
        ok = asked is not None and asked[1].replace("%3A", ":") == digest and "state=x" in self.path
        if ok:
            self.blobs[digest] = content
        self._say(201 if ok else 400)


@pytest.fixture
def registry() -> Iterator[tuple[str, type[Registry]]]:
    handler = type("Handler", (Registry,), {"blobs": {}, "manifests": {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/models", handler
    server.shutdown()
    server.server_close()


def test_equal_content_has_an_equal_digest_whenever_it_is_packed(artefact: tuple[Path, str], tmp_path: Path):
    folder, sha256 = artefact
    first = image_of(folder, sha256)
    for path in folder.iterdir():
        path.chmod(0o600)
        os.utime(path, (1, 1))
    assert image_of(folder, sha256) == first


def test_the_layer_holds_the_artefact_readable_for_every_user(artefact: tuple[Path, str]):
    folder, sha256 = artefact
    with tarfile.open(fileobj=io.BytesIO(image_of(folder, sha256).layer)) as tar:
        assert {it.name for it in tar} == {path.name for path in folder.iterdir()} > {MANIFEST}
        for it in tar:
            assert (it.mode, it.uid, it.mtime) == (0o644, 0, 0)
            found = tar.extractfile(it)
            assert found is not None and found.read() == (folder / it.name).read_bytes()


def test_a_push_stores_all_parts_and_names_the_image_as_nodes_do(
    artefact: tuple[Path, str], registry: tuple[str, type[Registry]]
):
    (folder, sha256), (url, stored) = artefact, registry
    image = image_of(folder, sha256)
    said = push_model(folder, sha256, name="late", push=url, pull="localhost:5001/models")
    assert said == f"localhost:5001/models/late@{image.digest}"
    assert stored.manifests == {image.digest: image.manifest}
    assert set(stored.blobs.values()) == {image.layer, image.config}
    assert push_model(folder, sha256, name="late", push=url, pull="localhost:5001/models") == said


def test_a_registry_that_stored_something_else_is_found_out(
    artefact: tuple[Path, str], registry: tuple[str, type[Registry]]
):
    (folder, sha256), (url, stored) = artefact, registry
    stored.spoils = True
    with pytest.raises(PushFailed, match="find late@sha256"):
        push_model(folder, sha256, name="late", push=url)


def test_an_altered_artefact_is_not_pushed(artefact: tuple[Path, str], registry: tuple[str, type[Registry]]):
    (folder, sha256), (url, stored) = artefact, registry
    (folder / "model.onnx").write_bytes(b"other")
    with pytest.raises(ArtefactError):
        push_model(folder, sha256, name="late", push=url)
    assert not stored.blobs


@pytest.mark.parametrize(
    ("url", "words"), [("kind-registry:5000/x", "not an address"), ("http://127.0.0.1:9/x", "not answer")]
)
def test_a_registry_that_is_not_there_is_told(artefact: tuple[Path, str], url: str, words: str):
    with pytest.raises(PushFailed, match=words):
        push_model(*artefact, name="late", push=url)
