"""Fetching from a real MLflow server, as a pod does that starts without the artefact."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from benchmarks.linear_artefact import write_linear_artefact
from flightdeck.contracts.artefact import ArtefactError
from services.predictor.artefacts import obtain_artefact


@pytest.fixture(scope="module")
def mlflow(tmp_path_factory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    stores = ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", str(folder / "artifacts")]
    env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1", *stores],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
        end_s = time.monotonic() + 90
        while time.monotonic() < end_s and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if client.get("/health").status_code == 200:
                    break
            time.sleep(0.2)
        else:
            raise AssertionError((folder / "log").read_text())
        yield client
    process.terminate()
    process.wait(20)


def call(client: httpx.Client, path: str, **body: object) -> dict:
    answer = client.post(f"/api/2.0/mlflow/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_registered_version_is_fetched_through_the_proxy_and_a_wrong_digest_is_refused(mlflow, tmp_path):
    sha256 = write_linear_artefact(tmp_path / "made")
    experiment = call(mlflow, "experiments/create", name="late")["experiment_id"]
    run = call(mlflow, "runs/create", experiment_id=experiment, start_time=1)["run"]["info"]
    path = run["artifact_uri"].removeprefix("mlflow-artifacts:/")
    for file in (tmp_path / "made" / sha256).iterdir():
        put = mlflow.put(f"/api/2.0/mlflow-artifacts/artifacts/{path}/artefact/{file.name}", content=file.read_bytes())
        assert put.status_code == 200, put.text
    call(mlflow, "registered-models/create", name="late")
    source = f"{run['artifact_uri']}/artefact"
    tags = [{"key": "sha256", "value": sha256}]
    version = call(mlflow, "model-versions/create", name="late", source=source, run_id=run["run_id"], tags=tags)
    number = version["model_version"]["version"]

    def obtain(wanted: str, of: str):
        return obtain_artefact(
            artefacts=tmp_path / "fetched", name="late", version=of, sha256=wanted, tracking_uri=str(mlflow.base_url)
        )

    folder, manifest = obtain(sha256, number)
    assert (folder.name, manifest.model) == (sha256, "late")
    with pytest.raises(ArtefactError, match=f"is registered with sha256 {sha256}, asked for e{{64}}"):
        obtain("e" * 64, number)
    with pytest.raises(ArtefactError, match="MLflow answered 404"):
        obtain("e" * 64, "99")
    assert [one.name for one in (tmp_path / "fetched").iterdir()] == [sha256]
