"""The word on a plan of the feature registry."""

from __future__ import annotations

from pathlib import Path

from flightdeck.contracts.model_spec import load_model_spec
from flightdeck.delivery.champion_card import described
from flightdeck.delivery.feature_gate import LABEL, broken_specs, judge, labels_of
from flightdeck.delivery.outcome import Found, Outcome
from pipelines.features.registry_changes import Described, compare
from tests.unit.delivery.champion_cards import champion

BEFORE = described(champion())
SHIPPED = load_model_spec(Path(__file__).parents[3] / "specs" / "late.yaml")
SPEC = SHIPPED.model_copy(update={"feature_service": "late_v2"})  # as the champion


def word(*labels: str, protected: tuple[str, ...] = ("late_v2",), **views: dict[str, str] | None) -> Outcome:
    """The word on definitions in which the weather's facts, or whole views, are as given."""
    after = dict(BEFORE)
    for name, facts in views.items():
        if facts is None:
            del after["feature view", name]
        else:
            before = BEFORE.get(("feature view", name))
            merged = {**(before.facts if before else {}), **facts}
            after["feature view", name] = Described("feature view", name, {k: v for k, v in merged.items() if v})
    return judge(compare(BEFORE, after), BEFORE, protected, labels, "dev")


def test_no_change_and_an_addition_pass_and_are_told():
    assert word().says == ("the definitions equal what is registered in dev",)
    added = word(wind={"join keys": "origin", "feature gust": "Float32"}, weather={"feature rain": "Float32"})
    assert added.found is Found.PASSED
    assert "feature view wind: added" in added.says[0] and "feature rain nothing -> Float32" in added.says[1]


def test_what_a_release_reads_is_refused_whatever_the_label():
    for change in ({"feature temp_f": ""}, {"feature temp_f": "String"}, {"join keys": "dest"}, None):
        found = word(LABEL, weather=change)
        assert found.found is Found.FAILED
        assert all("no label helps" in it.what and "expand" in it.do for it in found.findings)


def test_a_feature_that_no_release_reads_goes_with_the_label_only():
    gone = {"feature visib_mi": ""}
    refused, approved = word(weather=gone), word("other", LABEL, weather=gone)
    assert refused.found is Found.FAILED
    assert LABEL in refused.findings[0].do
    assert approved.found is Found.PASSED
    assert "approved by the label" in approved.says[0]


def test_a_release_that_can_be_undone_to_is_protected_as_well():
    only_old = judge(
        compare(BEFORE, {k: v for k, v in BEFORE.items() if k[1] != "late_v1"}), BEFORE, ("late_v1",), [LABEL], "dev"
    )
    assert only_old.found is Found.FAILED


def test_every_change_is_a_row_and_long_cells_are_cut():
    (table,) = word(weather={"description": "x" * 500}).tables.values()
    assert table[0][0] == "effect"
    assert max(len(cell) for row in table for cell in row) <= 120


def test_labels_come_from_the_flag_and_from_the_environment():
    assert labels_of(["a"], " b, ,c ") == {"a", "b", "c"}
    assert labels_of([], "") == frozenset()


def test_a_spec_must_name_a_service_that_is_defined_and_its_views():
    (absent,) = broken_specs([SPEC.model_copy(update={"feature_service": "late_v9"})], BEFORE)
    assert "late_v9, which is not defined" in absent.what and "late_v1, late_v2" in absent.do
    (other,) = broken_specs([SPEC], BEFORE)
    assert "late_v2 has the stored views weather" in other.what
