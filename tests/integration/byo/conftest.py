"""A second use case, bikes, through the same code as flights: its model made once, its predictor asked once."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from flightdeck.contracts.clock import CLOCK_KEY, ReplayClock
from flightdeck.contracts.layout import STATE_ENV, StateLayout
from flightdeck.lab.ports import free_port
from flightdeck.lab.programs import find
from pipelines.features.registry import ONLINE_REDIS_ENV
from pipelines.use_case import USE_CASE_ENV

HERE = Path(__file__).parent
BIKES = HERE / "bikes"
NOW = dt.datetime(2024, 4, 28, 10, 30, tzinfo=dt.UTC)  # half an hour before the hour that is asked for
ONLINE_DB, STREAMS_DB = 0, 1
SPENT_S = 240  # on a machine that does nothing else each process takes a tenth of it


@dataclasses.dataclass(frozen=True)
class Bikes:
    """Where the second use case lives while it is tested, and the environment that every process of it gets."""

    layout: StateLayout
    redis_port: int
    environment: dict[str, str]

    def run(self, script: str, *arguments: str, given: str = "", more: dict[str, str] | None = None) -> list[Any]:
        """The JSON lines that a script of this folder prints."""
        done = subprocess.run(
            [sys.executable, str(HERE / script), *arguments],
            env=self.environment | (more or {}), cwd=self.layout.root, input=given,
            capture_output=True, text=True, timeout=SPENT_S, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{script} exited {done.returncode}:\n{done.stderr[-4000:]}"
        return [json.loads(line) for line in done.stdout.splitlines()]

    def streams(self) -> redis.Redis:
        """The Redis database with clock and prediction log."""
        return redis.Redis(port=self.redis_port, db=STREAMS_DB, socket_timeout=5)


@pytest.fixture(scope="session")
def bikes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bikes]:
    """State folder and Redis of the second use case; its clock stands still at `NOW`."""
    layout, port = StateLayout(tmp_path_factory.mktemp("bikes")), free_port()
    server = subprocess.Popen(
        [find("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("FLIGHTDECK_", "PREDICTOR_"))
    }
    environment = inherited | {
        "PYTHONPATH": str(BIKES),  # before the checkout: `feature_repo` is the second use case's
        USE_CASE_ENV: "bike_share.use_case:USE_CASE",
        STATE_ENV: str(layout.root),
        ONLINE_REDIS_ENV: f"127.0.0.1:{port}",
        "OMP_NUM_THREADS": "1",  # two threads on a busy machine wait for each other: 24 s of training instead of 5
    }
    found = Bikes(layout, port, environment)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                with found.streams() as client:
                    client.hset(CLOCK_KEY, mapping=ReplayClock(NOW, time.time(), speed=0).to_mapping())
                break
            except redis.RedisError:
                assert server.poll() is None, "redis-server ended at once"
                assert time.monotonic() < deadline, "redis-server does not answer"
                time.sleep(0.05)
        yield found
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def made(bikes: Bikes) -> dict[str, Any]:
    """What `make_model.py` made: from the source to a promoted version, features in Redis."""
    database = f"sqlite:///{bikes.layout.mlflow_db}"  # MLflow's own store; the gates' tests have its server
    return bikes.run("make_model.py", str(BIKES / "specs" / "full.yaml"), NOW.isoformat(), database)[-1]


@dataclasses.dataclass(frozen=True)
class Asked:
    """The predictor's answers to the requests below, each (status, body), and its modules by name."""

    predicted: tuple[int, Any]
    unknown_station: tuple[int, Any]
    flight: tuple[int, Any]
    api: tuple[int, Any]
    modules: dict[str, str]


@pytest.fixture(scope="session")
def asked(bikes: Bikes, made: dict[str, Any]) -> Asked:
    """One predictor process with the promoted version, asked for every station."""
    hour = (NOW + dt.timedelta(minutes=30)).isoformat()
    stations = [{"station": name.partition("@")[0], "at_utc": hour} for name in made["offline"]]
    flight = {"carrier": "UA", "flight": 1545, "origin": "EWR", "dest": "IAH", "sched_dep_utc": hour}
    requests = [
        ["POST", "/v1/predict", {"rows": stations}],
        ["POST", "/v1/predict", {"rows": [{"station": "S99", "at_utc": hour}]}],
        ["POST", "/v1/predict", {"rows": [flight]}],
        ["GET", "/openapi.json", None],
    ]
    champion = made["champion"]
    settings = {
        "PREDICTOR_MODEL_NAME": champion["name"],
        "PREDICTOR_MODEL_VERSION": champion["version"],
        "PREDICTOR_MODEL_SHA256": champion["sha256"],
        "PREDICTOR_ARTEFACTS": str(bikes.layout.artefacts),
        "PREDICTOR_ONLINE_REDIS_URL": f"redis://127.0.0.1:{bikes.redis_port}/{ONLINE_DB}",
        "PREDICTOR_STREAMS_REDIS_URL": f"redis://127.0.0.1:{bikes.redis_port}/{STREAMS_DB}",
        "PREDICTOR_FEATURES_TIMEOUT_S": "5",  # the machine may be busy; the deadline is not what is tested here
    }
    *answers, modules = bikes.run("ask.py", given="".join(f"{json.dumps(item)}\n" for item in requests), more=settings)
    return Asked(*(tuple(answer) for answer in answers), modules=modules)
