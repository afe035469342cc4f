"""Evidence counts each request once, matches requests of one moment, and goes on after a kill as if there was none."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from flightdeck.contracts.artefact import ModelManifest, ServedFeature, ViewPolicy
from flightdeck.contracts.model_spec import Task
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.rollout import Canary, Judge, Margins, Shadow, Step
from services.rollout_operator.evidence import LONGEST_WAIT, Attempts, Collector
from services.rollout_operator.judge import judge
from services.rollout_operator.sequences import level
from services.rollout_operator.verdict import Verdict

PLAN = [
    Step(shadow=Shadow.model_validate({"minPairs": 50, "deadline": "1m"})),
    Step(canary=Canary.model_validate({"weight": 10, "minRequests": 50, "deadline": "1m"})),
    Step(canary=Canary.model_validate({"weight": 50, "minRequests": 50, "deadline": "1m"})),
]
NOW_US = 1_380_000_000_000_000


def settings(warmup: int = 0, **margins: float) -> Judge:
    return Judge(margins=Margins(**(margins or {"error_rate": 0.02})), warmup=warmup)


def manifest(task: Task = Task.CLASSIFICATION, temp_default: float = 60.0) -> ModelManifest:
    calendar = {"source": "on_demand", "view": "calendar", "join_keys": [], "feast_type": "FLOAT"}
    stored = {"source": "stored", "view": "weather", "join_keys": ["origin"], "feast_type": "FLOAT"}
    return ModelManifest(
        model="late", task=task, horizon_min=120, unit="probability", feature_project="p", feature_service="late_v1",
        features=[ServedFeature(name="distance_mi", default=900.0, **calendar),
                  ServedFeature(name="temp_f", default=temp_default, **stored)],
        views={"weather": ViewPolicy(max_age_s=3600, on_missing="default")}, decision_threshold=0.5,
        fallback_score=0.2, files=[],
    )  # fmt: skip


BASE = PredictionRecord(
    request_id="", row=0, entity_id="", asked_at_us=NOW_US, model="late", version="1", sha256="a" * 64,
    feature_service="late_v1", features=[500.0, 70.0], feature_hash="h", score=0.2, decision="negative", degraded=[],
    ages_s={"weather": 60.0}, latency_us=1000, replica="champion-1",
)  # fmt: skip


def records(count: int, role: str = "champion", first: int = 0, **changes: object) -> list[PredictionRecord]:
    """Answers with ids r<first> ...; a callable takes the number of the answer."""
    found = []
    for number in range(first, first + count):
        own = {name: value(number) if callable(value) else value for name, value in changes.items()}
        own = {"request_id": f"r{number}", "entity_id": f"e{number}", "replica": f"{role}-1", **own}
        found.append(msgspec.structs.replace(BASE, **own))
    return found


def collector(judge_settings: Judge, state: bytes | None = None, **more: object) -> Collector:
    made = Collector(judge_settings, PLAN, manifest(), manifest(**more), seed=1, state=state)
    if state is None:
        made.begin_step(0)
    return made


def counts(made: Collector, component: str) -> dict[float, int]:
    found: dict[float, int] = {}
    for histogram in made.evidence().series.get(component, {}).values():
        for slot, count in histogram.items():
            at = round(float(level(slot)), 3)
            found[at] = found.get(at, 0) + count
    return found


def test_a_pair_is_both_answers_to_one_request_whichever_comes_first():
    made = collector(settings(label_flips=0.1))
    made.predictions([], records(3, "candidate", decision="positive"))
    made.predictions(records(2), [])
    assert counts(made, "labelFlips") == {1.0: 2}
    assert made.evidence().tallies[0].pairs == 2


def test_a_retried_request_counts_once():
    made = collector(settings(label_flips=0.1))
    made.predictions(records(2) + records(2, replica="champion-2"), records(2, "candidate"))
    made.predictions(records(2), records(2, "candidate"))
    assert made.evidence().tallies[0].pairs == 2
    assert made.evidence().tallies[0].answers == 2


def test_the_first_answers_of_each_replica_are_left_out():
    made = collector(settings(warmup=3, label_flips=0.1))
    made.predictions(records(10), records(5, "candidate") + records(5, "candidate", first=5, replica="candidate-2"))
    assert made.evidence().tallies[0].answers == 4
    assert made.evidence().tallies[0].pairs == 4  # r3, r4 and r8, r9, which the champion's replica was warm for


def test_what_waits_for_its_other_half_is_bounded_and_counted():
    made = collector(settings(label_flips=0.1))
    made.predictions(records(LONGEST_WAIT + 10), [])
    assert made.evidence().dropped == 10
    made.predictions([], records(10, "candidate") + records(5, "candidate", first=LONGEST_WAIT))
    assert made.evidence().tallies[0].pairs == 5


def test_under_weight_a_candidate_is_matched_with_one_champion_of_the_same_batch():
    made = collector(settings(degraded_rate=0.1))
    made.begin_step(1)
    made.predictions(records(90), records(10, "candidate", first=1000, degraded=["weather: stale"]))
    assert counts(made, "degradedRate") == {1.0: 10}
    made.predictions(records(1, first=90), records(3, "candidate", first=2000))
    made.predictions(records(5, first=91), [])
    assert sum(counts(made, "degradedRate").values()) == 13, "those left over wait for the next batch"


def test_a_horizon_reason_is_the_requests_and_not_the_answers():
    made = collector(settings(degraded_rate=0.1))
    made.predictions(records(5), records(5, "candidate", degraded=["horizon: asked 300 min ahead"]))
    assert counts(made, "degradedRate") == {0.0: 5}


def test_skew_names_the_feature_and_how_many_times_the_value_is():
    made = collector(settings(feature_skew=0.05))
    made.predictions(records(200), records(200, "candidate", features=[500.0 * 1.609, 70.0]))
    found = judge(made.judge, PLAN, 0, made.evidence())
    assert found.verdict is Verdict.FAIL
    assert "distance_mi is 1.609 times the champion's in 100% of the pairs" in found.reason
    assert "temp_f" not in found.reason


def test_values_that_were_read_at_two_moments_are_no_skew():
    made = collector(settings(feature_skew=0.05))
    made.predictions(records(50), records(50, "candidate", features=[500.0, 75.0], ages_s={"weather": 3.0}))
    assert counts(made, "featureSkew") == {0.0: 50}


def test_two_models_own_defaults_for_a_value_that_neither_knew_are_no_skew():
    made = collector(settings(feature_skew=0.05), temp_default=55.0)
    made.predictions(records(50, features=[500.0, 60.0]), records(50, "candidate", features=[500.0, 55.0]))
    assert counts(made, "featureSkew") == {0.0: 50}


def test_latency_is_measured_by_the_champions_earlier_answers_only():
    made = collector(settings(latency_p50_ratio=2.0))
    slow = {"latency_us": 50_000}
    made.predictions(records(200), records(200, "candidate", **slow))
    assert counts(made, "latencyP50Ratio") == {}, "no yardstick yet: the batch must not judge itself"
    made.predictions(records(50, first=200), records(50, "candidate", first=200, **slow))
    assert counts(made, "latencyP50Ratio") == {1.0: 50}


def test_attempts_are_increments_of_each_counter_and_a_fall_is_a_new_beginning():
    made = collector(settings())
    made.attempts({"a": Attempts(1000, 7)}, {"b": Attempts(10, 1)})
    assert made.evidence().tallies[0].attempts == {"champion": [0, 0], "candidate": [10, 1]}
    made.attempts({"a": Attempts(1100, 7)}, {"b": Attempts(20, 1)})
    made.attempts({"a": Attempts(1120, 7)}, {"b": Attempts(5, 2)})
    made.attempts({}, {})  # a scrape that names nobody is no zero
    made.attempts({"a": Attempts(1130, 7)}, {"b": Attempts(6, 2)})
    assert made.evidence().tallies[0].attempts == {"champion": [130, 0], "candidate": [26, 3]}
    assert counts(made, "errorRate/shadow") == {0.0: 23, 1.0: 3}


def test_under_much_weight_old_attempts_do_not_stand_in_for_new_ones():
    made = collector(settings(error_rate=0.02))
    made.begin_step(2)
    made.attempts({"a": Attempts(0, 0)}, {})
    for tick in range(1, 301):  # ten times as many as the champion can match, all well
        made.attempts({"a": Attempts(4 * tick, 0)}, {"b": Attempts(36 * tick, 0)})
    for tick in range(1, 61):  # then one in five fails
        made.attempts({"a": Attempts(1200 + 4 * tick, 0)}, {"b": Attempts(10_800 + 36 * tick, 7 * tick)})
    assert counts(made, "errorRate/canary")[1.0] >= 30  # of 240 matched; old ones would have left hardly any


def test_a_champion_that_fails_as_often_is_no_fault_of_the_candidate():
    made = collector(settings(error_rate=0.02))
    for tick in range(1, 61):
        made.attempts({"a": Attempts(100 * tick, 20 * tick)}, {"b": Attempts(100 * tick, 20 * tick)})
    found = judge(made.judge, PLAN, 0, made.evidence())
    assert found.metrics[0].verdict is not Verdict.FAIL
    assert abs(found.metrics[0].estimate or 1) < 0.03


def test_outcomes_make_losses_of_pairs_when_they_come():
    made = collector(settings(label_loss=0.05))
    made.predictions(records(10, score=0.2), records(10, "candidate", score=0.7))
    assert counts(made, "labelLoss") == {}
    made.outcomes({f"e{number}": 0.0 for number in range(10)})
    assert counts(made, "labelLoss") == {0.45: 10}  # 0.7 squared less 0.2 squared


def test_a_regression_has_no_label_flips_and_says_so():
    with pytest.raises(ValueError, match="labelFlips has no effect for a regression"):
        Collector(settings(label_flips=0.1), PLAN, manifest(), manifest(Task.REGRESSION), seed=1)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_is_a_bad_answer_and_not_a_missing_one(score: float):
    made = collector(settings(score_delta=0.1, degraded_rate=0.05))
    every_fifth = records(200, "candidate", score=lambda number: score if number % 5 == 0 else 0.2)
    made.predictions(records(200), every_fifth)
    assert counts(made, "degradedRate") == {0.0: 160, 1.0: 40}
    assert counts(made, "scoreDelta") == {0.0: 160, 0.8: 40}
    assert judge(made.judge, PLAN, 0, made.evidence()).verdict is Verdict.FAIL


@pytest.mark.parametrize("label", [float("nan"), float("inf")])
def test_an_outcome_that_is_no_number_is_none(label: float):
    made = collector(settings(label_loss=0.05))
    made.predictions(records(2), records(2, "candidate"))
    made.outcomes({"e0": label, "e1": 1.0})
    assert counts(made, "labelLoss") == {0.0: 1}


def test_an_outcome_beyond_all_scores_counts_as_the_largest_loss():
    made = collector(settings(label_loss=0.05))
    made.predictions(records(1, score=1.0), records(1, "candidate", score=0.0))
    made.outcomes({"e0": 5.0})
    assert counts(made, "labelLoss") == {0.0: 1}


def test_many_rows_of_one_request_are_one_observation():
    made = collector(settings(label_flips=0.02))
    rows = {"row": lambda number: number, "request_id": "r"}
    flips = {"decision": lambda number: "positive" if number < 20 else "negative"}
    made.predictions(records(50, **rows), records(50, "candidate", **rows, **flips))
    assert counts(made, "labelFlips") == {0.4: 1}
    assert (made.evidence().tallies[0].pairs, made.evidence().tallies[0].answers) == (1, 1)


def test_requests_of_many_rows_do_not_pass_a_candidate_by_their_rows():
    made = collector(settings(label_flips=0.02))
    for request in range(20):  # one request in twenty may well be wrong in each row: nothing is known yet
        rows = {"row": lambda number: number, "request_id": f"r{request}"}
        made.predictions(records(50, **rows), records(50, "candidate", **rows))
    assert judge(made.judge, PLAN, 0, made.evidence()).verdict is Verdict.WATCHING


@pytest.mark.parametrize("position", ["first", "last"])
def test_under_much_weight_no_replica_hides_behind_its_place_in_the_batch(position: str):
    made = collector(settings(degraded_rate=0.05))
    made.begin_step(2)
    for tick in range(100):
        first = 100_000 + 100 * tick
        well = records(27, "candidate", first=first)
        bad = records(9, "candidate", first=first + 50, replica="candidate-2", degraded=["weather: stale"])
        made.predictions(records(4, first=100 * tick), bad + well if position == "first" else well + bad)
    found = counts(made, "degradedRate")
    assert sum(found.values()) == 400
    assert 70 <= found[1.0] <= 130  # a quarter of them; by place it was none


def feed(made: Collector, tick: int) -> None:
    rng = np.random.default_rng(tick)
    scores = rng.random(60)
    first = 60 * tick
    champion = records(60, first=first, score=lambda number: float(scores[number - first]))
    candidate = records(30, "candidate", first=first, score=lambda number: float(scores[number - first] ** 1.1))
    made.begin_step(0 if tick < 6 else 1)
    made.predictions(champion, candidate)
    made.attempts({"a": Attempts(60 * tick, tick)}, {"b": Attempts(30 * tick, 2 * tick)})
    made.outcomes({f"e{number}": float(number % 3 == 0) for number in range(first - 60, first)})


def test_a_collector_that_was_killed_and_restored_counts_exactly_the_same():
    every = settings(
        error_rate=0.02, latency_p50_ratio=2, latency_p99_ratio=3, degraded_rate=0.1, score_shift=0.1, score_delta=0.1,
        label_flips=0.1, feature_skew=0.1, label_loss=0.1,
    )  # fmt: skip
    whole, part = collector(every), collector(every)
    for tick in range(12):
        feed(whole, tick)
        feed(part, tick)
        part = collector(every, state=part.dump())
    assert whole.dump() == part.dump()
    assert whole.evidence().series.keys() >= {"errorRate/shadow", "errorRate/canary", "labelLoss", "scoreShift/mean"}


@dataclasses.dataclass
class Day:
    """A day in which a shared dependency fails, mostly while the candidate has half of the users."""

    made: Collector
    totals: dict[str, list[int]]

    def scrape(self, rng: np.random.Generator, champion: int, candidate: int, error_rate: float) -> None:
        for name, count in (("a", champion), ("b", candidate)):
            self.totals[name][0] += count
            self.totals[name][1] += int(rng.binomial(count, error_rate))
        self.made.attempts({"a": Attempts(*self.totals["a"])}, {"b": Attempts(*self.totals["b"])})


def test_errors_that_hit_both_arms_while_the_weight_changes_abort_no_good_candidate():
    aborted = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        day = Day(collector(settings(error_rate=0.01)), {"a": [0, 0], "b": [0, 0]})
        day.made.attempts({"a": Attempts(0, 0)}, {})
        for step, champion, candidate, rate in ((1, 90, 10, 0.0), (2, 50, 50, 0.10)):
            day.made.begin_step(step)
            for _ in range(60):
                day.scrape(rng, champion, candidate, rate)
                aborted += judge(day.made.judge, PLAN, step, day.made.evidence()).verdict is Verdict.FAIL
    assert aborted == 0  # a comparison of averages would see 8 % against 4 %


def test_copies_that_come_late_are_no_answers_to_users():
    made = collector(settings(degraded_rate=0.1))
    made.predictions(records(30), records(20, "candidate"))
    made.begin_step(1)
    made.predictions(records(20, first=100), records(10, "candidate", first=20) + records(3, "candidate", first=500))
    assert made.evidence().tallies[1].answers == 3


def test_pairs_in_which_no_feature_could_be_compared_are_no_evidence_of_equal_features():
    made = collector(settings(feature_skew=0.05))
    made._views._shared = [shared for shared in made._views._shared if shared.view == "weather"]
    made.predictions(records(50), records(50, "candidate", ages_s={"weather": 3.0}))
    assert counts(made, "featureSkew") == {}


def test_the_yardstick_follows_a_champion_that_gets_slower():
    made = collector(settings(latency_p50_ratio=2.0))
    made.predictions(records(300), [])
    before = made.evidence().yardsticks["p50"]
    made.predictions(records(1000, first=300, latency_us=3000), [])
    made.predictions(records(500, first=1300, latency_us=3000), [])
    assert made.evidence().yardsticks["p50"] == pytest.approx(3 * before, rel=0.05)
