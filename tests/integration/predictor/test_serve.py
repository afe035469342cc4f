"""The predictor as it runs: `bentoml serve` or, as in the image, alone; two Redis servers, kills and restarts."""

from __future__ import annotations

import concurrent.futures
import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import msgspec
import pytest

from benchmarks.feast_rows import write_rows
from benchmarks.linear_artefact import FEATURES
from flightdeck.contracts.clock import CLOCK_KEY, ReplayClock
from flightdeck.contracts.prediction import PREDICTION_STREAM, PredictionRecord
from services.predictor.runtime import feature_hash

pytestmark = pytest.mark.xdist_group("predictor")  # the servers are started once
ROOT = Path(__file__).resolve().parents[3]
KEYS = {"carrier": "UA", "origin": "EWR", "dest": "IAH", "tailnum": "N14228"}


def flight(minutes_ahead: float = 120.0, **more):
    departs = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes_ahead)
    return {
        "carrier": "UA",
        "flight": 1545,
        "origin": "EWR",
        "dest": "IAH",
        "sched_dep_utc": departs.isoformat(),
        **more,
    }


def records(streams) -> list[PredictionRecord]:
    entries = streams.client.xrange(PREDICTION_STREAM)
    return [
        record for _, fields in entries for record in msgspec.msgpack.decode(fields[b"r"], type=list[PredictionRecord])
    ]


def eventually(condition, seconds: float = 10.0):
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture
def fresh(online):
    """Every view of the flight's entities, one minute old."""
    write_rows(online.client, KEYS, dt.datetime.now(dt.UTC) - dt.timedelta(minutes=1))


def test_a_prediction_uses_stored_features_and_its_record_reaches_the_stream(server, streams, fresh):
    answer = server.client.post("/v1/predict", json={"rows": [flight()]}, headers={"x-request-id": "pair-7"})
    body = answer.json()
    assert answer.status_code == 200
    assert body["degraded"] is False, body
    (record,) = eventually(lambda: [one for one in records(streams) if one.request_id == "pair-7"])
    assert record.entity_id == body["predictions"][0]["entity_id"]
    assert record.score == body["predictions"][0]["score"]
    stored = sum(len(names) for names in FEATURES.values())
    assert record.features[-stored:] == [1.0] * stored
    assert record.feature_hash == feature_hash(record.features)
    assert set(record.ages_s) == set(FEATURES)
    assert all(55 < age < 120 for age in record.ages_s.values())
    assert (record.replica, record.version, record.degraded) == ("first", "1", [])


def test_a_stale_view_and_an_unknown_entity_are_named(server, online, fresh):
    write_rows(
        online.client,
        KEYS,
        dt.datetime.now(dt.UTC) - dt.timedelta(hours=2),
        views={"congestion": FEATURES["congestion"]},
    )
    known, unknown = server.predict(flight(), flight(dest="SFO")).json()["predictions"]
    assert len(known["degraded"]) == 1
    assert known["degraded"][0].startswith("congestion: stale 720")
    assert known["degraded"][0].endswith(" s > 3600 s")
    assert "route_history: missing" in unknown["degraded"]


def test_the_replay_clock_decides_ages_and_horizon(server, streams, online, fresh):
    start = dt.datetime(2013, 7, 4, 12, tzinfo=dt.UTC)
    clock = ReplayClock(virtual_start=start, real_start_s=time.time(), speed=0)
    streams.client.hset(CLOCK_KEY, mapping=clock.to_mapping())
    try:
        write_rows(online.client, KEYS, start - dt.timedelta(minutes=5))
        row = flight() | {"sched_dep_utc": "2013-07-04T14:00:00Z"}
        eventually(lambda: not server.predict(row).json()["degraded"], 5)
        write_rows(online.client, KEYS, start + dt.timedelta(minutes=5), views={"weather": FEATURES["weather"]})
        (one,) = server.predict(row).json()["predictions"]
        assert one["degraded"] == ["weather: 300 s in the future"]
    finally:
        streams.client.delete(CLOCK_KEY)
    write_rows(online.client, KEYS, dt.datetime.now(dt.UTC))
    eventually(lambda: not server.predict(flight()).json()["degraded"], 5)


def test_a_killed_online_store_degrades_answers_quickly_and_they_recover_by_themselves(server, online, fresh):
    assert server.predict(flight()).json()["degraded"] is False
    online.kill()
    seconds, reasons = [], set()
    for _ in range(40):
        started_s = time.perf_counter()
        answer = server.predict(flight())
        seconds.append(time.perf_counter() - started_s)
        assert answer.status_code == 200
        reasons.update(answer.json()["predictions"][0]["degraded"])
    assert {f"{view}: store unreachable" for view in FEATURES} <= reasons
    assert max(seconds) < 1.0
    assert sorted(seconds)[20] < 0.1  # the open circuit answers without waiting for the deadline
    assert server.client.get("/readyz").json()["feature_store_reachable"] is False
    online.start()
    eventually(lambda: not server.predict(flight()).json()["degraded"], 5)


def test_a_killed_streams_redis_costs_no_answer_and_no_record(server, streams, fresh):
    eventually(lambda: server.metric("predictor_log_queued_rows") == 0)
    streams.kill()
    ids = [f"outage-{at}" for at in range(60)]
    for request_id in ids:
        answer = server.client.post("/v1/predict", json={"rows": [flight()]}, headers={"x-request-id": request_id})
        assert answer.status_code == 200
    assert server.metric("predictor_log_queued_rows") >= 60
    streams.start()
    eventually(lambda: {record.request_id for record in records(streams)} >= set(ids))
    assert server.metric("predictor_log_dropped_rows_total") == 0


PROGRAMS = pytest.mark.parametrize(
    "program",
    [("bentoml", "serve", "services.predictor.service:Predictor"), ("services.predictor",)],
    ids=["supervised", "alone"],
)


@PROGRAMS
def test_sigterm_under_load_breaks_no_request_of_a_proxy_that_watches_readiness(serve, streams, fresh, program):
    leaving = serve(program, replica=f"leaving-{len(program)}", drain_s=1.5).wait_ready()
    left_out = threading.Event()  # the proxy has seen readiness fail and sends nothing more
    answered: list[str] = []
    broken: list[str] = []

    def caller(number: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{leaving.port}", timeout=5, trust_env=False) as client:
            at = 0
            while not left_out.is_set():
                request_id = f"leaving-{len(program)}-{number}-{at}"
                try:
                    answer = client.post("/v1/predict", json={"rows": [flight()]}, headers={"x-request-id": request_id})
                except httpx.HTTPError as error:
                    broken.append(f"{request_id}: {error!r}")
                    return
                (answered if answer.status_code == 200 else broken).append(request_id)
                at += 1

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(caller, number) for number in range(4)]
        eventually(lambda: len(answered) > 20)
        leaving.process.send_signal(signal.SIGTERM)
        eventually(lambda: leaving.client.get("/readyz").status_code == 503, 1.0)
        before = len(answered)
        time.sleep(0.3)  # a proxy's next health check
        left_out.set()
        for one in callers:
            one.result(5)
        assert leaving.process.wait(20) == 0
    assert broken == []
    assert len(answered) > before  # it answers while it says it is not ready
    assert {record.request_id for record in records(streams) if record.replica == f"leaving-{len(program)}"} == set(
        answered
    )


@PROGRAMS
def test_a_wrong_digest_ends_serve_with_words_before_anything_listens(serve, program):
    refused = serve(program, model_sha256="a" * 64)
    assert refused.process.wait(40) == 3
    said = refused.log.read_text()
    assert "predictor: model late version 1: no folder" in said
    assert "Traceback" not in said


def test_garbage_and_large_bodies_do_not_hurt_the_process_or_flood_its_log(server, fresh):
    size = server.log.stat().st_size
    for at in range(50):
        with socket.create_connection(("127.0.0.1", server.port), timeout=5) as raw:
            raw.sendall(b"\x16\x03\x01 not http %d\r\n\r\n" % at)
            raw.recv(100)
    answer = server.client.post("/v1/predict", content=b"x" * 10_000_000, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert server.predict(flight()).status_code == 200
    assert server.log.stat().st_size - size < 2000


def test_bentoml_build_packs_code_that_imports_alone(tmp_path):
    env = os.environ | {"BENTOML_HOME": str(tmp_path), "BENTOML_DO_NOT_TRACK": "True"}
    command = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    built = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert built.returncode == 0, built.stderr
    (source,) = tmp_path.glob("bentos/predictor/*/src")
    assert not list(source.rglob("*.onnx"))
    program = (
        "import sys; sys.path[:] = [p for p in sys.path if p != sys.argv[2]]; sys.path.insert(0, sys.argv[1]);"
        "import services.predictor.service as s, feature_repo, flightdeck;"
        "print(all(m.__file__.startswith(sys.argv[1]) for m in (s, feature_repo, flightdeck)),"
        "[name for name in ('feast', 'pandas', 'sklearn', 'mlflow', 'polars') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(source), str(ROOT)]
    alone = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert alone.stdout.strip() == "True []", alone.stderr
