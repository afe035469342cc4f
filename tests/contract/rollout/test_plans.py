"""Every ModelRollout of the repository can decide in time: with each overlay's replicas, and in the pages."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest

from flightdeck.cluster.manifests import kustomize
from flightdeck.delivery.manifests.plans import KIND, RATES_PER_S, doubts, hopeless, in_checkout, read, replica_counts
from services.rollout_operator import acceptance

CHECKOUT = Path(__file__).resolve().parents[3]
OVERLAYS = sorted(it.name for it in (CHECKOUT / "k8s" / "overlays").iterdir())
FOUND = list(in_checkout(CHECKOUT))


@functools.cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    return kustomize(CHECKOUT / "k8s" / "overlays" / overlay)


def test_the_plans_are_found_where_they_are():
    names = [name for name, _ in FOUND]
    assert "docs/rollout.md" in names
    assert {it for it in names if it.startswith("specs/")} == {
        f"specs/{path.name}" for path in (CHECKOUT / "specs").glob("*.rollout.yaml")
    }


@pytest.mark.parametrize(("name", "found"), FOUND, ids=[name for name, _ in FOUND])
def test_every_plan_can_decide_in_time_and_nothing_about_it_is_doubtful(name, found):
    assert acceptance.never(read(found).spec) == ""
    assert hopeless(name, found, RATES_PER_S) == []
    assert doubts(name, found, RATES_PER_S) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_plan_passes_with_the_replicas_that_an_overlay_gives(overlay):
    if shutil.which("kubectl") is None:
        pytest.skip("NOT TESTED: no kubectl on the PATH, so no overlay was rendered")
    # What a deploy brings: the rollouts in specs/ beside the overlay, and any that it has itself.
    rollouts = [it for name, it in FOUND if name.startswith("specs/")]
    rollouts += [it for it in rendered(overlay) if it["kind"] == KIND]
    for found in rollouts:
        counts = replica_counts(found, rendered(overlay))
        assert hopeless(overlay, found, RATES_PER_S[:1], counts) == [], f"{overlay}: {counts} replicas"
