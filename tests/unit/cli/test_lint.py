"""`flightdeck rollout lint`, and `apply` that refuses what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flightdeck.cli import rollout as cli
from flightdeck.contracts.layout import STATE_ENV

SHIPPED = Path(__file__).resolve().parents[3] / "specs" / "late.rollout.yaml"


def run(*args: str) -> Result:
    return CliRunner().invoke(cli.app, list(args))


@pytest.fixture
def hasty(tmp_path: Path) -> Path:
    """Twenty requests before the deadline."""
    path = tmp_path / "hasty.yaml"
    path.write_text(
        """
apiVersion: flightdeck.dev/v1alpha1
kind: ModelRollout
metadata: {name: late}
spec:
  release: {image: code, model: {name: late, version: "1", sha256: "%s"}, featureService: late_v1}
  replicas: 3
  plan: [{canary: {weight: 10, minRequests: 20, deadline: 2s}}]
  judge: {margins: {errorRate: 0.01}}
  onDeadline: abort
  onNoData: hold
  onNewRelease: queueNewest
"""
        % ("a" * 64)
    )
    return path


def test_a_plan_that_can_decide_is_forecast_and_accepted_without_a_release():
    said = run("lint", str(SHIPPED), "--rate", "100")
    assert said.exit_code == 0, said.output
    assert "nothing to find" in said.stdout
    assert "pass every step before its deadline" in said.stdout


def test_a_powerless_plan_ends_non_zero_with_one_that_passes(hasty: Path, tmp_path: Path):
    said = run("lint", str(hasty))
    assert said.exit_code == 1
    assert "error spec.plan[0].canary.deadline" in said.stdout
    better = tmp_path / "better.yaml"
    better.write_text(said.stdout.split("This passes (release left out):\n")[1])
    assert run("lint", str(better)).exit_code == 0


def test_ten_per_cent_of_three_replicas_is_refused_without_a_weighting_proxy():
    said = run("lint", str(SHIPPED), "--no-weighting-proxy", "--json")
    assert said.exit_code == 1
    content = json.loads(said.stdout)
    assert "spec.plan[1].canary.weight" in [it["path"] for it in content["findings"]]
    assert content["proposal"]["plan"][0]["canary"]["weight"] == 25


def test_a_file_that_breaks_the_schema_is_told_as_elsewhere(tmp_path: Path):
    (tmp_path / "broken.yaml").write_text("spec: {replicas: 3}")
    said = run("lint", str(tmp_path / "broken.yaml"))
    assert said.exit_code == 1
    assert "problem(s)" in said.output


def test_apply_refuses_a_powerless_plan_unless_forced(hasty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(STATE_ENV, str(tmp_path / "state"))
    refused = run("apply", str(hasty))
    assert refused.exit_code == 1
    assert "the plan is refused at 100 requests per second" in refused.output
    assert not (tmp_path / "state" / "rollouts" / "late").exists()
    assert run("apply", str(hasty), "--rate", "10000").exit_code == 0
    assert run("apply", str(hasty), "--force").exit_code == 0
