"""The stack on the current kubectl context, as `make up` leaves it; skipped loudly where there is none, or no kind."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.open_load import Answer, Load
from flightdeck.cluster import gateway
from flightdeck.cluster.commands import Kubectl, current_context
from flightdeck.cluster.names import PLATFORM, SERVING
from flightdeck.cluster.readiness import look
from flightdeck.cluster.up import first_run
from tests.e2e import rollouts

RATE_PER_S = 40.0
REQUIRED = "FLIGHTDECK_E2E_REQUIRED"  # set: what cannot be run has failed
RESULTS = Path(".flightdeck/e2e.md")


@dataclasses.dataclass
class Row:
    """One fault: what users met."""

    fault: str
    requests: int
    failed: int
    degraded: int
    recovered_s: float
    words: str


@dataclasses.dataclass
class Figures:
    """What took how long, with its limit where there is one."""

    rows: list[tuple[str, float, float | None, str]] = dataclasses.field(default_factory=list)

    def add(self, what: str, value: float, limit: float | None = None, unit: str = "s") -> None:
        """Note it, and fail beyond the limit."""
        self.rows.append((what, value, limit, unit))
        print(f"{what}: {value:.4g} {unit}" + (f" (limit {limit:g})" if limit else ""))
        assert limit is None or value <= limit, f"{what}: {value:.4g} {unit}, at most {limit:g}"

    def table(self) -> str:
        """In Markdown."""
        body = "".join(
            f"| {what} | {value:.3g} {unit} | {f'{limit:g} {unit}' if limit else ''} |\n"
            for what, value, limit, unit in self.rows
        )
        return f"| what | measured | limit |\n| --- | --: | --: |\n{body}"


ROWS: list[Row] = []
FIGURES = Figures()
DRILLS: list[str] = []  # rows of the rollouts' table


def pytest_sessionfinish(session: pytest.Session) -> None:
    """The tables of faults and figures, for docs and for whoever looks."""
    if not ROWS and not FIGURES.rows and not DRILLS:
        return
    commit = subprocess.run(("git", "describe", "--always", "--dirty"), capture_output=True, text=True, check=False)
    title = f"On {commit.stdout.strip() or 'no commit'}, {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%MZ}, load average "
    title += f"{os.getloadavg()[2]:.1f} on {os.cpu_count()} cores.\n\n"
    head = "| fault | requests | failed | degraded | recovered after | what was seen |\n"
    head += "| --- | --: | --: | --: | --: | --- |\n"
    body = "".join(
        f"| {it.fault} | {it.requests:,} | {it.failed} | {it.degraded:,} | {it.recovered_s:.0f} s | {it.words} |\n"
        for it in ROWS
    )
    RESULTS.parent.mkdir(exist_ok=True)
    text = title + FIGURES.table() + "\n" + head + body + "\n" + rollouts.table_of(DRILLS)
    RESULTS.write_text(text)
    print("\n" + text)


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """The stack's cluster."""
    not_run = pytest.fail if os.environ.get(REQUIRED) else pytest.skip
    context = current_context()
    if context is None or not Kubectl(context).answers():
        not_run("NOT RUN: no cluster answers; run `make up` first")
    if not (context.startswith("kind-") or context == "minikube"):
        not_run(f"NOT RUN: these tests deploy and break things, so only on kind or minikube; the context is {context}")
    found = Kubectl(context)
    if found.find("namespace", SERVING) is None:
        not_run(f"NOT RUN: {context} has no Flightdeck; run `make up` first")
    return found


@pytest.fixture(scope="session")
def url(kubectl: Kubectl) -> str:
    """The Gateway, from this machine."""
    return gateway.url(kubectl)


@pytest.fixture(scope="session")
def model() -> str:
    """The model that serves."""
    return first_run().model


@pytest.fixture
def settled(kubectl: Kubectl) -> None:
    """Every part is ready before a fault is planted."""
    until_ready(kubectl)


def until_ready(kubectl: Kubectl, within_s: float = 180, only: Callable[[str], bool] = lambda _: True) -> float:
    """Wait until every part is ready; returns the seconds it took."""
    began = time.monotonic()
    while True:
        parts = [it for it in look(kubectl, (PLATFORM, SERVING))[0] if only(it.name)]
        if parts and all(it.done for it in parts):
            return time.monotonic() - began
        missing = ", ".join(f"{it.name} {it.ready}/{it.wanted} {it.failed}" for it in parts if not it.done)
        assert time.monotonic() - began < within_s, f"not ready after {within_s:.0f} s: {missing}"
        time.sleep(0.5)


def predictor_pods(kubectl: Kubectl, model: str) -> list[str]:
    """Names of the model's pods, but for those that are on their way out."""
    items = kubectl.get("pods", "-n", SERVING, "-l", f"flightdeck.dev/model={model}")["items"]
    return [it["metadata"]["name"] for it in items if "deletionTimestamp" not in it["metadata"]]


def request_body(at: dt.datetime) -> bytes:
    """The example request of the use case, asked at the clock's time plus the model's horizon."""
    import msgspec

    from feature_repo.request import EXAMPLE, Request

    fields = msgspec.to_builtins(EXAMPLE)
    times = {name: at.isoformat() for name, value in fields.items() if isinstance(value, str) and "T" in value[9:12]}
    return msgspec.json.encode({"rows": [msgspec.convert({**fields, **times}, Request)]})


FLIGHTS = (
    "UA EWR IAH", "UA EWR ORD", "UA EWR SFO", "UA LGA DEN", "AA JFK LAX", "AA LGA ORD", "AA LGA DFW", "AA JFK MIA",
    "B6 JFK BOS", "B6 JFK FLL", "B6 JFK MCO", "B6 EWR MCO", "DL JFK ATL", "DL LGA ATL", "DL LGA DTW", "DL JFK SLC",
    "EV EWR IAD", "EV EWR CLT", "MQ LGA RDU", "MQ LGA CLE", "US LGA CLT", "US LGA DCA", "WN EWR MDW", "VX JFK SFO",
)  # fmt: skip


def request_bodies(at: dt.datetime) -> list[bytes]:
    """One flight each of routes that are flown daily; every fourth one of now, the others of that day's busy hours.

    Of one quiet hour's flights all scores lie close together, and a constant answer is within every margin.
    """
    found = []
    for number, words in enumerate(FLIGHTS):
        carrier, origin, dest = words.split()
        row = {"carrier": carrier, "flight": 101 + number, "origin": origin, "dest": dest, "tailnum": "N14228"}
        due = at + dt.timedelta(hours=16 if number % 4 else 0)
        found.append(json.dumps({"rows": [{**row, "sched_dep_utc": due.isoformat()}]}).encode())
    return found


def clock_now(kubectl: Kubectl) -> dt.datetime:
    """Where the cluster's clock stands."""
    said = kubectl("-n", PLATFORM, "exec", "deployment/dagster-code", "--", "flightdeck", "clock", "show")
    return dt.datetime.fromisoformat(said.split()[0])


@pytest.fixture
def body(kubectl: Kubectl) -> bytes:
    """Two hours after the moment at which the cluster's clock stands."""
    return request_body(clock_now(kubectl) + dt.timedelta(hours=2))


@pytest.fixture
def bodies(kubectl: Kubectl) -> list[bytes]:
    """Many flights, two hours after the moment at which the cluster's clock stands."""
    return request_bodies(clock_now(kubectl) + dt.timedelta(hours=2))


@pytest.fixture
def users(url: str, bodies: list[bytes]) -> Iterator[Load]:
    """Who ask about many flights, from before the rollout until after it."""
    parts = urlsplit(url)
    assert parts.hostname in ("127.0.0.1", "localhost"), f"load goes to this machine only, not to {url}"
    with Load(parts.port or 80, bodies, rate_per_s=rollouts.RATE_PER_S, workers=32, longest_s=900) as found:
        yield found


@pytest.fixture
def drill(kubectl: Kubectl, model: str, settled: None) -> Iterator[rollouts.Drill]:
    """A rollout of its own; the champion of before serves afterwards, and alone."""
    with rollouts.drilled(kubectl, model, DRILLS) as found:
        yield found


@pytest.fixture
def figures() -> Figures:
    """Where measured times and sizes go."""
    return FIGURES


@pytest.fixture
def load(url: str, body: bytes) -> Iterator[Callable[..., Load]]:
    """Starts users at a constant rate; they end with the test."""
    parts, running = urlsplit(url), list[Load]()
    assert parts.hostname in ("127.0.0.1", "localhost"), f"load goes to this machine only, not to {url}"

    def start(rate_per_s: float = RATE_PER_S) -> Load:
        running.append(Load(parts.port or 80, body, rate_per_s=rate_per_s).__enter__())
        return running[-1]

    yield start
    for it in running:
        it.__exit__()


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Add a row to the table of faults."""

    def add(fault: str, answers: list[Answer], recovered_s: float, words: str = "") -> None:
        failed = sum(it.status != 200 for it in answers)
        ROWS.append(Row(fault, len(answers), failed, sum(bool(it.reasons) for it in answers), recovered_s, words))

    return add


def predict(url: str, body: bytes) -> dict[str, Any]:
    """One answer."""
    answer = httpx.post(f"{url}/v1/predict", content=body, headers={"content-type": "application/json"}, timeout=10)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = json.loads(answer.text)
    return found


def first_failure(answers: list[Answer]) -> str:
    """For the message of an assertion."""
    failed = [it for it in answers if it.status != 200]
    return (
        f"{len(failed)} of {len(answers)} failed, the first with {failed[0].status} {failed[0].said}" if failed else ""
    )
