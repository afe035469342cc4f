"""Every ModelRollout of the repository can decide in time: with each overlay's replicas, and in the pages."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flightdeck.cli.lint import stand_in
from flightdeck.contracts.rollout import ModelRollout, parse_rollout
from services.rollout_operator import acceptance
from services.rollout_operator.forecast import Traffic
from services.rollout_operator.lint import lint

CHECKOUT = Path(__file__).resolve().parents[3]
RATES_PER_S = (50.0, 100.0)  # what the cluster's figures are for, and what the lab's users send
OVERLAYS = sorted(it.name for it in (CHECKOUT / "k8s" / "overlays").iterdir())
KIND = "ModelRollout"


def in_files() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every one in a YAML file, and every one in a page's example."""
    tracked = subprocess.run(
        ("git", "ls-files", "*.yaml", "*.yml", "*.md"), cwd=CHECKOUT, check=True, capture_output=True, text=True
    ).stdout.split()
    for name in tracked:
        text = (CHECKOUT / name).read_text()
        if KIND not in text or name.startswith("tests/"):
            continue
        parts = re.findall(r"```ya?ml\n(.*?)```", text, re.DOTALL) if name.endswith(".md") else [text]
        for part in parts:
            for found in yaml.safe_load_all(part):
                if isinstance(found, dict) and found.get("kind") == KIND:
                    yield name, found


FOUND = list(in_files())


def parsed(found: dict[str, Any], replicas: int | None = None) -> ModelRollout:
    spec = {key: value for key, value in found["spec"].items() if key != "release"}
    if replicas is not None:
        spec["replicas"] = replicas
    return parse_rollout(yaml.safe_dump({**found, "spec": spec}), found["metadata"]["name"], release=stand_in())


def test_the_plans_are_found_where_they_are():
    names = [name for name, _ in FOUND]
    assert "docs/rollout.md" in names
    assert {it for it in names if it.startswith("specs/")} == {
        f"specs/{path.name}" for path in (CHECKOUT / "specs").glob("*.rollout.yaml")
    }


@pytest.mark.parametrize(("name", "found"), FOUND, ids=[name for name, _ in FOUND])
def test_every_plan_can_decide_in_time_and_nothing_about_it_is_doubtful(name, found):
    spec = parsed(found).spec
    assert acceptance.never(spec) == ""
    for rate in RATES_PER_S:
        assert lint(spec, Traffic(rate)) == [], f"{name} at {rate:g} requests per second"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_plan_passes_with_the_replicas_that_an_overlay_gives(overlay):
    if shutil.which("kubectl") is None:
        pytest.skip("NOT TESTED: no kubectl on the PATH, so no overlay was rendered")
    done = subprocess.run(
        ("kubectl", "kustomize", str(CHECKOUT / "k8s" / "overlays" / overlay)), check=True, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    documents = [it for it in yaml.safe_load_all(done.stdout) if it]
    # What a deploy brings: the rollouts in specs/ beside the overlay, and any that it has itself.
    rollouts = [it for name, it in FOUND if name.startswith("specs/")]
    rollouts += [it for it in documents if it["kind"] == KIND]
    scaled = {
        it["spec"]["scaleTargetRef"]["name"]: it["spec"]
        for it in documents if it["kind"] == "HorizontalPodAutoscaler" and it["spec"]["scaleTargetRef"]["kind"] == KIND
    }  # fmt: skip
    for found in rollouts:
        hpa = scaled.get(found["metadata"]["name"], {})
        counts = {found["spec"]["replicas"], hpa.get("minReplicas"), hpa.get("maxReplicas")} - {None}
        for count in counts:
            errors = acceptance.too_slow(parsed(found, count).spec, min(RATES_PER_S))
            assert not errors, f"{overlay}, {count} replicas: {errors}"
