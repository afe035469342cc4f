from __future__ import annotations

import math

import pytest

from benchmarks.linear_artefact import served_features
from feature_repo.request import ON_DEMAND_FEATURES
from flightdeck.contracts.artefact import ModelManifest, ServedFeature, ViewPolicy
from flightdeck.contracts.model_spec import OnMissing, Task
from services.predictor.features import (
    FeaturePlan,
    StoredValues,
    StoredView,
    assemble,
    horizon_reason,
    plan_from_manifest,
)

NOW_S = 1_000_000.0


def plan(on_missing: OnMissing = OnMissing.DEFAULT, second: OnMissing = OnMissing.DEFAULT) -> FeaturePlan:
    return FeaturePlan(
        names=("minute", "late", "count", "temp"),
        defaults=(0.5, 10.0, 20.0, 30.0),
        on_demand=((0, "minute"),),
        views=(
            StoredView("history", ("carrier",), ("late", "count"), (1, 2), 3600.0, on_missing),
            StoredView("weather", ("origin",), ("temp",), (3,), 600.0, second),
        ),
    )


def put_together(stored: dict[str, StoredValues | None] | None, used: FeaturePlan | None = None):
    return assemble(
        used or plan(), {"minute": 7.0}, stored, now_s=NOW_S, future_tolerance_s=60.0, unreachable="store unreachable"
    )


FRESH = {"history": StoredValues((1.0, 2.0), NOW_S - 60), "weather": StoredValues((3.0,), NOW_S - 30)}


def test_fresh_values_fill_the_vector_in_the_manifests_order():
    one = put_together(FRESH)
    assert one.vector == [7.0, 1.0, 2.0, 3.0]
    assert one.ages_s == {"history": 60.0, "weather": 30.0}
    assert one.problems == []
    assert one.action is None


@pytest.mark.parametrize(
    ("history", "kind", "reason"),
    [
        (None, "missing", "history: missing"),
        (StoredValues((1.0, 2.0), None), "missing", "history: missing"),
        (StoredValues((1.0, None), NOW_S), "missing", "history: missing count"),
        (StoredValues((1.0, 2.0), NOW_S - 7200), "stale", "history: stale 7200 s > 3600 s"),
        (StoredValues((1.0, 2.0), NOW_S + 120), "future", "history: 120 s in the future"),
    ],
)
def test_a_view_with_a_problem_is_replaced_whole_by_its_defaults_and_named(history, kind, reason):
    one = put_together(FRESH | {"history": history})
    assert one.vector == [7.0, 10.0, 20.0, 3.0]
    assert [(problem.kind, problem.reason) for problem in one.problems] == [(kind, reason)]
    assert one.action is OnMissing.DEFAULT


@pytest.mark.parametrize("age_s", [3600.0, 0.0, -60.0])
def test_an_age_at_the_very_limit_is_still_accepted(age_s):
    assert put_together(FRESH | {"history": StoredValues((1.0, 2.0), NOW_S - age_s)}).problems == []


def test_a_stored_null_gets_the_training_median_as_in_training_and_is_no_problem():
    one = put_together(FRESH | {"history": StoredValues((math.nan, 2.0), NOW_S)})
    assert one.vector == [7.0, 10.0, 2.0, 3.0]
    assert one.problems == []


def test_an_on_demand_value_that_is_not_known_gets_the_training_median_too():
    one = assemble(plan(), {"minute": math.nan}, FRESH, now_s=NOW_S, future_tolerance_s=60.0)
    assert one.vector == [0.5, 1.0, 2.0, 3.0]


def test_an_unreachable_store_degrades_every_view_with_the_stores_own_words():
    one = put_together(None)
    assert one.vector == [7.0, 10.0, 20.0, 30.0]
    assert [problem.reason for problem in one.problems] == ["history: store unreachable", "weather: store unreachable"]
    assert one.ages_s == {"history": None, "weather": None}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (OnMissing.DEFAULT, OnMissing.FALL_BACK, OnMissing.FALL_BACK),
        (OnMissing.REJECT, OnMissing.FALL_BACK, OnMissing.REJECT),
        (OnMissing.FALL_BACK, OnMissing.DEFAULT, OnMissing.FALL_BACK),
    ],
)
def test_the_strongest_policy_among_the_problems_decides(first, second, expected):
    assert put_together(None, plan(first, second)).action is expected


def test_a_policy_without_a_problem_decides_nothing():
    assert put_together(FRESH, plan(OnMissing.REJECT, OnMissing.REJECT)).action is None


@pytest.mark.parametrize(("off_min", "expected"), [(0, None), (60, None), (-60, None)])
def test_a_prediction_asked_near_its_horizon_is_not_degraded(off_min, expected):
    assert horizon_reason(now_s=0, due_s=off_min * 60, horizon_min=120, tolerance_min=60) is expected


def test_a_prediction_asked_too_early_or_too_late_says_how_far():
    late = horizon_reason(now_s=0, due_s=-100 * 60, horizon_min=120, tolerance_min=60)
    assert late == "horizon: asked 20 min ahead, the model is made for 120 min"
    early = horizon_reason(now_s=0, due_s=1440 * 60, horizon_min=120, tolerance_min=60)
    assert early == "horizon: asked 1560 min ahead, the model is made for 120 min"


def manifest(features: list[ServedFeature], views: dict[str, ViewPolicy]) -> ModelManifest:
    return ModelManifest(
        model="late",
        task=Task.CLASSIFICATION,
        horizon_min=120,
        unit="probability",
        feature_project="p",
        feature_service="late_v1",
        features=features,
        views=views,
        decision_threshold=0.5,
        fallback_score=0.2,
        files=[],
    )


def stored(name: str, view: str, keys: list[str]) -> ServedFeature:
    return ServedFeature(name=name, source="stored", view=view, join_keys=keys, feast_type="FLOAT", default=0.0)


POLICY = ViewPolicy(max_age_s=1.0, on_missing=OnMissing.DEFAULT)


def test_the_plan_keeps_every_column_of_the_manifest_exactly_once():
    features = served_features()
    views = {feature.view: POLICY for feature in features if feature.source == "stored"}
    made = plan_from_manifest(manifest(features, views), ON_DEMAND_FEATURES)
    columns = [column for column, _ in made.on_demand] + [column for view in made.views for column in view.columns]
    assert sorted(columns) == list(range(len(features)))


@pytest.mark.parametrize(
    ("features", "views", "words"),
    [
        ([stored("a", "v", ["k"])], {}, "no policy"),
        ([stored("a", "v", ["k"]), stored("b", "v", ["l"])], {"v": POLICY}, "one set of join keys"),
        ([stored("a", "v", [])], {"v": POLICY}, "one set of join keys"),
        (
            [ServedFeature(name="moon", source="on_demand", view="c", join_keys=[], feast_type="FLOAT", default=0.0)],
            {},
            "'moon' is not computed",
        ),
    ],
)
def test_a_manifest_this_code_cannot_serve_is_refused_at_start(features, views, words):
    with pytest.raises(ValueError, match=words):
        plan_from_manifest(manifest(features, views), ON_DEMAND_FEATURES)
