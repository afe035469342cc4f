"""The copy in a real MLflow server: set, put back, made up for after the server was away."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from flightdeck.contracts.release import ModelRef, Release
from services.rollout_operator.kube.registry import REPEAT_S, Copies, Mlflow
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.registry_copy import Copy, Found, Write

START_S, STOP_S = 200, 20


class Server:
    """MLflow on a port of its own, with its store in a folder; it can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.process, self.adapters = folder, None, []
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=10, trust_env=False)

    def start(self) -> None:
        stores = ["--backend-store-uri", f"sqlite:///{self.folder}/db", "--artifacts-destination", str(self.folder)]
        env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # a group of its own: its workers end with it
                [*argv, "--workers", "1", *stores], cwd=self.folder, env=env, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        end_s = time.monotonic() + START_S
        while time.monotonic() < end_s and self.process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if self.client.get("/health").status_code == 200:
                    return
            time.sleep(0.2)
        raise AssertionError((self.folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, 15)
            self.process.wait(STOP_S)
        self.process = None

    def post(self, path: str, **body: Any) -> Any:
        answer = self.client.post(f"/api/2.0/mlflow/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def get(self, path: str, **query: str) -> Any:
        answer = self.client.get(f"/api/2.0/mlflow/{path}", params=query)
        return answer.json()

    def adapter(self) -> Mlflow:
        self.adapters.append(Mlflow(f"http://127.0.0.1:{self.port}"))
        return self.adapters[-1]

    def alias(self) -> str | None:
        return (
            self.get("registered-models/alias", name="late", alias="champion").get("model_version", {}).get("version")
        )

    def tags(self, version: str) -> dict[str, str]:
        found = self.get("model-versions/get", name="late", version=version)["model_version"]
        return {it["key"]: it["value"] for it in found["tags"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("mlflow"))
    try:
        found.start()
        found.post("registered-models/create", name="late")
        run = found.post("runs/create", experiment_id="0", start_time=1)["run"]["info"]
        for version in "123":
            found.post("model-versions/create", name="late", source=f"{run['artifact_uri']}/artefact",
                       run_id=run["run_id"], tags=[{"key": "sha256", "value": version * 64}])  # fmt: skip
        yield found
    finally:
        found.stop()
        for client in (found.client, *(it.client for it in found.adapters)):
            client.close()


class Counted:
    """The adapter, with what was asked of it."""

    def __init__(self, mlflow: Mlflow) -> None:
        self.mlflow, self.looks, self.written = mlflow, 0, []

    def find(self, copy: Copy) -> Found:
        self.looks += 1
        return self.mlflow.find(copy)

    def write(self, model: str, what: Write) -> None:
        self.written.append(what)
        self.mlflow.write(model, what)


class Operator:
    """Its thread's work, step by step, with a clock of our own."""

    def __init__(self, server: Server) -> None:
        self.now_s, self.told = 0.0, []
        self.mlflow = Counted(server.adapter())
        self.copies = Copies(self.mlflow, lambda _, words: self.told.append(words), lambda: self.now_s)

    def says(self, **status: Any) -> float:
        self.copies.keep("late", {"metadata": {"name": "late"}, "status": status})
        return self.copies.step()


def release(version: str, sha256: str = "") -> Any:
    model = ModelRef(name="late", version=version, sha256=sha256 or version * 64)
    found = Release.model_validate({"image": "code", "model": model, "featureService": "late_v1"})
    return found.model_dump(mode="json", by_alias=True, exclude_none=True)


def test_alias_and_tags_follow_and_agree_without_another_write(server):
    operator = Operator(server)
    assert operator.says(phase="canary", champion=release("1"), candidate=release("2")) == REPEAT_S
    assert server.alias() == "1"
    assert server.tags("1")["rollout"] == "champion" and server.tags("2")["rollout"] == "canary"
    entry = {"candidate": Release.model_validate(release("2")).id, "source": "promoting", "target": "done",
             "at": "2026-01-01T00:00:00Z", "reason": "v2 is champion"}  # fmt: skip
    operator.says(phase="done", champion=release("2"), history=[entry])
    assert server.alias() == "2" and server.tags("1")["rollout"] == "retired"
    assert server.tags("2")["rollout_since_utc"] == "2026-01-01T00:00:00Z"
    assert server.tags("2")["rollout_reason"] == "v2 is champion"
    assert server.tags("3") == {"sha256": "3" * 64}, "no part in it"
    written = len(operator.mlflow.written)
    operator.now_s += REPEAT_S
    operator.says(phase="done", champion=release("2"))
    assert len(operator.mlflow.written) == written and not operator.told
    assert Operator(server).says(phase="done", champion=release("2")) == REPEAT_S, "as a new operator"


def test_an_alias_and_a_tag_that_a_hand_moved_are_put_back(server):
    operator = Operator(server)
    operator.says(phase="done", champion=release("2"))
    server.post("registered-models/alias", name="late", alias="champion", version="3")
    server.post("model-versions/set-tag", name="late", version="3", key="rollout", value="champion")
    operator.says(phase="done", champion=release("2"))
    assert server.alias() == "3", "an idle rollout asks nothing"
    operator.now_s += REPEAT_S
    operator.copies.step()
    assert server.alias() == "2" and server.tags("3")["rollout"] == "retired"


def test_a_rollout_that_completes_while_the_server_is_away_is_made_up_for(server):
    operator = Operator(server)
    operator.says(phase="done", champion=release("1"))
    server.stop()
    waits = [operator.says(phase="done", champion=release("2"))]
    for _ in range(7):
        operator.now_s += waits[-1]
        waits.append(operator.copies.step())
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60] and not operator.told
    asked = operator.mlflow.looks
    operator.says(phase="done", champion=release("2"))
    assert operator.mlflow.looks == asked, "a tick while it is away asks nothing"
    with pytest.raises(Unavailable):
        operator.mlflow.mlflow.find(Copy("late", None, {}))
    server.start()
    assert server.alias() == "1"
    operator.now_s += 60
    assert operator.copies.step() == REPEAT_S
    assert server.alias() == "2" and server.tags("1")["rollout"] == "retired"


@pytest.mark.parametrize(("missing", "words"), [(release("9"), "no version 9"), (release("3", "a" * 64), "sha256 333")])
def test_what_the_registry_does_not_have_is_told_once_and_moves_nothing(server, missing, words):
    operator = Operator(server)
    operator.says(phase="done", champion=release("2"))
    for _ in range(5):
        operator.says(phase="done", champion=missing)
        operator.now_s += 1
    assert server.alias() == "2" and len(operator.told) == 1 and words in operator.told[0]
    assert operator.mlflow.looks == 2, "not asked again every second"
    operator.now_s += REPEAT_S
    operator.copies.step()
    assert operator.mlflow.looks == 3 and len(operator.told) == 1


def test_a_model_that_the_registry_does_not_know_is_told_and_nothing_fails(server):
    operator = Operator(server)
    other = release("1")
    other["model"]["name"] = "early"
    assert operator.says(phase="done", champion=other) == REPEAT_S
    assert operator.told == ["the registry has no version 1 of early"]


def test_the_thread_keeps_the_copy_and_no_caller_waits(server):
    operator = Operator(server)
    copies = Copies(server.adapter(), lambda _, words: operator.told.append(words))
    copies.start()
    began_s = time.monotonic()
    copies.keep("late", {"metadata": {"name": "late"}, "status": {"phase": "done", "champion": release("3")}})
    assert time.monotonic() - began_s < 1
    end_s = time.monotonic() + 30
    while server.alias() != "3":
        assert time.monotonic() < end_s and not operator.told, operator.told
        time.sleep(0.1)
