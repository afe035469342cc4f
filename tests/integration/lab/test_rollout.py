"""A rollout over real processes under load: its controller is killed in mid-canary, then a person aborts it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.open_load import Load
from flightdeck.cli import main as cli
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import ModelRollout, parse_rollout
from flightdeck.lab.rollout.store import Status, Store
from flightdeck.lab.stack import Stack
from flightdeck.lab.supervisor import Supervisor
from services.rollout_operator.plan import Phase

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(300), pytest.mark.slow]
RATE_PER_S = 60.0
SPEC = """
apiVersion: flightdeck.dev/v1alpha1
kind: ModelRollout
metadata: {name: late}
spec:
  replicas: 2
  plan:
    - shadow: {minPairs: 100, deadline: 2m}
    - canary: {weight: 20, minRequests: 100000, deadline: 5m}
  judge: {margins: {errorRate: 0.05, scoreDelta: 0.2, featureSkew: 0.05}}
  onDeadline: abort
  onNoData: abort
  onNewRelease: queueNewest
"""


@pytest.fixture
def stack(layout: StateLayout, ports: dict[str, int]) -> Iterator[Stack]:
    with Supervisor(layout.run, layout.logs) as supervisor:
        stack = Stack(layout, ports, supervisor)
        stack.start_stores()
        supervisor.wait(["redis-online", "redis-streams"], 20)
        yield stack
        stack.keeper.stop()


def of_image(release: Release, image: str) -> ModelRollout:
    return parse_rollout(SPEC, release=release.model_copy(update={"image": image}))


def wait(store: Store, reached: Callable[[Status], bool], timeout_s: float = 120) -> Status:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        status = store.read_status("late")
        if status and status.state and reached(status):
            return status
        time.sleep(0.1)
    raise AssertionError(f"never came; last: {status.state if status else None}")


def in_phase(phase: Phase) -> Callable[[Status], bool]:
    return lambda status: status.state is not None and status.state.phase is phase


def controller_pid(stack: Stack) -> int:
    (pid,) = [status.pid for status in stack.supervisor.status() if status.name == "rollouts"]
    assert pid is not None
    return pid


def test_a_controller_killed_in_mid_canary_goes_on_and_an_abort_costs_no_request(
    stack: Stack, layout: StateLayout, release: Release, request_row: dict[str, object]
):
    store = Store(layout.rollouts)
    store.apply(of_image(release, "one"), "test")
    stack.start_serving()
    wait(store, in_phase(Phase.DONE))

    with Load(stack.ports["gateway"], json.dumps({"rows": [request_row]}).encode(), rate_per_s=RATE_PER_S) as users:
        users.more(50)
        store.apply(of_image(release, "two"), "test")
        wait(store, in_phase(Phase.CANARY))
        before = wait(store, lambda status: status.weight == 20)
        users.more(150)

        killed = controller_pid(stack)
        os.kill(killed, signal.SIGKILL)
        after = wait(store, lambda status: status.controller_pid not in {0, killed})
        assert after.state and before.state
        assert (after.state.phase, after.state.since_s) == (Phase.CANARY, before.state.since_s), "it began anew"
        both = users.more(150)
        assert len({answer.upstream for answer in both}) > 2, "users are still with both releases"

        with pytest.raises(SystemExit) as ended:
            cli.main(["rollout", "abort", "late", "--note", "by hand", "--state", str(layout.root)])
        assert ended.value.code == 0
        aborted = wait(store, in_phase(Phase.ABORTED))
        users.more(100)
    assert aborted.state and "by hand" in aborted.state.reason
    assert not users.failed, f"{len(users.failed)} of {len(users.answers)} failed: {users.failed[:3]}"
    assert aborted.weight == 0
    targets = [(item.source, item.target) for item in store.history("late")]
    assert targets.count((Phase.CANARY, Phase.ABORTING)) == 1
    assert len({item.serial for item in store.history("late")}) == len(targets)
