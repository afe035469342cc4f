from __future__ import annotations

import json
from pathlib import Path

import pytest

from flightdeck.lab.envoy import Backend, Endpoint, clusters, endpoints, routes, write_bootstrap, write_discovery

CHAMPION = Backend("champion", (Endpoint("predictor-1", 8101), Endpoint("predictor-2", 8102)), weight=90)
CANDIDATE = Backend("candidate", (Endpoint("candidate-1", 8201),), weight=10)
SHADOW = Backend("shadow", (Endpoint("shadow-1", 8301),), mirror_percent=50.0)


def action(*backends: Backend) -> dict:
    (table,) = routes(backends)["resources"]
    return table["virtual_hosts"][0]["routes"][0]["route"]


def test_weights_are_those_of_the_backends_and_zero_gets_nothing():
    weighted = action(CHAMPION, CANDIDATE, SHADOW)["weighted_clusters"]["clusters"]
    assert weighted == [{"name": "champion", "weight": 90}, {"name": "candidate", "weight": 10}]


def test_a_mirror_gets_copies_and_no_answers():
    mirrored = action(CHAMPION, SHADOW)["request_mirror_policies"]
    assert [(item["cluster"], item["runtime_fraction"]["default_value"]["numerator"]) for item in mirrored] == [
        ("shadow", 500_000)
    ]
    assert "request_mirror_policies" not in action(CHAMPION)


def test_routes_without_any_weight_are_refused():
    with pytest.raises(ValueError, match="no backend has a weight"):
        routes([SHADOW])


def test_a_request_is_retried_twice_and_on_another_replica():
    policy = action(CHAMPION)["retry_policy"]
    assert policy["num_retries"] == 2
    assert {"reset", "connect-failure", "5xx"} <= set(policy["retry_on"].split(","))
    assert policy["retry_host_predicate"][0]["name"] == "envoy.retry_host_predicates.previous_hosts"


def test_many_retries_may_run_at_once_when_a_replica_dies():
    (cluster,) = clusters(Path("/x"), [CHAMPION])["resources"]
    assert cluster["circuit_breakers"]["thresholds"][0]["max_retries"] >= 100, "Envoy's default is 3"


def test_every_replica_is_an_endpoint_on_the_loopback_interface():
    (assignment,) = endpoints(CHAMPION)["resources"]
    addresses = [item["endpoint"]["address"]["socket_address"] for item in assignment["endpoints"][0]["lb_endpoints"]]
    assert addresses == [
        {"address": "127.0.0.1", "port_value": 8101},
        {"address": "127.0.0.1", "port_value": 8102},
    ]


def test_discovery_files_are_moved_into_place_whole(tmp_path: Path):
    write_bootstrap(tmp_path, 8080, 9901)
    write_discovery(tmp_path, [CHAMPION, CANDIDATE])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"bootstrap.json", "cds.json", "rds.json", "eds-champion.json", "eds-candidate.json"}
    for path in tmp_path.iterdir():
        json.loads(path.read_text())


def test_the_admin_listens_on_the_loopback_interface_alone(tmp_path: Path):
    content = json.loads(write_bootstrap(tmp_path, 8080, 9901).read_text())
    assert content["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
