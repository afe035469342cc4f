"""Each planted fault, driven through the predictor's routes beside the honest predictor."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.linear_artefact import FEATURES, served_features, write_linear_artefact
from flightdeck.contracts.artefact import ServedFeature
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.rollout import Margins
from flightdeck.lab.faults import CATALOGUE, UnknownFault, fault_of, with_fault
from flightdeck.lab.faulty import (
    CRASH_AFTER,
    FAULT_ENV,
    FaultyRoutes,
    FaultyRuntime,
    PlantedError,
    fails,
    plant,
    planted_in,
    unit_feature,
)
from services.predictor.features import StoredValues
from services.predictor.service import Parts
from services.predictor.settings import PredictorSettings

NOBODY = "redis://127.0.0.1:1/0"
FLIGHT = {"carrier": "UA", "flight": 1545, "origin": "EWR", "dest": "IAH", "sched_dep_utc": "2013-07-05T01:15:00Z"}
USER, COPY = "127.0.0.1:8080", "127.0.0.1-shadow:8080"
DISTANCE = ServedFeature(
    name="route_distance_mi", source="stored", view="route_history", join_keys=["dest", "origin"], feast_type="FLOAT",
    default=500.0,
)  # fmt: skip


@dataclasses.dataclass
class Answered:
    status: int
    body: Any
    records: list[PredictionRecord]
    seconds: float


class Faulty:
    """The predictor with a fault, its stores away; or with `stored` in place of what a store would give."""

    def __init__(self, runner: asyncio.Runner, folder: Path, fault: str) -> None:
        features = [item for item in served_features() if item.name != "route_late_share_7d"] + [DISTANCE]
        sha256 = write_linear_artefact(folder, features=features)
        settings = PredictorSettings(
            model_name="late", model_version="1", model_sha256=sha256, artefacts=folder, online_redis_url=NOBODY,
            streams_redis_url=NOBODY, log_flush_timeout_s=0.0, replica="late-0123abcd-1",
            image=with_fault("abc", fault) if fault else "abc",
        )  # fmt: skip
        self.runner, self.died = runner, list[int]()
        self.runtime = FaultyRuntime(settings)
        runner.run(self.runtime.start())
        self.records: list[PredictionRecord] = []
        self.runtime.log.append = self.records.append  # type: ignore[method-assign]
        self.routes = FaultyRoutes(None, runtime=self.runtime, die=self.died.append)

    def probe(self, path: str) -> int:
        sent: list[dict[str, Any]] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": path, "headers": []}
        self.runner.run(self.routes(scope, None, send))
        return int(sent[0]["status"])

    def ask(self, *, host: str = USER, request_id: str = "r", path: str = "/v1/predict", row: Any = None) -> Answered:
        content = json.dumps({"rows": [row or FLIGHT]}).encode()
        sent: list[dict[str, Any]] = []
        self.records.clear()

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": content}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = {"content-type": "application/json", "host": host, "x-request-id": request_id}
        scope = {"type": "http", "method": "POST", "path": path,
                 "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}  # fmt: skip
        began = time.perf_counter()
        self.runner.run(self.routes(scope, receive, send))
        seconds = time.perf_counter() - began
        if not sent:
            return Answered(0, None, [], seconds)
        return Answered(sent[0]["status"], json.loads(sent[1]["body"]), list(self.records), seconds)


@pytest.fixture(scope="module")
def with_planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Faulty]]:
    with asyncio.Runner() as runner, contextlib.ExitStack() as stack:

        def start(fault: str) -> Faulty:
            made = Faulty(runner, tmp_path_factory.mktemp("artefacts"), fault)
            stack.callback(lambda: runner.run(made.runtime.stop()))
            return made

        yield start


@pytest.fixture(scope="module")
def honest(with_planted: Callable[[str], Faulty]) -> Faulty:
    return with_planted("")


def features_of(answered: Answered, faulty: Faulty) -> dict[str, float | None]:
    (record,) = answered.records
    return dict(zip(faulty.runtime.plan.names, record.features, strict=True))


def test_each_fault_says_where_it_must_be_caught_and_by_a_metric_that_the_judge_knows():
    known = {item.alias or name for name, item in Margins.model_fields.items()} | {"restarts", "readyDeadline"}
    for fault in CATALOGUE.values():
        assert set(fault.metrics) <= known
        assert bool(fault.metrics) == (fault.caught_in != "never")
        Margins.model_validate(dict(fault.margins))


def test_the_image_names_the_fault_and_an_unknown_one_is_refused_with_those_there_are():
    assert fault_of("1a2b3c4") is None
    assert fault_of(with_fault("1a2b3c4", "nan")) is CATALOGUE["nan"]
    assert with_fault("1a2b3c4+fault-nan", "unit") == "1a2b3c4+fault-unit"
    with pytest.raises(UnknownFault, match=r"no fault 'typo'.*code-bad"):
        fault_of("1a2b3c4+fault-typo")


def test_a_code_only_change_without_a_fault_answers_the_same(with_planted, honest):
    ours, theirs = with_planted("code-fine").ask(), honest.ask()
    assert ours.body["predictions"] == theirs.body["predictions"]
    assert ours.records[0].feature_hash == theirs.records[0].feature_hash


def test_a_distance_is_served_in_kilometres_and_logged_as_it_was_used(with_planted, honest):
    faulty = with_planted("unit")
    stored = {
        view: StoredValues(tuple(1000.0 for _ in names), faulty.runtime.clock.now_s())
        for view, names in {**FEATURES, "route_history": ["route_distance_mi"]}.items()
    }

    async def fetch(rows: Any) -> Any:
        return [dict(stored) for _ in rows]

    for one in (faulty, honest):
        real = getattr(one.runtime.store, "_real", one.runtime.store)
        real.fetch = fetch  # type: ignore[method-assign]
    ours, theirs = features_of(faulty.ask(), faulty), features_of(honest.ask(), honest)
    del honest.runtime.store.fetch
    assert unit_feature(faulty.runtime.plan) == "route_distance_mi"
    assert theirs["route_distance_mi"] == 1000.0
    assert ours["route_distance_mi"] == pytest.approx(1609.344)
    assert {name: ours[name] for name in ours if name != "route_distance_mi"} == {
        name: theirs[name] for name in theirs if name != "route_distance_mi"
    }


def test_the_planted_units_do_not_reach_the_route_that_gates_could_call(with_planted, honest):
    vector = dict.fromkeys(honest.runtime.plan.names, 1.0)
    ours, theirs = (one.ask(path="/v1/score", row=vector).body for one in (with_planted("unit"), honest))
    assert ours["predictions"] == theirs["predictions"]


def test_a_crash_at_start_ends_the_entry_point(monkeypatch):
    monkeypatch.setattr(Parts, "runtime", Parts.runtime)
    monkeypatch.setattr(Parts, "routes", Parts.routes)
    with pytest.raises(PlantedError):
        plant("abc+fault-crash-at-start")
    plant("abc+fault-nan")
    assert (Parts.runtime, Parts.routes) == (FaultyRuntime, FaultyRoutes)


def test_it_dies_after_a_hundred_user_requests_and_copies_do_not_count(with_planted):
    faulty = with_planted("crash-100")
    for _ in range(CRASH_AFTER + 50):
        assert faulty.ask(host=COPY).status == 200
    for _ in range(CRASH_AFTER):
        assert faulty.ask().status == 200
    assert faulty.died == []
    assert faulty.ask().status == 0
    assert faulty.died == [70]


def test_on_a_cluster_the_environment_names_the_fault_since_the_image_is_a_digest(monkeypatch):
    monkeypatch.setenv(FAULT_ENV, "constant")
    fault = planted_in("localhost:5001/flightdeck/predictor@sha256:abc")
    assert fault is CATALOGUE["constant"]
    monkeypatch.setenv(FAULT_ENV, "typo")
    with pytest.raises(UnknownFault, match="no fault 'typo'"):
        planted_in("abc")


def test_a_release_that_is_never_ready_answers_all_but_the_probe(with_planted, honest):
    faulty = with_planted("never-ready")
    assert faulty.ask().status == 200
    assert faulty.probe("/readyz") == 503
    assert [faulty.probe("/healthz"), honest.probe("/readyz")] == [200, 200]


def test_shifted_scores_are_a_twentieth_higher_and_never_above_one(with_planted, honest):
    ours, theirs = (one.ask().body["predictions"][0]["score"] for one in (with_planted("shift-005"), honest))
    assert ours == pytest.approx(min(1.0, theirs + 0.05))


def test_a_slow_answer_shows_to_the_client_and_in_the_record_and_holds_up_nobody(with_planted):
    faulty = with_planted("slow-50ms")
    answered = faulty.ask()
    assert answered.status == 200
    assert answered.seconds >= 0.05
    assert answered.records[0].latency_us >= 50_000

    async def twenty() -> float:
        began = time.perf_counter()
        await asyncio.gather(*(faulty.runtime._hinder("r") for _ in range(20)))
        return time.perf_counter() - began

    assert faulty.runner.run(twenty()) < 0.5


def test_one_request_in_twenty_fails_on_a_replica_and_succeeds_on_another(with_planted):
    ids = [f"request-{number}" for number in range(4000)]
    failing = [name for name in ids if fails("late-0123abcd-1", name)]
    assert 0.04 < len(failing) / len(ids) < 0.06
    again = [name for name in failing if fails("late-0123abcd-2", name)]
    assert len(again) / len(failing) < 0.15
    faulty = with_planted("errors-5pct")
    assert [faulty.ask(request_id=name).status for name in failing[:3]] == [500] * 3
    assert {faulty.ask(request_id=name).status for name in ids[:40] if name not in failing} == {200}


def test_a_constant_answer_looks_healthy_and_never_changes(with_planted, honest):
    faulty = with_planted("constant")
    other = {**FLIGHT, "carrier": "AA", "origin": "JFK", "sched_dep_utc": "2013-11-05T14:00:00Z"}
    scores = {faulty.ask(row=row).body["predictions"][0]["score"] for row in (FLIGHT, other)}
    assert scores == {faulty.runtime.manifest.fallback_score}
    assert len({honest.ask(row=row).body["predictions"][0]["score"] for row in (FLIGHT, other)}) == 2


def test_a_model_without_a_finite_score_is_answered_with_the_base_rate_and_says_so(with_planted):
    faulty = with_planted("nan")
    (one,) = faulty.ask().body["predictions"]
    assert one["score"] == faulty.runtime.manifest.fallback_score
    assert any(reason.startswith("model: score not finite") for reason in one["degraded"])


def test_the_bad_code_reads_utc_as_local_time_in_the_features_alone(with_planted, honest):
    faulty = with_planted("code-bad")
    ours, theirs = faulty.ask(), honest.ask()
    mine, right = features_of(ours, faulty), features_of(theirs, honest)
    assert (mine["dep_minute_of_day"], right["dep_minute_of_day"]) == (75.0, 21 * 60 + 15)
    assert (mine["dep_day_of_week"], right["dep_day_of_week"]) == (5.0, 4.0)
    assert mine["carrier_code"] == right["carrier_code"]
    assert ours.body["predictions"][0]["entity_id"] == theirs.body["predictions"][0]["entity_id"]
