"""The section `retrain` of a model spec."""

from __future__ import annotations

import pydantic
import pytest

from flightdeck.contracts.model_spec import Retrain, load_model_spec, specs_folder
from flightdeck.contracts.retrain import Trigger

GOOD = {
    "triggers": {"schedule": "pretest", "code": "train"}, "every": "P28D", "cool_down": "P1D", "budget_per_day": 2,
    "pretest": {"train_days": 60, "sample_rows": 5000, "min_gain": 0, "on_cannot_tell": "train"},
}  # fmt: skip


@pytest.mark.parametrize("name", ["late", "delay"])
def test_the_shipped_specs_name_their_policy(name):
    assert load_model_spec(specs_folder() / f"{name}.yaml").retrain is not None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"triggers": {"hand": "train"}}, "hand is not for a policy"),
        ({"triggers": {"skew": "train"}}, "skew is not for a policy"),
        ({"triggers": {}}, "at least 1"),
        ({"every": None}, "needs `every`"),
        ({"triggers": {"code": "pretest"}}, "no effect without triggers.schedule"),
        ({"pretest": None}, "needs the section pretest"),
        ({"triggers": {"schedule": "train"}}, "no effect without one"),
        ({"cool_down": "PT0S"}, "cool_down must be positive"),
        ({"every": "-P1D"}, "every must be positive"),
        ({"budget_per_day": 0}, "greater than or equal to 1"),
        ({"budget": 1}, "Extra inputs"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(change, words):
    with pytest.raises(pydantic.ValidationError, match=words):
        Retrain.model_validate(GOOD | change)


def test_a_trigger_without_zone_evidence_or_source_is_refused():
    whole = {"model": "late", "kind": "drift", "at": "2013-07-01T00:00Z", "evidence": "PSI 0.3", "source": "monitor"}
    assert Trigger.model_validate(whole).identity == Trigger.model_validate(whole).identity
    for change in ({"at": "2013-07-01T00:00"}, {"evidence": ""}, {"source": ""}, {"kind": "mood"}, {"model": "*"}):
        with pytest.raises(pydantic.ValidationError):
            Trigger.model_validate(whole | change)


def test_another_policy_is_no_other_training():
    from pipelines.training.lineage import spec_sha256

    spec = load_model_spec(specs_folder() / "late.yaml")
    assert spec_sha256(spec) == spec_sha256(spec.model_copy(update={"retrain": None}))
    assert spec_sha256(spec) != spec_sha256(spec.model_copy(update={"horizon_min": spec.horizon_min + 1}))
