"""Which artefact is loaded and which is refused; the registry is a small HTTP server with MLflow's calls."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.linear_artefact import write_linear_artefact
from flightdeck.contracts.artefact import ArtefactError
from services.predictor.artefacts import obtain_artefact
from services.predictor.model import Model


class Registry:
    """Serves one artefact folder as run `r1`'s `artefact`, as MLflow's proxy does."""

    def __init__(self, folder: Path, sha256_tag: str) -> None:
        registry = self
        self.folder, self.tag, self.source = folder, sha256_tag, "mlflow-artifacts:/1/r1/artifacts/artefact"
        self.logins: set[str | None] = set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.logins.add(self.headers["authorization"])
                status, content = registry.answer(self.path)
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.uri = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, path: str) -> tuple[int, bytes]:
        parts = urllib.parse.urlsplit(path)
        if parts.path.endswith("/model-versions/get"):
            return 200, json.dumps({"model_version": {"tags": [{"key": "sha256", "value": self.tag}]}}).encode()
        if parts.path.endswith("/model-versions/get-download-uri"):
            return 200, json.dumps({"artifact_uri": self.source}).encode()
        proxied = "/api/2.0/mlflow-artifacts/artifacts/1/r1/artifacts/artefact/"
        file = self.folder / parts.path.removeprefix(proxied)
        if parts.path.startswith(proxied) and file.is_file():
            return 200, file.read_bytes()
        return 404, b'{"error_code":"RESOURCE_DOES_NOT_EXIST"}'


@pytest.fixture
def registry(tmp_path) -> Iterator[Registry]:
    sha256 = write_linear_artefact(tmp_path / "registry")
    served = Registry(tmp_path / "registry" / sha256, sha256)
    yield served
    served.server.shutdown()
    served.server.server_close()


def obtain(folder: Path, sha256: str, uri: str | None = None, name: str = "late"):
    return obtain_artefact(artefacts=folder, name=name, version="7", sha256=sha256, tracking_uri=uri, timeout_s=5)


def test_an_artefact_in_the_folder_needs_no_registry(tmp_path):
    sha256 = write_linear_artefact(tmp_path)
    folder, manifest = obtain(tmp_path, sha256, "http://127.0.0.1:1")
    assert folder == tmp_path / sha256
    assert Model(folder, manifest).score is not None


def test_an_absent_artefact_is_fetched_whole_and_leaves_nothing_else_behind(tmp_path, registry):
    folder, _ = obtain(tmp_path / "a", registry.tag, registry.uri)
    assert [path.name for path in (tmp_path / "a").iterdir()] == [registry.tag]
    assert (folder / "model.onnx").read_bytes() == (registry.folder / "model.onnx").read_bytes()


def test_an_artefact_altered_in_the_registry_is_refused_and_not_kept(tmp_path, registry):
    with (registry.folder / "model.onnx").open("r+b") as file:
        file.write(b"\0\0\0\0")
    with pytest.raises(ArtefactError, match="refusing to load it"):
        obtain(tmp_path / "a", registry.tag, registry.uri)
    assert list((tmp_path / "a").iterdir()) == []


def test_a_version_registered_with_another_digest_is_refused(tmp_path, registry):
    asked = registry.tag
    registry.tag = "b" * 64
    with pytest.raises(ArtefactError, match=f"registered with sha256 b{{64}}, asked for {asked}"):
        obtain(tmp_path / "a", asked, registry.uri)


def test_a_manifest_with_another_digest_is_refused(tmp_path, registry):
    asked = registry.tag = "c" * 64
    with pytest.raises(ArtefactError, match=r"manifest has sha256 .* asked for c{64}"):
        obtain(tmp_path / "a", asked, registry.uri)


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", None])
def test_no_registry_and_no_folder_is_told_in_words(tmp_path, uri):
    with pytest.raises(ArtefactError, match=r"cannot fetch it from|PREDICTOR_TRACKING_URI is not set"):
        obtain(tmp_path, "d" * 64, uri)


def test_the_registrys_password_is_used_and_stands_in_no_message(tmp_path, registry):
    uri = registry.uri.replace("http://", "http://reader:s%2Fkret@")
    obtain(tmp_path / "a", registry.tag, uri)
    assert registry.logins == {"Basic " + base64.b64encode(b"reader:s/kret").decode()}
    registry.source = "mlflow-artifacts:/nowhere"
    for asked in (registry.tag, "e" * 64):
        with pytest.raises(ArtefactError) as caught:
            obtain(tmp_path / "b", asked, uri)
        assert "kret" not in str(caught.value)


def test_an_artefact_outside_the_proxy_is_not_fetched(tmp_path, registry):
    registry.source = "file:///somewhere"
    with pytest.raises(ArtefactError, match="only proxied artefacts"):
        obtain(tmp_path / "a", registry.tag, registry.uri)


def test_another_models_artefact_is_refused(tmp_path):
    sha256 = write_linear_artefact(tmp_path, model="delay")
    with pytest.raises(ArtefactError, match="this is a model 'delay', asked for 'late'"):
        obtain(tmp_path, sha256)


def test_an_altered_folder_is_refused(tmp_path):
    sha256 = write_linear_artefact(tmp_path)
    with (tmp_path / sha256 / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ArtefactError, match="refusing to load it"):
        obtain(tmp_path, sha256)


def test_a_model_whose_width_is_not_the_manifests_is_refused(tmp_path):
    sha256 = write_linear_artefact(tmp_path, weights=[0.1] * 3)
    folder, manifest = obtain(tmp_path, sha256)
    with pytest.raises(ArtefactError, match=r"cannot run it with \d+ features"):
        Model(folder, manifest)
