"""Pipelines as users run them: a new day, a new month to a judged version, the other jobs, and stores that go away."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable

import httpx
import pytest

from benchmarks.open_load import Load
from flightdeck.cluster.champion import versions
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.dagster_client import DagsterClient, Outcome, RunFailed
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import PLATFORM
from flightdeck.cluster.up import stand_clock
from tests.e2e.conftest import Figures, clock_now, first_failure, predict, request_body, until_ready

pytestmark = pytest.mark.usefixtures("settled")

DAY_S, MONTH_S = 60.0, 120.0  # limits of a daily run, and of a new month to a registered candidate


def run(
    kubectl: Kubectl, job: str, *, day: dt.date | None = None, last: dt.date | None = None, **settings: object
) -> Outcome:
    """Start a job on days and follow it, and what follows it, to the end."""
    with forward(kubectl, PLATFORM, "dagster-webserver", 3000) as url:
        return DagsterClient(url).run(job, settings, first=day, last=last or day, tell=print)


READ_PINNED = """
from flightdeck.contracts.layout import StateLayout
from pipelines import stores
from pipelines.data.upkeep import pinned_versions
from pipelines.registry.mlflow_adapter import MlflowRegistry, tracking_uri_or_env
lake = stores.lake(StateLayout.from_env())
for table, versions in pinned_versions(MlflowRegistry(tracking_uri_or_env(None))).items():
    for version in sorted(versions):
        print(f"PINNED {table}@{version} {lake.read(table, version=version).num_rows}")
"""


def read_pinned(kubectl: Kubectl) -> dict[str, str]:
    """table@version -> rows, of all that registered models were made from, as they can be read now."""
    said = kubectl(
        "-n", PLATFORM, "exec", "deployment/dagster-code", "--", "python", "-c", READ_PINNED, timeout_s=300
    )  # fmt: skip
    return dict(line.split()[1:] for line in said.splitlines() if line.startswith("PINNED"))


def test_a_day_that_is_there_runs_again_within_a_minute(kubectl: Kubectl, figures: Figures):
    yesterday = clock_now(kubectl).date() - dt.timedelta(days=1)
    again = run(kubectl, "daily", day=yesterday)
    figures.add("a daily run repeated (ingest, check, features, materialize), as a pod", again.seconds, DAY_S)


@pytest.mark.exhaustive
def test_a_new_day_is_served_within_a_minute(kubectl: Kubectl, url: str, figures: Figures):
    now = clock_now(kubectl)
    stand_clock(kubectl, now + dt.timedelta(days=1))
    ran = run(kubectl, "daily", day=now.date())
    figures.add("a daily run of a new day (ingest, check, features, materialize), as a pod", ran.seconds, DAY_S)
    (row,) = predict(url, request_body(now + dt.timedelta(days=1, hours=2)))["predictions"]
    assert row["degraded"] == []


@pytest.mark.exhaustive
def test_a_new_month_becomes_a_judged_version(kubectl: Kubectl, model: str, figures: Figures):
    now = clock_now(kubectl)
    until = (now.replace(day=1) + dt.timedelta(days=32)).replace(day=1)
    with forward(kubectl, PLATFORM, "mlflow", 5000) as tracking:
        before = {it.number for it in versions(tracking, model)}
    stand_clock(kubectl, until)
    began = time.monotonic()
    filled = run(
        kubectl, "backfill", day=now.date(), last=until.date() - dt.timedelta(days=1), go_on_without_bad_days=True
    )
    trained = run(kubectl, f"train_{model}", until=until.isoformat())
    took = time.monotonic() - began
    assert trained.then is not None
    with forward(kubectl, PLATFORM, "mlflow", 5000) as tracking:
        (made,) = [it for it in versions(tracking, model) if it.number not in before]
    assert made.verdict in ("PROMOTE", "REJECT")
    parts = f"backfill {filled.seconds:.0f}, train {trained.seconds:.0f}, gate {trained.then.seconds:.0f} s"
    figures.add(f"a new month to a judged version ({parts})", took, MONTH_S)


@pytest.mark.exhaustive
def test_predictions_go_to_the_lake_and_upkeep_keeps_what_versions_pin(
    kubectl: Kubectl, url: str, body: bytes, figures: Figures
):
    for _ in range(5):
        predict(url, body)
    drained = run(kubectl, "predictions")
    told = drained.metadata["lake/predictions"]
    assert int(told["rows written"].replace(",", "")) + int(told["already there"].replace(",", "")) >= 5, told
    figures.add("predictions from the stream into the lake", drained.seconds)
    pinned = read_pinned(kubectl)
    assert pinned
    assert all(int(rows) > 0 for rows in pinned.values()), pinned
    figures.add("upkeep: compact, vacuum, trim", run(kubectl, "upkeep").seconds)
    assert read_pinned(kubectl) == pinned


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["upkeep", "mlflow-gc"])
def test_a_scheduled_job_of_the_cluster_runs_now(kubectl: Kubectl, figures: Figures, name: str):
    job = f"{name}-by-hand"
    kubectl("delete", "job", job, "-n", PLATFORM, "--ignore-not-found", "--wait=true")
    kubectl("create", "job", job, f"--from=cronjob/{name}", "-n", PLATFORM)
    began = time.monotonic()
    while not (status := kubectl.get("job", job, "-n", PLATFORM).get("status", {})).get("succeeded"):
        log = kubectl("logs", f"job/{job}", "-n", PLATFORM, "--tail=20") if status.get("failed") else ""
        assert not status.get("failed"), log
        assert time.monotonic() - began < 240, f"{job} did not end: {status}"
        time.sleep(1)
    print(kubectl("logs", f"job/{job}", "-n", PLATFORM, "--tail=20"))
    figures.add(f"CronJob {name}, run by hand", time.monotonic() - began)
    kubectl("delete", "job", job, "-n", PLATFORM)


@pytest.mark.exhaustive
@pytest.mark.parametrize("part", ["postgres", "object-store"])
def test_a_store_restarts_during_a_run_and_a_repeat_heals(
    kubectl: Kubectl, load: Callable[..., Load], note: Callable[..., None], part: str
):
    users = load(10.0)
    users.more(20)
    day = clock_now(kubectl).date() - dt.timedelta(days=1)
    began, killed = time.monotonic(), threading.Event()

    def kill() -> None:
        selector = "dagster/job=daily"
        while not killed.is_set():
            pods = kubectl.get("pods", "-n", PLATFORM, "-l", selector, "--field-selector=status.phase=Running")["items"]
            if pods:
                time.sleep(4)  # its Python is up and reads and writes
                kubectl("delete", "pod", f"{part}-0", "-n", PLATFORM, "--grace-period=0", "--force", "--wait=false")
                killed.set()
            time.sleep(0.5)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    try:
        words = f"the run went on to its end in {run(kubectl, 'daily', day=day).seconds:.0f} s"
    except RunFailed as error:
        words = f"the run failed: {str(error).splitlines()[1].strip()[:80]}"
    was_killed = killed.is_set()
    killed.set()
    killer.join(10)
    assert was_killed, "the run ended before its store was taken away; this shows nothing"
    until_ready(kubectl)
    repeat = run(kubectl, "daily", day=day)
    note(
        f"{part} killed during a pipeline run", users.answers, time.monotonic() - began,
        f"{words}; a repeat took {repeat.seconds:.0f} s",
    )  # fmt: skip
    assert not users.failed, first_failure(users.answers)


def test_the_runs_page_names_no_run_that_hangs(kubectl: Kubectl):
    query = "{runsOrError(filter: {statuses: [STARTED, STARTING, QUEUED]}) {... on Runs {results {runId jobName}}}}"
    with forward(kubectl, PLATFORM, "dagster-webserver", 3000) as url:
        answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=30).json()
    assert answer["data"]["runsOrError"]["results"] == []
