"""Journals on real databases: SQLite always, Postgres where its programs are."""

from __future__ import annotations

import datetime as dt
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flightdeck.contracts.model_spec import ModelSpec, load_model_spec, specs_folder
from flightdeck.contracts.retrain import Severity, Trigger, TriggerKind
from flightdeck.lab.ports import free_port

NOW = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)
NOBODY = 65534


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Postgres of our own, without a database of it."""
    if not (shutil.which("initdb") and shutil.which("postgres")):
        pytest.skip("no initdb and postgres on PATH")
    folder, port = tmp_path_factory.mktemp("postgres"), free_port()
    user: dict[str, int] = {}
    if os.getuid() == 0:  # Postgres refuses to be root
        user = {"user": NOBODY, "group": NOBODY}
        os.chown(folder, NOBODY, NOBODY)
        for parent in folder.parents:
            if parent == Path("/tmp"):
                break
            parent.chmod(parent.stat().st_mode | 0o011)
    data = folder / "data"
    options = ["-k", str(folder), "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    subprocess.run(
        ["initdb", "-D", str(data), "-U", "flightdeck", "-A", "trust", "--no-sync"],
        check=True, capture_output=True, timeout=200, cwd=folder, **user,
    )  # fmt: skip
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(["postgres", "-D", str(data), *options], stdout=log, stderr=log, cwd=folder, **user)
    address = f"postgresql+psycopg2://flightdeck@127.0.0.1:{port}"
    try:
        _answers(address, server, folder / "log")
        yield address
    finally:
        server.send_signal(signal.SIGINT)  # at once, whoever is still connected
        server.wait(30)


def _answers(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    from sqlalchemy import create_engine
    from sqlalchemy.exc import OperationalError

    engine = create_engine(f"{address}/postgres")
    for _ in range(800):
        try:
            with engine.connect():
                return
        except OperationalError:
            assert server.poll() is None, log.read_text()[-2000:]
            time.sleep(0.1)
    pytest.fail(log.read_text()[-2000:])


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new, empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'governor.db'}"
    address = request.getfixturevalue("postgres")
    from sqlalchemy import create_engine, text

    name = f"governor_{abs(hash(str(tmp_path)))}"
    with create_engine(f"{address}/postgres", isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    return f"{address}/{name}"


@pytest.fixture
def spec() -> ModelSpec:
    """`late`, which trains at once, whatever asks; cool-down 9 minutes, no schedule."""
    late = load_model_spec(specs_folder() / "late.yaml")
    content = late.model_dump(mode="json") | {
        "retrain": {
            "triggers": {"new_data": "train", "drift": "train", "quality": "train"},
            "cool_down": "PT9M", "budget_per_day": 100,
        }
    }  # fmt: skip
    return ModelSpec.model_validate(content)


@pytest.fixture
def trigger() -> Callable[..., Trigger]:
    def make(kind: str = "drift", at: dt.datetime = NOW, number: int = 0, severity: str = "warning") -> Trigger:
        return Trigger(
            model="late", kind=TriggerKind(kind), at=at, evidence=f"{kind} {number}: PSI 0.31", source="test",
            severity=Severity(severity),
        )  # fmt: skip

    return make
