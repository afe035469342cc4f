"""Replicas, gateway and log agree or not; and what must not be taken for a mismatch."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from services.rollout_operator.crosscheck import CrossCheck, Pod, Reading
from services.rollout_operator.kube.crosschecks import EVERY_S, CountedRecords, CrossChecks, parse
from services.rollout_operator.matching import Attempts
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.tick import Rollout
from tests.unit.rollout.kube_cluster import Cluster, Records
from tests.unit.rollout.test_kube_tick import champion_is, drive, served


@dataclasses.dataclass
class World:
    """A release with two replicas behind two proxies; each share says what part of the requests is counted there."""

    rate: float = 50.0
    at_gateway: float = 1.0
    at_replicas: float = 1.0
    in_log: float = 1.0
    failed: float = 0.0  # of the gateway's attempts; those never reached a replica
    at_s: float = 0.0
    requests: float = 1_000.0
    begun_again: float = 0.0  # what replica "a" had counted when it died
    process: str = "a"
    log_of: int = 1

    def after(self, seconds: float, **changed: Any) -> Reading:
        before = self.requests
        self.at_s += seconds
        self.requests += seconds * self.rate
        for key, value in changed.items():
            setattr(self, key, value)
        assert self.requests >= before
        return self.reading()

    def reading(self) -> Reading:
        n = self.requests
        half = int(n * self.at_replicas / 2)
        failed = int(n * self.failed)
        reached = int(half * (1 - self.failed))
        a = reached - int(self.begun_again)
        return Reading(
            self.at_s,
            {self.process: Pod(a + 9, a, a), "b": Pod(reached + 9, reached, reached)},
            {"p1": Attempts(int(n * self.at_gateway), failed), "p2": Attempts(0, 0)},
            int(n * self.in_log * (1 - self.failed)),
            self.log_of,
        )


def looks(check: CrossCheck, world: World, count: int, every_s: float = 5.0) -> dict[str, str]:
    found: dict[str, str] = {}
    for _ in range(count):
        found |= check.look(world.after(every_s))
    return found


@pytest.mark.parametrize("rate", [0.2, 5.0, 50.0, 2_000.0])
def test_what_agrees_is_told_nowhere(rate):
    assert looks(CrossCheck(), World(rate), 100) == {}


@pytest.mark.parametrize(
    ("shares", "kind", "words"),
    [
        ({"at_gateway": 0.5}, "past-gateway", "the gateway counted"),
        ({"at_replicas": 0.5, "in_log": 0.5}, "not-at-replicas", "its replicas counted"),
        ({"in_log": 0.5}, "not-in-log", "the prediction log has"),
        ({"in_log": 1.5}, "only-in-log", "its replicas logged"),
    ],
)
def test_each_kind_of_mismatch_is_found_and_says_the_figures(shares, kind, words):
    found = looks(CrossCheck(), World(**shares), 8)
    assert set(found) == {kind} and words in found[kind] and "would be no wonder" in found[kind]


def test_a_mismatch_must_last():
    """The log stands still for two looks and then catches up; when it goes on to stand still it is told."""
    for back, kinds in ((True, set()), (False, {"not-in-log"})):
        check, world = CrossCheck(), World()
        looks(check, world, 2)
        stands = world.reading().log
        found: dict[str, str] = {}
        for number in range(6):
            reading = world.after(5.0)
            log = reading.log if back and number > 1 else stands
            found |= check.look(Reading(reading.at_s, reading.pods, reading.gateway, log, 1))
        assert set(found) == kinds


def test_failed_attempts_that_reached_no_replica_are_no_mismatch():
    assert looks(CrossCheck(), World(failed=0.3), 30) == {}


def test_three_reads_of_one_look_are_not_of_one_moment():
    """The log is read up to two seconds before the replicas, at every other look."""
    check, world = CrossCheck(), World(rate=500.0)
    for number in range(40):
        reading = world.after(5.0)
        early = int(reading.log - (1.9 * world.rate if number % 2 else 0))
        assert check.look(Reading(reading.at_s, reading.pods, reading.gateway, early, 1)) == {}


def test_a_burst_and_a_quiet_hour_are_no_mismatch():
    check, world = CrossCheck(), World()
    for rate in [5.0, 2_000.0, 0.0, 1.0] * 10:
        world.rate = rate
        reading = world.after(5.0)
        assert check.look(reading) == {}


def test_a_counter_that_begins_again_is_no_mismatch_and_what_follows_is_compared():
    check, world = CrossCheck(), World()
    looks(check, world, 3)
    world.begun_again = int(world.requests / 2)  # the process died and counts from 0; its key is the same
    assert looks(check, world, 30) == {}
    world.in_log = 0.6
    looks(check, world, 1)  # fewer than before: begins anew
    assert set(looks(check, world, 8)) == {"not-in-log"}


def test_another_process_a_pod_that_came_and_an_endpoint_that_went_begin_anew():
    check, world = CrossCheck(), World()
    looks(check, world, 5)
    world.process, world.begun_again = "a again", int(world.requests / 2)
    assert looks(check, world, 5) == {}
    reading = world.after(5.0)
    more = {**reading.pods, "c": Pod(10_000, 10_000, 10_000)}
    for gateway in (reading.gateway, {"p1": reading.gateway["p1"]}):
        world.at_s += 5.0
        assert check.look(Reading(world.at_s, more, gateway, reading.log, 1)) == {}
        assert check.first is check.last


def test_another_reader_of_the_log_begins_anew():
    check, world = CrossCheck(), World()
    looks(check, world, 5)
    reading = world.after(5.0)
    assert check.look(Reading(reading.at_s, reading.pods, reading.gateway, 3, 2)) == {} and check.first is check.last


def test_a_scrape_that_came_twice_adds_nothing():
    check, world = CrossCheck(), World()
    for _ in range(30):
        reading = world.after(5.0)
        assert check.look(reading) == {}
        assert check.look(reading) == {}


def test_a_gap_is_bridged():
    check, world = CrossCheck(), World()
    looks(check, world, 3)
    assert looks(check, world, 10, every_s=60.0) == {}
    world.rate = 100.0
    first = check.first
    assert looks(check, world, 3, every_s=120.0) == {} and check.first is first


# -- what is read -----------------------------------------------------------------------------------------------------

TEXT = """
process_start_time_seconds 1.7e+09
predictor_requests_total{route="/v1/predict",code="2xx",model_version="7"} 90.0
predictor_requests_total{route="/v1/predict",code="4xx",model_version="7"} 4.0
predictor_requests_total{route="/v1/score",code="2xx",model_version="7"} 5.0
predictor_requests_total{route="/readyz",code="2xx",model_version="7"} 30.0
predictor_model_info{model="late",version="7"} 1.0
"""


def test_a_replicas_page_tells_answers_predictions_and_what_it_logged():
    assert parse(TEXT, "pod") == ("pod 1.7e+09", Pod(129, 99, 95))
    assert parse('predictor_model_info{model="late"} 1.0', "new")[1] == Pod(0, 0, 0)
    with pytest.raises(Unavailable, match="no page of a predictor"):
        parse("up 1", "pod")


def test_the_words_are_those_of_the_predictor():
    from services.predictor.metrics import Metrics

    real = Metrics(model="late", version="7", sha256="a", feature_service="f", image="i")
    for route, code in (("/v1/predict", 200), ("/v1/predict", 422), ("/v1/score", 200), ("/readyz", 200)):
        real.observe(route, code, 0.001)
    process, found = parse(real.text().decode(), "pod")
    assert found == Pod(4, 3, 2) and process != "pod "


def test_what_the_log_has_twice_is_one_request():
    cluster = Cluster()
    cluster.answer("late-01020304", 0, 10, "c", champion=False)
    cluster.log = cluster.log + cluster.log[-3:]
    records = CountedRecords(Records(cluster))
    assert len(records.predictions()) == 13 and records.requests == {"01020304": 10}


# -- beside a rollout -------------------------------------------------------------------------------------------------


class Beside:
    """A rollout and its cross-check, tick by tick; the thread's work is done at once."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.made = cluster, cluster.start()
        self.checks = CrossChecks(lambda work: work())

    def tick(self, passed_s: float = 1.0) -> None:
        self.made.tick(self.cluster.now_s)
        self.checks.after(self.made, self.cluster.now_s)
        self.cluster.pass_time()
        self.cluster.now_s += passed_s - 1.0

    def events(self) -> list[str]:
        found = [it for (kind, _), it in self.cluster.objects.items() if kind == "Event"]
        return [it["message"] for it in found if it["reason"] == "EvidenceIncomplete"]


def in_shadow(**changed: Any) -> Beside:
    """Held there, so that there is time to look."""
    cluster = served(Cluster())
    cluster.rollout["spec"]["plan"][0]["shadow"]["minPairs"] = 1_000_000
    for key, value in changed.items():
        setattr(cluster, key, value)
    cluster.want("2")
    beside = Beside(cluster)
    for _ in range(12):
        beside.tick(EVERY_S)
    assert cluster.status["phase"] == "shadow"
    return beside


def test_a_rollout_in_which_all_agrees_tells_nothing_with_copies_in_the_shadow_and_all():
    beside = in_shadow()
    assert beside.events() == [] and "doubt" not in beside.cluster.status
    assert set(beside.checks.checks) == {"champion", "candidate"}
    first = [it.first for it in beside.checks.checks.values()]
    assert all(it and it.log < 1e9 for it in first)


def test_users_that_pass_the_gateway_by_are_one_event_and_a_sentence_and_abort_nothing():
    beside = in_shadow(past_gateway=100)
    words = beside.cluster.status["doubt"]
    assert "the evidence may be incomplete: champion late v1" in words and "the gateway counted" in words
    assert len(beside.events()) == 1 and beside.events()[0] == words
    beside.made = beside.cluster.start()  # an operator that knows only what is kept
    beside.checks = CrossChecks(lambda work: work())
    beside.tick(EVERY_S)
    assert beside.cluster.status["doubt"].startswith("the evidence may be incomplete")
    for _ in range(8):
        beside.tick(EVERY_S)
    assert not [it for it in beside.cluster.status["history"] if it["target"] == "aborting"]


def test_the_next_rollout_begins_without_the_doubt_of_the_last_one():
    beside = in_shadow(past_gateway=100)
    cluster = beside.cluster
    cluster.past_gateway = 0
    cluster.annotate("abort")
    drive(cluster, lambda: cluster.status["phase"] == "aborted")
    assert "doubt" in cluster.status
    cluster.rollout["spec"]["plan"][0]["shadow"]["minPairs"] = 100
    cluster.want("3")
    drive(cluster, champion_is(cluster, "3"))
    assert "doubt" not in cluster.status


def test_replicas_are_asked_every_few_seconds_and_only_while_a_candidate_is_judged():
    cluster = served(Cluster())
    asked: list[str] = []
    fetch = cluster.fetch

    def counted(url: str) -> str:
        asked.append(url)
        return fetch(url)

    cluster.fetch = counted  # type: ignore[method-assign]
    beside = Beside(cluster)
    for _ in range(10):
        beside.tick()
    assert not [url for url in asked if url.endswith("/metrics")]
    cluster.rollout["spec"]["plan"][0]["shadow"]["minPairs"] = 1_000_000
    cluster.want("2")
    for _ in range(22):
        beside.tick()
    pages = [url for url in asked if url.endswith("/metrics")]
    assert 4 * 3 <= len(pages) <= 4 * 5, "two replicas of each release, every five of twenty seconds"


def test_a_replica_that_does_not_tell_is_a_gap_and_stops_no_tick():
    cluster = served(Cluster())
    fetch = cluster.fetch

    def silent(url: str) -> str:
        if url.endswith("/metrics"):
            raise Unavailable("away")
        return fetch(url)

    cluster.fetch = silent  # type: ignore[method-assign]
    cluster.want("2")
    beside = Beside(cluster)
    for _ in range(40):
        beside.tick()
    assert champion_is(cluster, "2")() and not beside.events() and not beside.checks.checks


def test_a_look_is_left_out_while_the_last_one_is_under_way():
    beside = in_shadow()
    waiting: list[Any] = []
    beside.checks = CrossChecks(waiting.append)
    for _ in range(4):
        beside.tick(EVERY_S)
    assert len(waiting) == 1
    waiting.pop()()
    beside.tick(EVERY_S)
    assert len(waiting) == 1


def test_a_rollout_elsewhere_has_no_replicas_to_ask():
    class Elsewhere:
        """The lab's platform counts otherwise."""

    beside = in_shadow()
    made: Rollout = beside.made
    made.platform = Elsewhere()  # type: ignore[assignment]
    CrossChecks(lambda work: pytest.fail("asked")).after(made, 1e9)
