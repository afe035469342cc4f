from __future__ import annotations

import json
from pathlib import Path

import pytest

from flightdeck.lab.envoy import (
    UPSTREAM_HEADER,
    Backend,
    Endpoint,
    clusters,
    endpoints,
    move,
    release_of,
    routes,
    shadow_of,
    write_bootstrap,
)

OLD = (Endpoint("late-0a-1", 8101), Endpoint("late-0a-2", 8102))
NEW = (Endpoint("late-0b-1", 8201),)
CHAMPION = Backend("0a", OLD, weight=90)
CANDIDATE = Backend("0b", NEW, weight=10, fallback=OLD, shadow=True)
MIRRORED = Backend("0b", NEW, mirror_percent=50.0, fallback=OLD, shadow=True)


def table(*backends: Backend) -> dict:
    (found,) = routes(backends)["resources"]
    return found


def rule(*backends: Backend) -> dict:
    return table(*backends)["virtual_hosts"][0]["routes"][0]


def action(*backends: Backend) -> dict:
    return rule(*backends)["route"]


def ports(response: dict) -> dict[int, list[int]]:
    (assignment,) = response["resources"]
    return {
        place["priority"]: [
            item["endpoint"]["address"]["socket_address"]["port_value"] for item in place["lb_endpoints"]
        ]
        for place in assignment["endpoints"]
    }


def test_weights_are_those_of_the_backends_and_zero_gets_nothing():
    weighted = action(CHAMPION, CANDIDATE)["weighted_clusters"]["clusters"]
    assert weighted == [{"name": "0a", "weight": 90}, {"name": "0b", "weight": 10}]
    assert [item["name"] for item in action(CHAMPION, MIRRORED)["weighted_clusters"]["clusters"]] == ["0a"]


def test_a_mirror_gets_copies_in_a_cluster_of_its_own():
    mirrored = action(CHAMPION, MIRRORED)["request_mirror_policies"]
    assert [(item["cluster"], item["runtime_fraction"]["default_value"]["numerator"]) for item in mirrored] == [
        ("0b-shadow", 500_000)
    ]
    assert "request_mirror_policies" not in action(CHAMPION)
    assert release_of(shadow_of("0b")) == release_of("0b") == "0b"


def test_a_mirror_without_such_a_cluster_is_refused():
    with pytest.raises(ValueError, match="0c is mirrored to"):
        routes([CHAMPION, Backend("0c", NEW, mirror_percent=100.0)])


def test_users_of_a_failing_candidate_fall_over_to_the_champion_and_copies_never_do():
    found = endpoints(CANDIDATE)
    assert ports(found["0b"]) == {0: [8201], 1: [8101, 8102]}
    assert ports(found["0b-shadow"]) == {0: [8201]}
    assert set(endpoints(CHAMPION)) == {"0a"}


def test_a_retry_leaves_out_the_priority_that_failed():
    assert action(CHAMPION, CANDIDATE)["retry_policy"]["retry_priority"]["typed_config"]["update_frequency"] == 1


def test_a_candidate_keeps_its_share_while_a_tenth_of_it_is_healthy():
    (assignment,) = endpoints(CANDIDATE)["0b"]["resources"]
    assert assignment["policy"]["overprovisioning_factor"] == 1000


def test_a_hanging_candidate_holds_few_copies():
    users, copies = (
        item["circuit_breakers"]["thresholds"][0] for item in clusters(Path("/x"), ["0b", "0b-shadow"])["resources"]
    )
    assert copies["max_requests"] + copies["max_pending_requests"] < users["max_requests"] / 10
    assert copies["max_retries"] == 0


def test_each_answer_names_the_replica_that_gave_it():
    (added,) = table(CHAMPION)["response_headers_to_add"]
    assert added["header"] == {"key": UPSTREAM_HEADER, "value": "%UPSTREAM_REMOTE_ADDRESS%"}


def test_without_a_release_the_answer_says_that_nobody_serves():
    answer = rule()["direct_response"]
    assert answer["status"] == 503
    assert json.loads(answer["body"]["inline_string"])["error"]["code"] == "nobody_serves"


def test_routes_without_any_weight_are_refused():
    with pytest.raises(ValueError, match="no backend has a weight"):
        routes([MIRRORED])


def test_a_request_is_retried_twice_and_on_another_replica():
    policy = action(CHAMPION)["retry_policy"]
    assert policy["num_retries"] == 2
    assert {"reset", "connect-failure", "5xx"} <= set(policy["retry_on"].split(","))
    assert policy["retry_host_predicate"][0]["name"] == "envoy.retry_host_predicates.previous_hosts"


def test_many_retries_may_run_at_once_when_a_replica_dies():
    (cluster,) = clusters(Path("/x"), ["0a"])["resources"]
    assert cluster["circuit_breakers"]["thresholds"][0]["max_retries"] >= 100, "Envoy's default is 3"


def test_every_replica_is_an_endpoint_on_the_loopback_interface():
    (assignment,) = endpoints(CHAMPION)["0a"]["resources"]
    addresses = [item["endpoint"]["address"]["socket_address"] for item in assignment["endpoints"][0]["lb_endpoints"]]
    assert addresses == [
        {"address": "127.0.0.1", "port_value": 8101},
        {"address": "127.0.0.1", "port_value": 8102},
    ]


def test_a_file_is_moved_into_place_only_when_it_says_something_new(tmp_path: Path):
    path = move(tmp_path / "rds.json", routes([CHAMPION]))
    first = path.stat().st_ino
    assert move(path, routes([CHAMPION])).stat().st_ino == first
    assert move(path, routes([CHAMPION, CANDIDATE])).stat().st_ino != first
    assert [item.name for item in tmp_path.iterdir()] == ["rds.json"]
    json.loads(path.read_text())


def test_the_admin_listens_on_the_loopback_interface_alone(tmp_path: Path):
    content = json.loads(write_bootstrap(tmp_path, 8080, 9901).read_text())
    assert content["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
