"""The judge says fail, pass, watching or no data, each only when it is due."""

from __future__ import annotations

import pytest

from flightdeck.contracts.rollout import Canary, Judge, Margins, Shadow, Step
from services.rollout_operator.evidence import Evidence, Tally
from services.rollout_operator.judge import judge, metrics_of
from services.rollout_operator.sequences import slot
from services.rollout_operator.verdict import MetricVerdict, Verdict

SHADOW = Step(shadow=Shadow.model_validate({"minPairs": 500, "deadline": "1m"}))
CANARY = Step(canary=Canary.model_validate({"weight": 10, "minRequests": 100, "deadline": "1m"}))
PLAN = [SHADOW, CANARY, CANARY]
EVERY = {
    "error_rate": 0.02, "latency_p50_ratio": 2.0, "latency_p99_ratio": 4.0, "degraded_rate": 0.05, "score_shift": 0.06,
    "score_delta": 0.1, "label_flips": 0.05, "feature_skew": 0.05, "label_loss": 0.03,
}  # fmt: skip
PARTS = (
    "errorRate/shadow", "errorRate/canary", "latencyP50Ratio", "latencyP99Ratio", "degradedRate", "scoreShift/mean",
    "scoreShift/spread", "scoreDelta", "labelFlips", "featureSkew",
)  # fmt: skip


def histogram(**counts: int) -> dict[int, int]:
    """Differences: worse (1), same (0), better (-1)."""
    values = {"worse": 1.0, "same": 0.0, "better": -1.0}
    return {int(slot(values[name], 0.0)): count for name, count in counts.items()}


def settings(**margins: float) -> Judge:
    return Judge(margins=Margins(**margins))


def evidence(series: dict[str, dict[int, dict[int, int]]], pairs: int = 1000, answers: int = 1000) -> Evidence:
    return Evidence(series=series, tallies={step: Tally(pairs=pairs, answers=answers) for step in range(3)})


def good(count: int = 1000) -> dict[str, dict[int, dict[int, int]]]:
    found = {part: {0: histogram(same=count)} for part in PARTS if part != "errorRate/canary"}
    for name in ("latencyP50Ratio", "latencyP99Ratio"):
        found[name] = {0: histogram(same=count - count // 5, better=count // 5)}
    return found


def of(metrics: tuple[MetricVerdict, ...], name: str) -> MetricVerdict:
    return next(item for item in metrics if item.metric == name)


def test_all_within_their_margins_and_enough_seen_is_a_pass():
    found = judge(settings(**EVERY), PLAN, 0, evidence(good()))
    assert found.verdict is Verdict.PASS, found.reason
    assert "1,000 pairs" in found.reason


def test_the_minimum_of_the_step_is_waited_for():
    found = judge(settings(**EVERY), PLAN, 0, evidence(good(), pairs=499))
    assert (found.verdict, "499 pairs of at least 500" in found.reason) == (Verdict.WATCHING, True)


@pytest.mark.parametrize("part", [part for part in PARTS if part != "errorRate/canary"])
def test_one_metric_beyond_its_margin_fails_and_is_named(part):
    series = good() | {part: {0: histogram(same=600, worse=400)}}
    found = judge(settings(**EVERY), PLAN, 0, evidence(series))
    assert found.verdict is Verdict.FAIL
    assert found.reason.startswith(part.partition("/")[0])


@pytest.mark.parametrize("part", ["scoreShift/mean", "scoreShift/spread"])
def test_scores_may_move_neither_way(part):
    series = good() | {part: {0: histogram(same=600, better=400)}}
    assert judge(settings(**EVERY), PLAN, 0, evidence(series)).verdict is Verdict.FAIL


@pytest.mark.parametrize("part", ["errorRate/shadow", "degradedRate", "latencyP99Ratio", "scoreShift/mean"])
def test_a_required_metric_without_data_is_no_data(part):
    series = good()
    del series[part]
    found = judge(settings(**EVERY), PLAN, 0, evidence(series))
    expected = Verdict.WATCHING if part == "scoreShift/mean" else Verdict.NO_DATA  # its other half was measured
    assert found.verdict is expected


def test_labels_can_fail_a_rollout_and_are_never_waited_for():
    assert judge(settings(**EVERY), PLAN, 0, evidence(good())).verdict is Verdict.PASS
    late = good() | {"labelLoss": {0: histogram(same=600, worse=400)}}
    assert judge(settings(**EVERY), PLAN, 0, evidence(late)).verdict is Verdict.FAIL


def test_errors_begin_anew_under_weight():
    found = judge(settings(**EVERY), PLAN, 1, evidence(good()))
    assert found.verdict is Verdict.NO_DATA
    assert "errorRate" in found.reason
    series = good() | {"errorRate/canary": {1: histogram(same=300)}}
    assert judge(settings(**EVERY), PLAN, 1, evidence(series)).verdict is Verdict.PASS


def test_what_only_the_shadow_shows_is_not_waited_for_under_weight_and_still_fails():
    series = good() | {"errorRate/canary": {1: histogram(same=300)}, "labelFlips": {}}
    assert judge(settings(**EVERY), PLAN, 1, evidence(series)).verdict is Verdict.PASS
    series["labelFlips"] = {0: histogram(same=600, worse=400)}
    assert judge(settings(**EVERY), PLAN, 1, evidence(series)).verdict is Verdict.FAIL


def test_a_fault_that_begins_late_does_not_hide_behind_a_good_past():
    late = {1: histogram(same=20_000), 2: histogram(same=60, worse=40)}
    found = judge(settings(error_rate=0.02), PLAN, 2, evidence({"errorRate/canary": late}))
    assert found.verdict is Verdict.FAIL, found.reason
    whole = {1: histogram(same=20_060, worse=40)}
    assert judge(settings(error_rate=0.02), PLAN, 1, evidence({"errorRate/canary": whole})).verdict is Verdict.PASS


def test_more_metrics_need_more_evidence_to_fail_and_no_more_to_pass():
    few, many = settings(error_rate=0.02), settings(**EVERY)
    series = good() | {"errorRate/shadow": {0: histogram(same=130, worse=14)}}
    lower = [of(judge(it, PLAN, 0, evidence(series)).metrics, "errorRate") for it in (few, many)]
    assert (lower[0].lower or 0) > (lower[1].lower or 0)
    assert lower[0].upper == lower[1].upper


def test_equal_answers_pass_after_about_the_log_of_beta_by_the_margin():
    def passes(pairs: int) -> bool:
        series = {"errorRate/shadow": {0: histogram(same=pairs)}}
        found = judge(settings(error_rate=0.01), PLAN, 0, evidence(series))
        return found.verdict is Verdict.PASS

    first = next(pairs for pairs in range(100, 1000) if passes(pairs))
    assert 300 <= first <= 400  # ln(1 / beta) is 3.0; betting on the boldest half costs ln 2 more


def test_score_metrics_are_told_in_the_scores_unit():
    minutes = Judge(margins=Margins(score_delta=20.0), score_range=(-30.0, 170.0))
    series = {"scoreDelta": {0: {int(slot(0.05, 0.0)): 1000}}}
    (found,) = judge(minutes, PLAN, 0, evidence(series)).metrics
    assert (found.estimate, found.margin, found.verdict) == (pytest.approx(10.0), 20.0, Verdict.PASS)
    assert found.lower is not None and found.upper is not None and found.lower < 10 < found.upper


def test_every_margin_of_the_schema_is_judged():
    assert {metric.field for metric in metrics_of(settings(**EVERY))} == set(Margins.model_fields)


def test_a_sentence_has_the_figures():
    series = {"errorRate/shadow": {0: histogram(same=420, worse=11)}}
    (found,) = judge(settings(error_rate=0.01), PLAN, 0, evidence(series)).metrics
    assert found.sentence.startswith("errorRate: 2.55 % more failed attempts than the champion, surely ")
    assert "margin 1 %, 431 compared" in found.sentence
