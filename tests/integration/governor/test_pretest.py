"""The pre-test from the lake to its answer, on the second use case: real features, a real registry, real champions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flightdeck.contracts.layout import STATE_ENV, StateLayout
from pipelines.features.registry import ONLINE_REDIS_ENV
from pipelines.use_case import USE_CASE_ENV

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHECKOUT = Path(__file__).parents[3]
BIKES = Path(__file__).parents[1] / "byo" / "bikes"
NOW = "2024-04-28T10:30:00+00:00"


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    layout = StateLayout(tmp_path_factory.mktemp("pretest"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLIGHTDECK_")} | {
        "PYTHONPATH": f"{BIKES}:{CHECKOUT}",  # before the checkout: `feature_repo` is the second use case's
        USE_CASE_ENV: "bike_share.use_case:USE_CASE",
        STATE_ENV: str(layout.root),
        ONLINE_REDIS_ENV: "127.0.0.1:1",  # the pre-test reads no online store
        "OMP_NUM_THREADS": "1",
    }
    script = Path(__file__).parent / "ask_pretest.py"
    done = subprocess.run(
        [sys.executable, str(script), str(BIKES / "specs" / "full.yaml"), NOW, f"sqlite:///{layout.mlflow_db}"],
        env=environment, cwd=layout.root, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_without_a_champion_a_training_would_win(answers):
    assert answers["none"]["answer"] == "would win"


def test_a_champion_of_the_same_data_would_not_be_beaten_by_a_smaller_model(answers):
    found = answers["honest"]
    assert found["answer"] in {"would not", "cannot tell"}, found["reason"]
    assert found["gain"]["low"] <= 0
    assert found["train_rows"] == 4000
    assert found["holdout_rows"] == 10 * 24 * 20
    assert found["champion"] == "v1"


def test_a_champion_that_has_it_upside_down_would_be_beaten_with_figures(answers):
    found = answers["spoiled"]
    assert found["answer"] == "would win", found["reason"]
    assert found["gain"]["low"] > 0
    assert found["small_rmse"] < found["champion_rmse"]
    assert "a small model on 4,000 of 6,700 rows of 14 days to 2024-04-17" in found["reason"], found["reason"]


def test_the_same_question_has_the_same_answer(answers):
    first, again = ({**answers[name], "seconds": 0} for name in ("spoiled", "spoiled again"))
    assert first == again


def test_without_rows_before_the_holdout_it_cannot_be_told(answers):
    found = answers["too early"]
    assert found["answer"] == "cannot tell"
    assert "no train rows" in found["reason"]
    assert found["gain"] is None
