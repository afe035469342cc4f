"""A leaking feature and a worse model, as a developer would commit them; beside them the code as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from flightdeck.contracts.card import ModelCard
from tests.planted.checkout import Checkout, Ran

# One group: the run of the code as it is serves all tests here.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("planted-models")]

# A shorter past than CI's, so that each run is quick; the gates and their margins are the spec's own.
WORDS = ("--model", "late", "--until", "2013-03-22T04:00Z", "--no-behaviour")


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, ModelCard, str]:
    """The shipped code and specs, trained and judged; its own card is what serves in the other tests."""
    checkout = Checkout.at(tmp_path_factory.mktemp("clean"))
    ran = checkout.gate("models", *WORDS)
    card = checkout.root / ".flightdeck" / "ci-models" / "candidates" / "ci-late" / "model-card.json"
    assert card.is_file(), ran.text
    return ran, ModelCard.model_validate_json(card.read_text()).model_copy(update={"version": "7"}), ran.text


def test_the_shipped_model_passes_every_gate_and_says_that_nothing_serves_yet(clean: tuple[Ran, ModelCard, str]):
    ran, card, text = clean
    assert ran.code == 0, text
    assert "NOT RUN: comparison with what serves: FLIGHTDECK_CHAMPION_CARD is not set" in text
    assert ran.outcome is not None
    gates = ran.outcome.tables["late: gates"]
    assert len(gates) == 15 and {row[1] for row in gates[1:]} == {"PROMOTE"}
    assert ran.outcome.tables["late: metrics"][1][0] == "auc"
    assert card.holdout_rows > 10_000


def test_a_model_that_no_longer_sees_what_delays_flights_is_worse_than_what_serves(
    clean: tuple[Ran, ModelCard, str], tmp_path: Path
):
    checkout = Checkout.at(tmp_path)
    serving = checkout.champion_card(clean[1])
    blind = [
        f"{name}_{hours}h"
        for hours in (1, 3)
        for name in ("departures", "mean_dep_delay_min", "late_dep_share", "cancellations")
    ]
    more = ", ".join([*blind, "overdue_flights", "overdue_flights_all_origins"])
    checkout.edit("specs/late.yaml", "ignore: [dep_day_of_year]", f"ignore: [dep_day_of_year, {more}]")
    ran = checkout.gate("models", *WORDS, **serving)
    assert ran.code == 1
    assert "late is refused by quality: AUC" in ran.text
    assert (
        "champion v7" in ran.text and "on the same holdout" in ran.text and "may lose at most 0.01; worse" in ran.text
    )
    assert "do: give the model back what it lost" in ran.text
    assert "NOT RUN: comparison" not in ran.text and "NOT RUN: signatures" not in ran.text


def test_a_congestion_window_that_looks_45_minutes_ahead_is_a_leak(tmp_path: Path):
    checkout = Checkout.at(tmp_path)
    checkout.edit(
        "feature_repo/transforms.py", "at=first.departed_at_utc,",
        "at=first.departed_at_utc - _interval(dt.timedelta(minutes=45)),",
    )  # fmt: skip
    ran = checkout.gate("models", *WORDS)
    assert ran.code == 1
    assert "late is refused by leak_truncation: a feature changes when the future goes" in ran.text
    assert "congestion." in ran.text
    assert "do: let the view count only what is known at its time" in ran.text
