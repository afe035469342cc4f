"""Adapter: starts each image as a pod would be shut in at most: read-only, any user, no capability, no network."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import tempfile
import textwrap
import time
from pathlib import Path

from flightdeck.cluster.commands import CommandFailed, run

USER = "65532:65532"  # not the image's own 10001: nothing in it may depend on who it runs as
SHUT = (
    "--read-only", "--user", USER, "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none",
    "--tmpfs", "/tmp:rw,mode=1777,size=512m", "--pids-limit", "512", "--memory", "2g",  # noqa: S108 - inside
)  # fmt: skip
DEADLINE_S = 180
MODEL_FOLDER = "/models"

_ASK = """
import json, sys, time, urllib.request
def ask(path, body=None):
    sent = json.dumps(body).encode() if body is not None else None
    headers = {"content-type": "application/json", "host": "localhost"}
    asked = urllib.request.Request("http://127.0.0.1:" + PORT + path, sent, headers)
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return answer.read().decode()
for left in range(DEADLINE_S):
    try:
        ask(HEALTH)
        break
    except OSError as error:
        last = error
        time.sleep(1)
else:
    sys.exit(f"no answer of {HEALTH}: {last}")
"""


@dataclasses.dataclass(frozen=True)
class Smoke:
    """What proves that an image works.

    Args:
        proves: in a few words.
        command: what runs in it; empty: what the image starts as.
        ask: Python that asks the running server from inside and fails when it is not well; empty: the command ends by
            itself.
        model: the tiny model of the tests is mounted.
    """

    proves: str
    command: tuple[str, ...] = ()
    ask: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    model: bool = False


def _server(port: int, health: str, then: str = "") -> str:
    head = f"PORT, HEALTH, DEADLINE_S = '{port}', '{health}', {DEADLINE_S}"
    return head + _ASK + textwrap.dedent(then)


_IMPORT_ALL = """
import importlib, pkgutil, sys
whole = importlib.import_module(sys.argv[1])
names = [it.name for it in pkgutil.walk_packages(whole.__path__, sys.argv[1] + ".") if not it.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names), "modules")
"""
_DEFINITIONS = """
from pipelines.orchestration.definitions import defs
found = defs.resolve_all_job_defs() if hasattr(defs, "resolve_all_job_defs") else defs.get_all_job_defs()
assert found, "no job is defined"
print(len(list(found)), "jobs")
"""
_SCORE = """
    features = [it["name"] for it in json.loads(ask("/v1/manifest"))["features"]]
    answer = json.loads(ask("/v1/score", {"rows": [{name: 0.0 for name in features}]}))
    score = answer["predictions"][0]["score"]
    assert 0 <= score <= 1, answer
"""
SMOKES = {
    "predictor": Smoke("loads a tiny model and scores a row", ask=_server(3000, "/readyz", _SCORE), model=True),
    "operator": Smoke(
        "every module of it loads", ("python", "-c", _IMPORT_ALL, "services.rollout_operator"),
    ),
    "pipelines": Smoke("all definitions load", ("python", "-c", _DEFINITIONS)),
    "mlflow": Smoke(
        "the server makes its schema and answers",
        (
            "mlflow", "server", "--host=127.0.0.1", "--port=5000", "--workers=1",
            "--backend-store-uri=sqlite:////tmp/mlflow.db", "--artifacts-destination=/tmp/artefacts",
        ),
        _server(5000, "/health"),
    ),
}  # fmt: skip


def smoke(name: str, tag: str, root: Path) -> float:
    """Run an image's smoke test; returns how long it took, seconds.

    Raises:
        CommandFailed: it does not work; with the image's last words.
    """
    it, started = SMOKES[name], time.monotonic()
    container = f"flightdeck-smoke-{name}-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder:
        given = dict(it.environment)
        mounts: tuple[str, ...] = ()
        if it.model:
            sha256 = tiny_model(Path(folder), root)
            mounts = ("--volume", f"{folder}:{MODEL_FOLDER}:ro")
            given |= {
                "PREDICTOR_MODEL_NAME": "smoke", "PREDICTOR_MODEL_VERSION": "1", "PREDICTOR_MODEL_SHA256": sha256,
                "PREDICTOR_ARTEFACTS": MODEL_FOLDER,
            }  # fmt: skip
        said = tuple(part for key, value in given.items() for part in ("--env", f"{key}={value}"))
        try:
            run(
                ("docker", "run", "--detach", "--name", container, *SHUT, *mounts, *said, tag, *it.command),
                timeout_s=60,
            )
            _prove(it, container)
        except CommandFailed as error:
            raise CommandFailed(f"{error}\n  its last words:\n{_last_words(container)}") from error
        finally:
            with contextlib.suppress(CommandFailed):  # it may never have been made; why is what counts
                run(("docker", "rm", "--force", "--volumes", container), timeout_s=60)
    return time.monotonic() - started


def _prove(it: Smoke, container: str) -> None:
    if it.ask:
        run(("docker", "exec", container, "python", "-c", it.ask), timeout_s=DEADLINE_S + 30)
        return
    code = run(("docker", "wait", container), timeout_s=DEADLINE_S).strip()
    if code != "0":
        raise CommandFailed(f"{it.command[0]} ended with {code}")


def _last_words(container: str) -> str:
    try:
        both = run(("sh", "-c", 'docker logs --tail 12 "$1" 2>&1', "sh", container), timeout_s=30)
    except CommandFailed as error:
        both = str(error)
    return textwrap.indent(both.strip() or "(none)", "    ")


def tiny_model(folder: Path, root: Path) -> str:
    """Write the linear model that the predictor's own tests serve; returns its sha256.

    Raises:
        CommandFailed: the checkout does not have it.
    """
    source = root / "benchmarks" / "linear_artefact.py"
    found = importlib.util.spec_from_file_location("flightdeck_linear_artefact", source)
    if found is None or found.loader is None or not source.is_file():
        raise CommandFailed(f"{source} is not there: the predictor's smoke test serves its model; run it in a checkout")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    sha256 = str(module.write_linear_artefact(folder, model="smoke"))
    for path in (folder, *folder.rglob("*")):  # another user reads it
        path.chmod(0o755 if path.is_dir() else 0o644)
    return sha256
