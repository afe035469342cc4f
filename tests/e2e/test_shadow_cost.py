"""What a candidate that hangs in the shadow costs the champion's users: rounds with and without copies, in turn."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.open_load import Load
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import SERVING
from flightdeck.lab.users import percentile
from services.rollout_operator.kube import routes
from tests.e2e.conftest import Figures, first_failure, until_ready
from tests.e2e.rollouts import OPERATOR, RATE_PER_S, Drill

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]
ROUNDS, ROUND_S, SETTLE_S = 5, 12.0, 2.0
MIRROR = "RequestMirror"
COST_RATIO = 1.5  # of the medians: on two shared cores the same round twice differs by as much as a third


@contextlib.contextmanager
def nobody_puts_back(kubectl: Kubectl) -> Iterator[None]:
    """Without the operator a route stays as it was edited."""
    kubectl("scale", "deployment", "rollout-operator", "-n", SERVING, "--replicas=0")
    try:
        kubectl("wait", "pod", "-n", SERVING, "-l", OPERATOR, "--for=delete", "--timeout=90s")
        yield
    finally:
        kubectl("scale", "deployment", "rollout-operator", "-n", SERVING, "--replicas=1")
        until_ready(kubectl, only=lambda name: "operator" in name)


@pytest.mark.parametrize("name", ["slow-2s", "code-fine"])
def test_a_shadow_costs_the_champions_users_nothing(
    drill: Drill, users: Load, kubectl: Kubectl, figures: Figures, name: str
):
    """`code-fine` is the control: an honest shadow takes its share of two cores, and nothing else."""
    drill.ask(drill.candidate(name))
    drill.in_phase("shadow", 120)
    drill.watch.until(lambda it: it.mirrored, 30, "copied to the candidate")

    def send(rules: list[dict[str, Any]]) -> None:
        kubectl(
            "patch",
            "httproute",
            drill.model,
            "-n",
            SERVING,
            "--type=merge",
            "-p",
            json.dumps({"spec": {"rules": rules}}),
        )
        time.sleep(SETTLE_S)

    with nobody_puts_back(kubectl):
        copying = kubectl.get("httproute", drill.model, "-n", SERVING)["spec"]["rules"]
        assert any(routes.mirrors(rule) for rule in copying), "the candidate was sent home before it was measured"
        alone = [
            {**rule, "filters": [it for it in rule.get("filters", ()) if it["type"] != MIRROR]} for rule in copying
        ]
        seconds: dict[str, list[list[float]]] = {"alone": [], "copied": []}
        for _ in range(ROUNDS):
            for kind, rules in (("alone", alone), ("copied", copying)):
                send(rules)
                began = time.monotonic()
                time.sleep(ROUND_S)
                answers = users.since(began)
                assert not [it for it in answers if it.status != 200], first_failure(answers)
                assert len(answers) > RATE_PER_S * ROUND_S / 2, f"only {len(answers)} requests in a round"
                seconds[kind].append([it.seconds for it in answers])
    drill.end(users, f"shadow of {name} measured", 400)
    for quantile in (0.5, 0.99):
        ms = {
            kind: statistics.median(1000 * percentile(found, quantile) for found in rounds)
            for kind, rounds in seconds.items()
        }
        for kind, value in ms.items():
            figures.add(f"p{100 * quantile:.0f} of users, {name} {kind}", value, unit="ms")
        limit = COST_RATIO if quantile == 0.5 else None  # a p99 of 480 requests is five of them
        figures.add(
            f"p{100 * quantile:.0f} with copies to {name}, as a multiple", ms["copied"] / ms["alone"], limit, "x"
        )
