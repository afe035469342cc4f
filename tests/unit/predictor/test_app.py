from __future__ import annotations

import hashlib
import json
import logging
import math
import re

import msgspec
import pytest

from flightdeck.contracts.prediction import PredictionRecord


def test_a_flight_gets_a_typed_answer_with_the_reasons_it_is_degraded(predictor, flight):
    answer = predictor.post("/v1/predict", {"rows": [flight]}, x_request_id="pair-1")
    assert answer.status == 200
    body = answer.json
    assert body["request_id"] == answer.headers["x-request-id"] == "pair-1"
    assert body["model"] == {"name": "late", "version": "1", "sha256": predictor.runtime.info.sha256}
    (one,) = body["predictions"]
    assert one["entity_id"] == "2013-07-04-UA1545-EWR"
    assert 0 <= one["score"] <= 1
    assert one["decision"] in ("positive", "negative")
    assert body["degraded"] is True
    assert one["degraded"][0] == "carrier_history: store unreachable"
    assert one["degraded"][-1].startswith("horizon: asked ")


def test_a_full_vector_is_scored_by_the_model_alone(predictor, vector):
    answer = predictor.post("/v1/score", {"rows": [vector, dict.fromkeys(vector, None)]})
    assert answer.status == 200
    expected = 1 / (1 + math.exp(-0.01 * len(vector)))
    defaults = [feature.default for feature in predictor.runtime.manifest.features]
    first, second = answer.json["predictions"]
    assert first["score"] == pytest.approx(expected, abs=1e-6)
    assert first["decision"] == "positive"
    assert second["score"] == pytest.approx(1 / (1 + math.exp(-0.01 * sum(defaults))), abs=1e-6)  # nulls: the medians


def test_many_rows_are_answered_in_their_order(predictor, vector):
    rows = [vector | {"temp_f": float(at)} for at in range(300)]
    scores = [one["score"] for one in predictor.post("/v1/score", {"rows": rows}).json["predictions"]]
    assert len(scores) == 300
    assert scores == sorted(scores)


@pytest.mark.parametrize("given", ["", "has space", "x" * 129, "ü"])
def test_a_request_id_that_could_hurt_a_log_is_replaced(predictor, vector, given):
    answer = predictor.post("/v1/score", {"rows": [vector]}, x_request_id=given)
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-request-id"])


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/score"])
@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (b"{}", {"content-type": "text/plain"}, (415, "unsupported_media_type")),
        (b"{}", {}, (415, "unsupported_media_type")),
        (b"{}", {"content-type": "application/json", "content-encoding": "gzip"}, (415, "unsupported_encoding")),
        (b"x" * 10_000_000, {"content-type": "application/json"}, (413, "body_too_large")),
        (b"{}", {"content-type": "application/json", "content-length": "9" * 4000}, (413, "body_too_large")),
        (b"\xff", {"content-type": "application/json"}, (400, "not_json")),
        (b'{"rows":[]}', {"content-type": "application/json; charset=utf-8"}, (422, "out_of_range")),
        (b'{"rows":' + b"[" * 50_000, {"content-type": "application/json"}, (422, "wrong_type")),
    ],
)
def test_a_bad_request_gets_a_stable_error_body(predictor, path, body, headers, expected):
    answer = predictor.ask("POST", path, body, headers)
    assert (answer.status, answer.json["error"]["code"]) == expected
    assert answer.json["error"]["message"]
    assert answer.json["request_id"] == answer.headers["x-request-id"]
    assert len(answer.content) < 1000


def test_ten_thousand_rows_are_refused_with_the_limit(predictor, flight):
    answer = predictor.post("/v1/predict", {"rows": [flight] * 10_000})
    assert answer.status == 422
    assert answer.json["error"]["field"] == "rows"
    assert "1000" in answer.json["error"]["message"]


def test_a_row_in_the_middle_is_named(predictor, flight):
    bad = flight | {"dest": "QQQ"}
    answer = predictor.post("/v1/predict", {"rows": [flight, flight, bad]})
    assert answer.status == 422
    assert answer.json["error"] == {
        "code": "invalid_value",
        "message": "unknown airport 'QQQ'",
        "field": "rows[2].dest",
    }


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/predict", 405), ("POST", "/nowhere", 404)])
def test_wrong_paths_and_methods_get_the_same_error_body(predictor, method, path, status):
    answer = predictor.ask(method, path, b"", {})
    assert answer.status == status
    assert answer.json["error"]["code"] in ("method_not_allowed", "not_found")
    assert (answer.headers.get("allow") == "POST") == (status == 405)


def test_a_body_in_many_pieces_is_put_together(predictor, vector):
    body = json.dumps({"rows": [vector]}).encode()
    answer = predictor.ask("POST", "/v1/score", body, {"content-type": "application/json"}, chunk=7)
    assert answer.status == 200


@pytest.mark.parametrize("first", [None, b'{"rows"'])
def test_a_body_that_never_comes_or_never_ends_is_refused_in_time(predictor_with, first):
    patient = predictor_with(request_timeout_s=0.05)
    answer = patient.stall("/v1/predict", first)
    assert (answer.status, answer.json["error"]["code"]) == (408, "body_timeout")


def test_hundreds_of_bad_requests_write_no_log_and_grow_no_metric(predictor, caplog):
    with caplog.at_level(logging.DEBUG):
        before = len(predictor.get("/metrics").content.splitlines())
        for at in range(200):
            predictor.ask("POST", f"/{at}", b"", {})
            predictor.post("/v1/predict", {"rows": at})
    assert [record for record in caplog.records if record.name.startswith("flightdeck")] == []
    after = len(predictor.get("/metrics").content.splitlines())
    assert after - before < 60


def test_readiness_tells_the_version_and_the_store_and_turns_503_while_draining(predictor):
    ready = predictor.get("/readyz")
    assert ready.status == 200
    assert ready.json["model"]["version"] == "1"
    assert ready.json["feature_store_reachable"] is False
    assert ready.json["feature_registry"] is None
    predictor.runtime.draining = True
    try:
        draining = predictor.get("/readyz")
        assert draining.status == 503
        assert draining.headers["connection"] == "close"
        assert predictor.get("/healthz").status == 200
    finally:
        predictor.runtime.draining = False


def test_what_answers_is_told_without_asking_anybody(predictor):
    told = predictor.get("/v1/model")
    assert told.status == 200
    assert told.json | {"replica": ""} == {
        "name": "late",
        "version": "1",
        "sha256": predictor.runtime.info.sha256,
        "feature_service": "late_v1",
        "feature_project": "flightdeck_test",
        "image": "unknown",
        "release": "",
        "replica": "",
    }


def test_the_manifest_is_told_to_the_byte_so_that_the_digest_proves_it(predictor):
    told = predictor.get("/v1/manifest")
    assert told.status == 200
    assert hashlib.sha256(told.content).hexdigest() == predictor.runtime.info.sha256


def test_metrics_have_only_bounded_labels(predictor, flight, vector):
    predictor.post("/v1/predict", {"rows": [flight]})
    predictor.post("/v1/score", {"rows": [vector]})
    predictor.get("/" + "x" * 500)
    text = predictor.get("/metrics").content.decode()
    routes = set(re.findall(r'route="([^"]*)"', text))
    assert routes <= {
        "/v1/predict",
        "/v1/score",
        "/v1/model",
        "/v1/manifest",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/",
        "(none)",
    }
    assert 'predictor_feature_problems_total{kind="unreachable",model_version="1",view="weather"}' in text
    assert "predictor_log_dropped_rows_total" in text
    assert 'predictor_request_seconds_bucket{le="+Inf",model_version="1",route="/v1/score"}' in text


def test_the_page_needs_no_network_and_shows_every_path(predictor):
    page = predictor.get("/docs").content.decode()
    assert not re.findall(r"(?:src|href)=['\"](?:https?:)?//", page)
    for path in predictor.get("/openapi.json").json["paths"]:
        assert path in page
    for feature in predictor.runtime.plan.names:
        assert f"<td>{feature}</td>" in page


def test_openapi_resolves_and_its_examples_are_accepted(predictor):
    document = predictor.get("/openapi.json").json
    text = json.dumps(document)
    for name in re.findall(r"#/components/schemas/([^\"]+)", text):
        assert name in document["components"]["schemas"]
    for path in ("/v1/predict", "/v1/score"):
        operation = document["paths"][path]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        answer = predictor.post(path, example)
        assert answer.status == 200
        promised = operation["responses"]["200"]["content"]["application/json"]["example"]
        assert answer.json.keys() == promised.keys()
        assert answer.json["predictions"][0].keys() == promised["predictions"][0].keys()
        assert {"400", "408", "413", "415", "422"} <= operation["responses"].keys()
        assert ("503" in operation["responses"]) == (path == "/v1/predict")  # only features can be unavailable
    assert document["components"]["schemas"]["FlightRequest"]["properties"].keys() == {
        "carrier", "flight", "origin", "dest", "sched_dep_utc", "tailnum",
    }  # fmt: skip


def test_a_fault_of_ours_is_one_stable_body_and_one_trace_not_one_per_request(predictor, vector, caplog, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(predictor.runtime.model, "score", broken)
    answers = [predictor.post("/v1/score", {"rows": [vector]}) for _ in range(20)]
    assert {answer.status for answer in answers} == {500}
    assert answers[0].json["error"]["code"] == "internal"
    assert "planted" not in answers[0].content.decode()
    assert len([record for record in caplog.records if "failed" in record.getMessage()]) <= 1


def test_the_log_tells_the_keys_that_answers_can_be_sliced_by(predictor, flight):
    predictor.post("/v1/predict", {"rows": [flight, {**flight, "origin": "JFK", "carrier": "B6"}]})
    log = predictor.runtime.log
    records = [msgspec.msgpack.decode(row, type=PredictionRecord) for row in [*log._pending, *log._queue][-2:]]
    assert [(record.keys["origin"], record.keys["carrier"]) for record in records] == [("EWR", "UA"), ("JFK", "B6")]
    assert set(records[0].keys) >= {key for it in predictor.runtime.manifest.features for key in it.join_keys}
