"""The judge keeps its two bounds over many simulated rollouts, and its table can tell when a way of judging does not.

A small run of benchmarks/judge_bench.py, with its scenarios; `make judge-bench` is the large one.
"""

from __future__ import annotations

import functools

import pytest

from benchmarks import slices_bench
from benchmarks.judge_bench import SCENARIOS, Row, Scenario, bench_spec, markdown, measure, wilson
from services.rollout_operator.simulate import End

ROLLOUTS = 150
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
# The others take long for what they add to a small run: thousands of requests until a deadline.
QUICK = [it for it in SCENARIOS if it.patience == 1 and ("margin" not in it.name or it.bare)]


@functools.cache
def rolled_out(scenario: Scenario, rule: str, rollouts: int = ROLLOUTS) -> Row:
    return measure(scenario, rule, rollouts)


@pytest.mark.parametrize("scenario", QUICK, ids=lambda it: it.name)
def test_no_bound_is_broken(scenario: Scenario):
    row = rolled_out(scenario, "judge")
    assert not row.broken, row.cells()


@pytest.mark.parametrize(
    "scenario", [it for it in QUICK if it.bad and not it.good and "1 request" not in it.name], ids=lambda it: it.name
)
def test_each_fault_is_found_before_the_deadline(scenario: Scenario):
    assert rolled_out(scenario, "judge").outcomes.share(End.ABORTED) >= 0.9


def test_an_equal_candidate_is_promoted():
    assert rolled_out(BY_NAME["equal"], "judge").outcomes.share(End.PROMOTED) >= 0.97


def test_too_little_traffic_is_no_decision_and_never_an_abort():
    assert rolled_out(BY_NAME["equal, 1 request/s"], "judge").outcomes.share(End.UNDECIDED) == 1


def test_both_bounds_are_used_where_nothing_else_protects():
    """Else the test of the bounds would be empty: a judge that never decides keeps every bound."""
    row = rolled_out(BY_NAME["errors at the margin, one step, one metric"], "judge", 600)
    assert not row.broken
    assert all(count > 0 for _, count, _ in row.wrong)


@pytest.mark.parametrize("rule", ["fixed threshold", "repeated 5 % test"])
def test_the_table_sees_a_rule_that_breaks_its_bounds(rule: str):
    assert rolled_out(BY_NAME["errors at the margin, one step, one metric"], rule).broken


def test_a_window_with_a_fixed_threshold_takes_a_burst_for_a_fault():
    assert rolled_out(BY_NAME["equal, bursty traffic"], "fixed threshold", 40).outcomes.share(End.ABORTED) > 0.5


def test_the_interval_is_wilsons():
    assert wilson(0, 100) == pytest.approx((0, 0.0370), abs=1e-4)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)


def test_the_table_is_written_for_docs():
    lines = markdown([rolled_out(BY_NAME["50 ms slower"], "judge")]).splitlines()
    assert len(lines) == 3
    assert all(line.count("|") == 8 for line in lines)
    assert bench_spec(60).plan[0].deadline_s == 4 * 3600


@pytest.mark.parametrize(
    ("name", "sliced", "end"),
    [
        ("equal", True, End.PROMOTED),
        ("DL (14 %): scores shifted by 0.2", True, End.ABORTED),
        ("DL (14 %): scores shifted by 0.2", False, End.PROMOTED),
    ],
)
def test_slices_find_what_all_answers_together_hide_and_abort_no_good_one(name: str, sliced: bool, end: End):
    (scenario,) = (it for it in slices_bench.SCENARIOS if it.name == name)
    row = slices_bench.measure(scenario, slices_bench.JUDGES[0 if sliced else 1], rollouts=40, seed=3)
    assert row.outcomes.share(end) >= 0.95
    assert not row.broken
