"""The word on a model, from its card and the champion's."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pytest

from flightdeck.contracts.card import GateResult, Interval, ModelCard, SliceMetric
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.layout import STATE_ENV
from flightdeck.contracts.model_spec import load_model_spec
from flightdeck.delivery import behaviour
from flightdeck.delivery.model_gate import DO, LABEL, compared, differences, judge
from flightdeck.delivery.models import off_lock, own_state, task_of
from flightdeck.delivery.outcome import Found
from pipelines.gates.decisions import GATES
from tests.unit.delivery.champion_cards import champion, model_card

SPECS = Path(__file__).parents[3] / "specs"
LATE, DELAY = (load_model_spec(SPECS / f"{name}.yaml") for name in ("late", "delay"))
OTHER_DIGEST = model_card().digests.model_copy(update={"holdout_sha256": "other"})


def passed(**verdicts: Verdict) -> list[GateResult]:
    return [
        GateResult(gate=it, verdict=verdicts.get(it, Verdict.PROMOTE), measured=0, margin=0.01, reason=f"said of {it}")
        for it in GATES
    ]  # fmt: skip


def ours(auc: float = 0.78, **changes: Any) -> ModelCard:
    return model_card(auc=auc, **{"gates": passed(), **changes})


def test_each_gate_says_what_to_do():
    assert set(DO) == set(GATES)


def test_a_model_that_all_gates_let_pass_passes_and_shows_its_figures():
    found = judge(LATE, ours(), None)
    assert found.found is Found.PASSED
    assert "no champion, so the absolute gates decide alone" in found.says[0]
    assert found.tables["late: metrics"][1][:2] == ("auc", "0.7800 [0.7600, 0.8000]")
    assert len(found.tables["late: gates"]) == 1 + len(GATES)


@pytest.mark.parametrize("verdict", [Verdict.REJECT, Verdict.HOLD])
def test_a_gate_that_rejects_and_one_that_cannot_tell_are_both_red(verdict: Verdict):
    (found,) = judge(LATE, ours(gates=passed(leak_truncation=verdict)), None).findings
    assert "leak_truncation: said of leak_truncation" in found.what
    assert "future" in found.do


def test_a_gate_that_gave_no_answer_is_red():
    (found,) = judge(LATE, ours(gates=passed()[1:]), None).findings
    assert "gave no answer" in found.what


def test_a_loss_beyond_the_margin_on_the_same_holdout_is_red():
    red, green = judge(LATE, ours(0.765), model_card()), judge(LATE, ours(0.775), model_card())
    assert "AUC 0.7650 [0.7450, 0.7850], champion v3 0.7800 [0.7600, 0.8000]" in red.findings[0].what
    assert "gain -0.0150, may lose at most 0.01; worse" in red.findings[0].what
    assert green.found is Found.PASSED and not green.not_run
    assert green.tables["late: metrics"][1][3] == "-0.0050"


def test_a_regression_gets_worse_upwards():
    def rmse(value: float) -> ModelCard:
        figure = Interval(value=value, low=value - 1, high=value + 1)
        return model_card("delay", metrics={"rmse": figure, "baseline_rmse": figure})

    assert compared(DELAY, rmse(48), rmse(47)).verdict is Verdict.REJECT
    assert compared(DELAY, rmse(46), rmse(47)).verdict is Verdict.PROMOTE


@pytest.mark.parametrize("value", [None, float("nan")])
def test_a_champion_without_a_figure_holds(value: float | None):
    bare = model_card(metrics={"auc": Interval.model_construct(value=value, low=None, high=None)})
    assert compared(LATE, ours(), bare).verdict is Verdict.HOLD
    assert judge(LATE, ours(), bare).found is Found.FAILED


def test_other_features_over_the_same_rows_are_compared_since_the_baseline_agrees():
    changed = ours(0.76, digests=OTHER_DIGEST, features=["temp_f", "gust"], feature_service="late_v3")
    assert differences(changed, model_card()) == []
    found = judge(LATE, changed, model_card())
    assert found.found is Found.FAILED
    assert any("features added: gust; removed: dewp_f" in it for it in found.says)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"holdout_until": dt.datetime(2013, 8, 1, tzinfo=dt.UTC)}, "until 2013-08-01, the champion's 2013-07-01"),
        ({"holdout_rows": 199}, "199 rows held out, the champion's 200"),
        ({"train_rows": 900}, "900 rows trained on"),
        ({"metrics": model_card().metrics | {"baseline_auc": Interval(value=0.71, low=0.66, high=0.73)}}, "baseline"),
        ({"metrics": {"auc": model_card().metrics["auc"]}}, "baseline"),
    ],
)
def test_another_holdout_is_refused_until_a_label_lets_the_absolute_gates_decide(changes: dict[str, Any], words: str):
    changed = ours(0.6, digests=OTHER_DIGEST, **changes)
    (refused,) = judge(LATE, changed, model_card()).findings
    assert words in refused.what and LABEL in refused.do
    found = judge(LATE, changed, model_card(), {LABEL})
    assert found.found is Found.PASSED
    assert words in found.not_run[0] and "absolute gates alone decided" in found.not_run[0]
    assert found.tables["late: metrics"][1][3] == "not the same holdout"


def test_a_margin_that_was_moved_is_told():
    moved = [it.model_copy(update={"margin": 0.5}) if it.gate == "slices" else it for it in passed()]
    found = judge(LATE, ours(gates=moved), ours())
    assert any("margins differ from those that the champion passed: slices 0.01 -> 0.5" in it for it in found.says)


def test_the_slice_that_lost_most_comes_first():
    def slices(of_aa: float, of_ua: float) -> list[SliceMetric]:
        return [
            SliceMetric(slice="carrier", value=name, rows=400, metric=value, calibration_gap=0.01)
            for name, value in (("AA", of_aa), ("UA", of_ua))
        ]

    table = judge(LATE, ours(slices=slices(0.8, 0.7)), model_card(slices=slices(0.79, 0.75))).tables["late: slices"]
    assert [row[0] for row in table[1:]] == ["carrier UA", "carrier AA"]
    assert table[1][4] == "-0.0500"


def test_with_a_champion_the_training_is_on_its_days():
    until = dt.datetime(2013, 5, 4, 4, tzinfo=dt.UTC)
    card = champion(model_card(holdout_until=dt.datetime(2013, 6, 30, 4, tzinfo=dt.UTC)))
    task = task_of(LATE, card, until)
    assert task.window.holdout_until == dt.datetime(2013, 6, 30, 4, tzinfo=dt.UTC)
    assert task.champion is not None
    assert task_of(DELAY, card, until).until_utc == until


def test_the_outcome_is_kept_where_the_caller_wants_it_after_the_run_used_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for before in ("/elsewhere", None):
        monkeypatch.setenv(STATE_ENV, before) if before else monkeypatch.delenv(STATE_ENV)
        with own_state(tmp_path):
            assert os.environ[STATE_ENV] == str(tmp_path)
        assert os.environ.get(STATE_ENV) == before


def test_an_environment_that_is_not_the_locks_is_refused():
    lock = "polars==2.0.1 \\\n    --hash=sha256:aa\nfeast[duckdb]==0.67.0 ; python_version > '3'\nwinonly==1 \\\n"
    there = {"polars": "2.0.1", "feast": "0.67.0"}
    assert off_lock(lock, there.get) == []
    (other,) = off_lock(lock, {**there, "polars": "2.1.0"}.get)
    assert "polars 2.1.0 (lock: 2.0.1)" in other.what
    assert off_lock("", there.get)


def test_a_failed_behaviour_test_is_a_finding_and_none_at_all_is_one():
    report = (
        '<testsuites><testsuite><testcase name="test_a"/><testcase name="test_b[7]"><failure message="0.6 &gt;= 0.7"/>'
        '</testcase><testcase name="test_c"><skipped message="no data"/></testcase></testsuite></testsuites>'
    )
    found = behaviour.outcome_of(report, 1, "")
    assert [it.what for it in found.findings] == ["behaviour test test_b[7] fails: 0.6 >= 0.7"]
    assert found.says == ("1 of 2 behaviour tests pass",) and "no data" in found.not_run[0]
    assert behaviour.outcome_of("", 4, "no such file").findings
    assert behaviour.outcome_of("<testsuites/>", 5, "").findings
    assert not behaviour.outcome_of('<testsuites><testcase name="a"/></testsuites>', 0, "").findings


def test_the_behaviour_tests_of_a_checkout_are_really_run(tmp_path: Path):
    assert "did not run" in behaviour.check(tmp_path).findings[0].what
    folder = tmp_path / behaviour.FOLDER
    folder.mkdir(parents=True)
    (folder / "test_rules.py").write_text("def test_up():\n    assert True\n\ndef test_down():\n    assert 1 > 2\n")
    found = behaviour.check(tmp_path)
    assert found.says == ("1 of 2 behaviour tests pass",)
    assert "behaviour test test_down fails: assert 1 > 2" in found.findings[0].what
