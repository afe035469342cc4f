"""kill -9 under load: one predictor, Redis, MLflow. Users notice at most that an answer says why it is degraded."""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from collections.abc import Iterator

import pytest
import redis

from benchmarks.open_load import Load
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.lab.stack import Stack
from flightdeck.lab.supervisor import Supervisor
from services.predictor.online_store import entity_key, feature_field, timestamp_field

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(600)]
RATE_PER_S = 40


@pytest.fixture
def stack(layout: StateLayout, ports: dict[str, int], release: Release) -> Iterator[Stack]:
    with Supervisor(layout.run, layout.logs) as supervisor:
        stack = Stack(layout, ports, supervisor)
        stack.start_stores()
        stack.start_tracking()
        names = stack.start_predictors(release)
        stack.start_gateway(names)
        supervisor.wait(["redis-online", "redis-streams"], 20)
        store_congestion(ports["redis-online"])
        supervisor.wait(["gateway", *names, "mlflow"], 240)
        yield stack


def store_congestion(port: int) -> None:
    """A fresh row of the view `congestion` for EWR, as Feast would write it."""
    now = int(time.time())
    varint = b""
    while now > 0x7F:
        varint, now = varint + bytes([now & 0x7F | 0x80]), now >> 7
    stamp = b"\x08" + varint + bytes([now])
    values = {feature_field("congestion", name): b"\x35" + struct.pack("<f", 3.0)
              for name in ("departures_1h", "mean_dep_delay_min_1h")}  # fmt: skip
    client = redis.Redis(port=port)
    client.hset(entity_key("flightdeck", {"origin": "EWR"}), mapping={**values, timestamp_field("congestion"): stamp})
    client.close()


def kill(stack: Stack, name: str) -> None:
    (pid,) = [status.pid for status in stack.supervisor.status() if status.name == name]
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def wait_recovered(stack: Stack, name: str) -> None:
    """Until the supervisor has started `name` anew and found it well."""
    deadline = time.monotonic() + 240  # MLflow takes 6 s to start, and a minute on a machine that does much else
    while time.monotonic() < deadline:
        (status,) = [status for status in stack.supervisor.status() if status.name == name]
        if status.restarts == 1 and status.healthy:
            return
        time.sleep(0.1)
    raise AssertionError(f"{name} did not recover: {status}\n{stack.supervisor.log_tail(name)}")


@pytest.mark.slow
def test_killing_a_predictor_redis_and_mlflow_fails_no_request(stack: Stack, request_row: dict[str, object]):
    body = json.dumps({"rows": [request_row]}).encode()
    second = stack.replicas()[1].name
    with Load(stack.ports["gateway"], body, rate_per_s=RATE_PER_S) as load:
        time.sleep(2)
        calm = time.monotonic()
        time.sleep(0.5)
        assert load.since(calm)
        assert not [answer for answer in load.since(calm) if answer.reasons], load.since(calm)[0]

        kill(stack, second)
        time.sleep(1)
        kill(stack, "mlflow")
        killed = time.monotonic()
        kill(stack, "redis-online")
        wait_recovered(stack, "redis-online")
        recovered = time.monotonic()
        time.sleep(3)
        well_again = time.monotonic()
        wait_recovered(stack, second)
        time.sleep(1)
    wait_recovered(stack, "mlflow")
    failed = [answer for answer in load.answers if answer.status != 200]
    assert not failed, f"{len(failed)} of {len(load.answers)} requests failed: {failed[:3]}"
    without_store = [answer for answer in load.since(killed) if answer.reasons]
    assert without_store, "answers without the online store must say that they are degraded"
    assert all("congestion" in answer.reasons[0] for answer in without_store), without_store[0]
    assert recovered - killed < 20
    assert load.since(well_again)
    assert not [answer for answer in load.since(well_again) if answer.reasons], "a killed Redis loses nothing"
