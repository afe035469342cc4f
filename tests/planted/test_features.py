"""A destructive change of the features, as a developer would commit it: read by a release, unlabelled, labelled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planted.checkout import Checkout
from tests.unit.delivery.champion_cards import model_card

pytestmark = pytest.mark.slow
SERVICES, DEFINITIONS = "feature_repo/feature_services.py", "feature_repo/definitions.py"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout.at(tmp_path)


@pytest.fixture
def serving(checkout: Checkout) -> dict[str, str]:
    """`late` serves and reads late_v2; nothing reads late_v1 any more."""
    return checkout.champion_card(model_card("late", feature_service="late_v2"))


def without_late_v1(checkout: Checkout) -> None:
    text = (checkout.root / SERVICES).read_text()
    start, end = text.index("late_v1 = FeatureService("), text.index("late_v2 = FeatureService(")
    (checkout.root / SERVICES).write_text((text[:start] + text[end:]).replace("(late_v1, late_v2", "(late_v2"))
    checkout.edit(DEFINITIONS, "import delay_v1, late_v1, late_v2", "import delay_v1, late_v2")
    checkout.edit(DEFINITIONS, '    "late_v1",\n', "")


def test_the_definitions_that_serve_pass(checkout: Checkout, serving: dict[str, str]):
    ran = checkout.gate("features", **serving)
    assert ran.code == 0, ran.text
    assert "the definitions equal what is registered in dev" in ran.text
    assert "NOT RUN" not in ran.text


def test_what_a_serving_release_reads_cannot_be_taken_away_even_with_the_label(
    checkout: Checkout, serving: dict[str, str]
):
    checkout.edit("feature_repo/transforms.py", '    "humid_pct",\n', "")
    ran = checkout.gate("features", "--label", "features:destructive", **serving)
    assert ran.code == 1
    assert "feature view weather: feature humid_pct Float32 -> removed: a release reads it through late_v2" in ran.text
    assert "no label helps" in ran.text
    assert "do: expand: make a new version of the feature service beside it" in ran.text


def test_what_a_serving_release_reads_keeps_its_type(checkout: Checkout, serving: dict[str, str]):
    checkout.edit("feature_repo/sources.py", "Field(name=name, dtype=Float32)", "Field(name=name, dtype=String)")
    ran = checkout.gate("features", FLIGHTDECK_LABELS="features:destructive", **serving)
    assert ran.code == 1
    assert "feature humid_pct Float32 -> String: a release reads it through late_v2, no label helps" in ran.text


def test_another_destructive_change_waits_for_the_label(checkout: Checkout, serving: dict[str, str]):
    without_late_v1(checkout)
    refused = checkout.gate("features", FLIGHTDECK_LABELS="documentation", **serving)
    assert refused.code == 1
    assert "feature service late_v1: removed: whoever reads it breaks" in refused.text
    assert "set the label features:destructive" in refused.text
    approved = checkout.gate("features", FLIGHTDECK_LABELS="documentation,features:destructive", **serving)
    assert approved.code == 0, approved.text
    assert "approved by the label features:destructive, feature service late_v1: removed" in approved.text


def test_a_card_that_is_named_and_not_there_is_a_refusal(checkout: Checkout):
    ran = checkout.gate("features", FLIGHTDECK_CHAMPION_CARD=str(checkout.root / "absent.json"))
    assert ran.code == 1
    assert "cannot be read" in ran.text and "do: see that FLIGHTDECK_CHAMPION_CARD" in ran.text
