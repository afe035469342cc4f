"""What the model of lateness must do on real flights; each figure has room for a smaller sample, not for a fault."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from flightdeck.contracts.decision import Verdict
from pipelines.gates.decisions import calibration
from pipelines.gates.evidence import Evidence, Scored

pytestmark = pytest.mark.slow


def judged(world, rows: pl.DataFrame, column: str = "_score"):
    """The calibration gate's answer on these rows."""
    label, score = rows["label_late"].cast(pl.Float64).to_numpy(), rows[column].to_numpy()
    scored = Scored(label, rows["_day"].to_numpy(), score, score, None, score, {})
    return calibration(
        Evidence(
            spec=world.spec, scored=scored, champion_version=None, features=[], separations={}, moved={},
            footprint=None, model_inputs=None, service_features=None, service_views=None, manifest_views=[],
            rejoined=None, truncated=None, problems={},
        )
    )  # fmt: skip


@pytest.mark.parametrize(("month", "least"), [(7, 0.75), (10, 0.68)])
def test_it_ranks_flights_of_months_it_has_not_seen(world, month: int, least: float):
    rows = world.month(month)
    found = roc_auc_score(rows["label_late"], rows["_score"])
    assert found >= least
    assert found >= roc_auc_score(rows["label_late"], rows["_baseline"]) + 0.03


def test_it_is_calibrated_in_the_summer_it_was_trained_for(world):
    result = judged(world, world.month(7))
    assert result.verdict is Verdict.PROMOTE, result.reason


def test_its_recent_history_carries_it_into_october(world):
    result = judged(world, world.month(10))
    assert result.verdict is Verdict.PROMOTE, result.reason


@pytest.mark.parametrize("month", [9, 10])
def test_scores_from_the_schedule_alone_trained_to_june_fail_calibration_in_autumn(world, month: int):
    """The drift is real: what was usual until June promises far too many late flights in autumn."""
    rows = world.month(month)
    result = judged(world, rows, "_baseline")
    assert result.verdict is Verdict.REJECT, result.reason
    assert rows["_baseline"].mean() > 1.25 * rows["label_late"].mean()


def test_the_date_itself_does_not_move_the_score(world):
    vectors = world.vectors(world.month(7).head(500))
    winter = vectors.copy()
    winter[:, world.names.index("dep_day_of_year")] = 20
    assert np.array_equal(world.model.score(vectors), world.model.score(winter))


def test_a_row_gets_the_same_score_alone_as_among_others_in_any_order(world):
    vectors = world.vectors(world.month(7).head(200))
    together = world.model.score(vectors)
    assert np.array_equal(together[::-1], world.model.score(vectors[::-1].copy()))
    alone = np.array([world.model.score(vectors[number : number + 1])[0] for number in range(len(vectors))])
    assert alone == pytest.approx(together, abs=1e-7)


@pytest.mark.parametrize(
    ("feature", "add"), [("late_dep_share_3h", 0.2), ("late_dep_share_1h", 0.2), ("overdue_flights_all_origins", 20)]
)
def test_worse_conditions_at_the_origin_raise_the_mean_score(world, feature: str, add: float):
    vectors = world.vectors(world.month(7))
    worse = vectors.copy()
    worse[:, world.names.index(feature)] += np.float32(add)
    assert world.model.score(worse).mean() > world.model.score(vectors).mean()


def test_a_flight_of_which_nothing_is_known_gets_a_score_near_the_base_rate(world):
    unknown = world.model.score(world.defaults[None])[0]
    assert 0.2 * world.built.manifest.fallback_score < unknown < 2 * world.built.manifest.fallback_score
