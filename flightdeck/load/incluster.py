"""Adapter: a load test as a Job in the cluster, started, followed, and its outcomes read from its log."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from flightdeck.cluster import images, manifests
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.names import K8S, SERVING
from flightdeck.lab.users import Arrival, Outcome
from flightdeck.load.__main__ import OUTCOMES
from flightdeck.load.plan import GRACE_S, LoadPlan, Refused

JOB, PLAN = "load", "load-plan"
MOST_BYTES = 700_000  # of requests: a ConfigMap holds a mebibyte, and carries them as base64
START_S = 180.0


def run_job(
    kubectl: Kubectl,
    plan: LoadPlan,
    requests: Sequence[Arrival],
    *,
    registry: str,
    state: Path,
    tell: Callable[[str], None],
) -> list[Outcome]:
    """Build and push the image where needed, run the Job, return what became of each request.

    Raises:
        Refused: another load test is at work, or the Job did not run to its end.
        CommandFailed: docker or the API server refuses.
    """
    there = kubectl.find("job", JOB, SERVING)
    if there and not (there.get("status", {}).get("succeeded") or there.get("status", {}).get("failed")):
        raise Refused(f"a load test is at work in {SERVING}; wait, or `kubectl -n {SERVING} delete job {JOB}`")
    images.build("load", tell=tell)
    reference = images.push("load", registry, state=state, tell=tell)
    inside = msgspec.structs.replace(plan, requests="/plan/requests", outcomes="/tmp/outcomes")  # noqa: S108
    documents = manifests.kustomize(K8S / "load")
    for document in documents:
        if document["kind"] == "Job":
            document["spec"]["template"]["spec"]["containers"][0]["image"] = reference
    if there:
        kubectl("delete", "job", JOB, "-n", SERVING, "--wait=true")
    kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=flightdeck-load", "-f", "-",
        stdin=manifests.as_yaml([_plan(inside, requests), *documents]),
    )  # fmt: skip
    tell(f"Job {JOB} in {SERVING}: {plan.total:,} requests to {plan.url}")
    try:
        return _outcomes(_log(kubectl, plan))
    finally:
        kubectl("delete", "configmap", PLAN, "-n", SERVING, "--ignore-not-found")


def _plan(plan: LoadPlan, requests: Sequence[Arrival]) -> dict[str, Any]:
    """A ConfigMap with the plan and as many of the requests as it holds; they are sent in turn anyway."""
    kept, size = list[Arrival](), 0
    for request in requests:
        size += len(request.body) + len(request.entity_id) + 16
        if size > MOST_BYTES:
            break
        kept.append(request)
    packed = base64.b64encode(msgspec.msgpack.encode(kept)).decode()
    meta = {"name": PLAN, "namespace": SERVING, "labels": {"app.kubernetes.io/part-of": "flightdeck"}}
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": meta,
        "data": {"plan.json": json.dumps(msgspec.to_builtins(plan))}, "binaryData": {"requests": packed},
    }  # fmt: skip


def _log(kubectl: Kubectl, plan: LoadPlan) -> str:
    deadline = time.monotonic() + START_S + plan.seconds + GRACE_S
    while time.monotonic() < deadline:
        status = kubectl.get("job", JOB, "-n", SERVING).get("status", {})
        if status.get("succeeded") or status.get("failed"):
            return kubectl("logs", f"job/{JOB}", "-n", SERVING, "--tail=-1")
        time.sleep(1)
    pods = kubectl("get", "pods", "-n", SERVING, "-l", f"app.kubernetes.io/name={JOB}", "-o", "wide")
    raise Refused(f"the Job {JOB} did not end in time:\n{pods}")


def _outcomes(log: str) -> list[Outcome]:
    """From the line that carries them.

    Raises:
        Refused: there is no such line; with the log's end.
    """
    for line in reversed(log.splitlines()):
        if line.startswith(OUTCOMES):
            packed = zlib.decompress(base64.b64decode(line.removeprefix(OUTCOMES)))
            return msgspec.msgpack.decode(packed, type=list[Outcome])
    raise Refused("the Job told no outcomes:\n" + "\n".join(log.strip().splitlines()[-8:]))
