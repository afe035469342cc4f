"""Measures one rollout operator with many ModelRollouts before a real API server; ends non-zero beyond a bound.

Bounds (per operator, 1,000 ModelRollouts): one change reconciled within 2 s at the 99th percentile, 300 MB of memory,
2 API requests per idle rollout per minute.

A kind cluster of its own, made and deleted here, gives API server, etcd and garbage collector. Pods are gated from
scheduling, so that a thousand champions cost no machine; all else is what a rollout meets: the CRDs, a Deployment and a
Service per release, an HTTPRoute per model. A change is another image in `spec.release`; it is reconciled when the
status names the candidate and the candidate's Deployment is there. An abort then sends it home.

Requests are the API server's own count (`apiserver_request_total`, without watches) of the kinds that the operator
asks for, less what is counted in as much time before the operator starts.

    python benchmarks/bench_operator.py [--rollouts 1000] [--changes 100] [--idle-s 300]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.bench_serving import free_port, process  # noqa: E402
from benchmarks.operator_cluster import Cluster, cluster, release_of  # noqa: E402
from flightdeck.cluster.commands import run  # noqa: E402
from flightdeck.cluster.names import SERVING  # noqa: E402
from flightdeck.lab.programs import find  # noqa: E402
from services.rollout_operator.workloads import workload_name  # noqa: E402

CHANGE_P99_S, MEMORY_MB, REQUESTS_PER_MINUTE = 2.0, 300.0, 2.0
POLL_S, WITHIN_S, SETTLED_S, SETTLED_AFTER = 0.05, 60.0, 45.0, 10
TAKEN_OVER_S = 300.0  # by an operator that starts over all of them


def environment(folder: Path) -> Path:
    """The Python of an environment with what the operator's image has, and nothing else; returns it."""
    lock = ROOT / "requirements" / "operator.txt"
    run((sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, str(folder)))
    python = folder / "bin" / "python"
    install = ("pip", "install", "-q", "--python", str(python), "--require-hashes", "-r", str(lock))
    run((sys.executable, "-m", "uv", *install), timeout_s=600)
    return python


@contextlib.contextmanager
def operator(made: Cluster, folder: Path) -> Iterator[psutil.Process]:
    """The very process of the pod, with a Valkey of its own."""
    port, log = free_port(), folder / "operator.log"
    valkey = [str(find("redis-server")), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    env = {
        **os.environ, "KUBECONFIG": str(made.kubeconfig), "OPERATOR_NAMESPACE": SERVING,
        "OPERATOR_STREAMS_REDIS_URL": f"redis://127.0.0.1:{port}/0", "PYTHONPATH": str(ROOT),
        "OPERATOR_PORT": str(free_port()), "MALLOC_ARENA_MAX": "2",  # as in k8s/base/serving/operator.yaml
    }  # fmt: skip
    with process(valkey, dict(os.environ), folder / "valkey.log"):
        command = [str(environment(folder / "environment")), "-m", "services.rollout_operator.kube.operator"]
        with process(command, env, log) as started:
            try:
                yield psutil.Process(started.pid)
            except BaseException:
                print("the operator's last lines:\n" + "\n".join(log.read_text().splitlines()[-20:]), file=sys.stderr)
                raise
        left = [line for line in log.read_text().splitlines() if " ERROR " in line or " WARNING " in line]
        print(f"the operator's log has {len(left)} warnings and errors" + "".join(f"\n  {it}" for it in left[:5]))


def until(seen: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> float:
    """Seconds until it is seen."""
    began = time.monotonic()
    while not seen():
        if time.monotonic() - began > within_s:
            raise TimeoutError(f"not within {within_s:.0f} s: {what}")
        time.sleep(POLL_S)
    return time.monotonic() - began


def change(made: Cluster, name: str, code: str) -> float:
    """Ask for another release; returns the seconds until the operator has made it true. Then send it home."""
    release = release_of(name, code)
    made.want(name, release)
    took_s = until(
        lambda: (
            made.rollout(name)["status"].get("candidateRelease") == release.id
            and made.has_deployment(workload_name(release))
        ),
        f"{name}: candidate {release.id}",
    )
    made.order(name, "abort the bench has seen it")
    until(lambda: made.rollout(name)["status"].get("phase") == "aborted", f"{name}: aborted")
    return took_s


def idle(made: Cluster, seconds: float) -> float:
    """API requests per minute."""
    before, began = made.requests(), time.monotonic()
    time.sleep(seconds)
    return (made.requests() - before) / (time.monotonic() - began) * 60


def settled(made: Cluster) -> float:
    """API requests per minute of everybody else, once they no longer fall: controllers work off what was made."""
    before = idle(made, SETTLED_S)
    for _ in range(SETTLED_AFTER):
        now = idle(made, SETTLED_S)
        if now >= 0.9 * before:
            return min(now, before)
        before = now
    raise TimeoutError(f"the cluster did not settle: {before:.0f} requests per minute and still falling")


def main() -> int:
    """Print the figures beside their bounds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rollouts", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=100)
    parser.add_argument("--idle-s", type=float, default=300.0, help="two idle looks of the operator are 180 s apart")
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder, cluster(Path(folder)) as made, contextlib.ExitStack() as stack,
    ):  # fmt: skip
        began = time.monotonic()
        names = made.populate(args.rollouts)
        stack.enter_context(made.gateway())
        print(f"{len(names)} ModelRollouts made in {time.monotonic() - began:.0f} s", flush=True)
        time.sleep(SETTLED_S)
        others = settled(made)
        with operator(made, Path(folder)) as running:
            began = time.monotonic()
            until(lambda: made.taken_over() == len(names), "all taken over", TAKEN_OVER_S)
            print(f"taken over after {time.monotonic() - began:.0f} s", flush=True)
            time.sleep(SETTLED_S)
            per_rollout = (idle(made, args.idle_s) - others) / len(names)
            idle_mb = running.memory_info().rss / 1e6
            print(f"idle: {per_rollout:.2f} requests per rollout and minute, {idle_mb:.0f} MB", flush=True)
            chosen = random.sample(names, min(args.changes, len(names)))
            took_s = sorted(change(made, name, f"{number + 16:x}") for number, name in enumerate(chosen))
            print("the slowest: " + ", ".join(f"{it:.2f} s" for it in took_s[-5:]))
            memory_mb = running.memory_info().rss / 1e6
    p99_s = statistics.quantiles(took_s, n=100, method="inclusive")[98]
    rows = [
        ("change reconciled, p99", p99_s, CHANGE_P99_S, "s"),
        ("memory", memory_mb, MEMORY_MB, "MB"),
        ("API requests per idle rollout and minute", per_rollout, REQUESTS_PER_MINUTE, ""),
    ]
    print(
        f"{len(names)} ModelRollouts, {len(took_s)} changes one after another, median {took_s[len(took_s) // 2]:.2f} s"
    )
    for what, value, bound, unit in rows:
        print(f"{what}: {value:.2f} {unit} (bound {bound:g}){'' if value <= bound else '  BEYOND'}")
    return int(any(value > bound for _, value, bound, _ in rows))


if __name__ == "__main__":
    sys.exit(main())
