"""A state folder with a real Redis and an applied registry; runs execute in this process, as they do in their pod."""

from __future__ import annotations

import dataclasses
import datetime as dt
import subprocess
import time
from collections.abc import Iterator

import dagster as dg
import pytest
import redis

from flightdeck.contracts.clock import ReplayClock
from flightdeck.contracts.layout import STATE_ENV, StateLayout
from flightdeck.lab.ports import free_port
from flightdeck.lab.programs import find
from pipelines.clock import set_clock
from pipelines.data.lake import Lake
from pipelines.orchestration.places import STREAMS_ENV

ONLINE_DB, STREAMS_DB = 0, 1


@dataclasses.dataclass
class World:
    """What a code location has around it, and the runs it made."""

    layout: StateLayout
    port: int
    instance: dg.DagsterInstance
    jobs: dict[str, dg.JobDefinition]

    @property
    def lake(self) -> Lake:
        return Lake(self.layout.lake)

    def clock(self, at: dt.datetime) -> None:
        with redis.Redis(port=self.port, db=STREAMS_DB) as streams:
            set_clock(streams, ReplayClock(at, time.time(), 0))

    def online_keys(self) -> int:
        with redis.Redis(port=self.port, db=ONLINE_DB) as online:
            return int(online.dbsize())

    def run(self, job: str, first: str, last: str | None = None, **config) -> dg.ExecuteInProcessResult:
        """One day, or a range of them in one run."""
        if last is None:
            asked = {"partition_key": first}
        else:
            ends = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
            asked = {"tags": ends}
        return self.jobs[job].execute_in_process(
            instance=self.instance, raise_on_error=False, run_config=config or None, **asked
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    layout, port = StateLayout(tmp_path_factory.mktemp("orchestration")), free_port()
    server = subprocess.Popen(
        [find("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
        stdout=subprocess.DEVNULL,
    )
    patch = pytest.MonkeyPatch()
    patch.delenv("FEAST_FS_YAML_FILE_PATH", raising=False)
    patch.setenv(STATE_ENV, str(layout.root))
    patch.setenv("FLIGHTDECK_ONLINE_REDIS", f"127.0.0.1:{port}")
    patch.setenv(STREAMS_ENV, f"redis://127.0.0.1:{port}/{STREAMS_DB}")
    try:
        deadline = time.monotonic() + 20
        with redis.Redis(port=port) as client:
            while True:
                try:
                    client.ping()
                    break
                except redis.RedisError:
                    assert time.monotonic() < deadline and server.poll() is None, "redis-server does not answer"
                    time.sleep(0.05)
        from pipelines.features.registry import apply
        from pipelines.orchestration.definitions import defs

        apply(layout)
        with dg.DagsterInstance.ephemeral() as instance:
            yield World(layout, port, instance, {job.name: job for job in defs.resolve_all_job_defs()})
    finally:
        patch.undo()
        server.terminate()
        server.wait(10)
