"""The keeper of replicas on real predictor processes: what is wanted comes, what is not goes, deaths are counted."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.lab.faults import with_fault
from flightdeck.lab.rollout.replicas import ReleaseSeen, ReplicaKeeper, observed_of, want
from flightdeck.lab.stack import Stack
from flightdeck.lab.supervisor import Supervisor

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(300)]


def until(true: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if true():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def stack(layout: StateLayout, ports: dict[str, int]) -> Iterator[Stack]:
    with Supervisor(layout.run, layout.logs) as supervisor:
        stack = Stack(layout, ports, supervisor)
        stack.start_stores()
        yield stack


def test_replicas_come_and_go_as_wanted_and_their_deaths_are_counted(
    stack: Stack, layout: StateLayout, release: Release
):
    def seen(of: Release) -> ReleaseSeen:
        return observed_of(layout, of)

    broken = release.model_copy(update={"image": with_fault("test", "crash-at-start")})
    keeper = ReplicaKeeper(stack)
    keeper.start()
    time.sleep(0.5)
    assert stack.replicas() == (), "nobody has said what is wanted"

    want(layout, [(release, 2), (broken, 1)])
    assert until(lambda: len(seen(release).ready) == 2), seen(release)
    assert {end.name for end in seen(release).ready} == {f"late-{release.id}-1", f"late-{release.id}-2"}
    assert (seen(release).running, seen(release).deaths) == (2, 0)
    assert until(lambda: seen(broken).deaths >= 2), seen(broken)
    assert seen(broken).ready == ()
    assert "exited with 1" in seen(broken).last_death

    first = {replica.name: replica for replica in seen(release).replicas}
    name = f"late-{release.id}-1"
    os.killpg(first[name].pid or 0, signal.SIGKILL)
    assert until(lambda: seen(release).deaths == 1)
    assert [end.name for end in seen(release).ready] == [f"late-{release.id}-2"]
    assert seen(release).last_death == "killed by SIGKILL"
    assert until(lambda: len(seen(release).ready) == 2)
    again = {replica.name: replica for replica in seen(release).replicas}
    assert again[name].port == first[name].port
    assert again[name].pid != first[name].pid

    keeper.stop()  # as when its process is replaced: another one goes on with what is there
    keeper = ReplicaKeeper(stack)
    keeper.start()
    want(layout, [(release, 1)])
    assert until(lambda: seen(release).running == 1 and seen(broken).running == 0)
    assert [end.name for end in seen(release).ready] == [name]
    assert {replica.pid for replica in seen(release).replicas} == {again[name].pid}, "the one that stays is not touched"
    keeper.stop()


def test_a_worker_that_dies_alone_is_a_death_of_its_replica(stack: Stack, layout: StateLayout, release: Release):
    import psutil

    (name,) = stack.start_predictors(release, 1)
    stack.supervisor.wait([name], 60)

    def status():
        return next(status for status in stack.supervisor.status() if status.name == name)

    (worker,) = psutil.Process(status().pid).children()
    worker.kill()
    killed = time.monotonic()
    assert until(lambda: status().deaths == 1, 10)
    assert time.monotonic() - killed < 2, "its socket takes connections that nobody answers"
    assert status().last_death == "its worker died"
