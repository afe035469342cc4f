"""What each `on_missing` policy answers when the store is away."""

from __future__ import annotations

import pytest

from flightdeck.contracts.model_spec import OnMissing
from services.predictor.runtime import feature_hash


@pytest.fixture
def answered(request, predictor_with, flight):
    """The answer of a predictor whose `weather` view has the given policy and whose store is away."""
    return predictor_with({"weather": request.param}).post("/v1/predict", {"rows": [flight]})


@pytest.mark.parametrize("answered", [OnMissing.REJECT], indirect=True)
def test_reject_answers_503_and_names_the_row_and_the_view(answered):
    assert answered.status == 503
    assert answered.json["error"]["code"] == "features_unavailable"
    assert answered.json["error"]["field"] == "rows[0]"
    assert "weather: store unreachable" in answered.json["error"]["message"]


@pytest.mark.parametrize("answered", [OnMissing.FALL_BACK], indirect=True)
def test_fall_back_answers_the_base_rate_and_says_so(answered):
    (one,) = answered.json["predictions"]
    assert one["score"] == 0.25
    assert one["decision"] == "negative"
    assert "fall_back: answered the model's base rate 0.25" in one["degraded"]


@pytest.mark.parametrize("answered", [OnMissing.DEFAULT], indirect=True)
def test_default_runs_the_model_and_says_what_was_missing(answered):
    (one,) = answered.json["predictions"]
    assert one["score"] != 0.25
    assert not any(reason.startswith("fall_back") for reason in one["degraded"])


def test_equal_vectors_have_equal_hashes_whatever_they_are_held_in():
    assert feature_hash([1.0, None, 0.1]) == feature_hash((1.0, float("nan"), 0.1))
    assert feature_hash([1.0]) != feature_hash([1.5])
