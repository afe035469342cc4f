"""Where plans are looked for, and what is said of them."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from flightdeck.delivery.manifests import plans

SHIPPED = yaml.safe_load((Path(__file__).parents[4] / "specs" / "late.rollout.yaml").read_text())


def hasty():
    """Three minutes for what takes longer."""
    found = copy.deepcopy(SHIPPED)
    found["spec"]["plan"][1]["canary"]["deadline"] = "20s"
    return found


def test_plans_are_found_in_files_and_pages_but_not_in_tests_or_hidden_folders(tmp_path):
    text = yaml.safe_dump(SHIPPED)
    for name in ("specs/a.rollout.yaml", "tests/b.yaml", ".venv/c.yaml", "k8s/broken.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text if "broken" not in name else "kind: ModelRollout\n{{ x")
    (tmp_path / "page.md").write_text(f"# x\n\n```yaml\n{text}```\n\n```sh\nkind: ModelRollout\n```\n")
    assert [name for name, _ in plans.in_checkout(tmp_path)] == ["page.md", "specs/a.rollout.yaml"]


def test_a_plan_without_hope_says_where_and_what_to_write():
    (finding,) = plans.hopeless("specs/late.rollout.yaml", hasty(), (50.0,))
    assert "spec.plan[1].canary.deadline with 3 replicas at 50 requests per second" in finding.what
    assert finding.do.startswith("write ") and "rollout lint" in finding.do
    assert plans.hopeless("x", SHIPPED, (50.0,)) == []


def test_a_plan_that_the_schema_refuses_is_a_finding_too():
    broken = copy.deepcopy(SHIPPED)
    broken["spec"]["plans"] = broken["spec"].pop("plan")
    (finding,) = plans.hopeless("x.yaml", broken, (50.0,))
    assert finding.what.startswith("x.yaml: ") and "docs/rollout.md" in finding.do


@pytest.mark.parametrize(
    "change",
    [{"spec": None}, {"spec": ["plan"]}, {"metadata": None}, {"metadata": {"labels": {}}}, {"metadata": "late"}],
)
def test_a_plan_without_a_name_or_a_spec_is_a_finding_too(change):
    broken = {**SHIPPED, **change}
    assert plans.replica_counts(broken, [{"kind": "HorizontalPodAutoscaler"}]) == []
    (finding,) = plans.hopeless("x.yaml", broken, (50.0,), [2])
    assert (
        finding.what == "x.yaml: a ModelRollout without `metadata.name` or `spec`" and "docs/rollout.md" in finding.do
    )


@pytest.mark.parametrize("text", ("a: [b\n", "kind: ModelRollout\n{{ x", "a: 2026-13-45\n"))
def test_what_is_no_yaml_in_specs_or_k8s_is_refused(tmp_path, text):
    for name in ("specs/a.yaml", "k8s/base/b.yml", "docs/c.yaml", "k8s/d.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "specs" / "good.yaml").write_text("a: 1\n---\nb: 2\n")
    found = plans.unreadable(tmp_path)
    assert [it.what.split(" is no YAML: ")[0] for it in found] == ["k8s/base/b.yml", "specs/a.yaml"]
    assert list(plans.in_checkout(tmp_path)) == []


def test_replicas_are_its_own_and_the_ends_of_its_autoscaler():
    def scaler(kind, name, low, high):
        target = {"kind": kind, "name": name}
        return {"kind": "HorizontalPodAutoscaler",
                "spec": {"scaleTargetRef": target, "minReplicas": low, "maxReplicas": high}}  # fmt: skip

    overlay = [
        scaler("ModelRollout", "late", 2, 9),
        scaler("ModelRollout", "x", 7, 8),
        scaler("Deployment", "late", 5, 6),
    ]
    assert plans.replica_counts(SHIPPED, overlay) == [2, 3, 9]


def test_the_sentence_names_share_replicas_rate_and_time():
    said = plans.ahead("late", plans.read(SHIPPED).spec, 20)
    assert said.startswith("late: 10 % of 3 replicas at 20 requests per second decides in about ")
    assert ", the whole plan in about " in said


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "in about 1 s"), (89, "in about 89 s"), (540, "in about 9 minutes"), (7300, "in about 2 hours"),
     (float("inf"), "never")],
)  # fmt: skip
def test_times_are_as_a_person_says_them(seconds, words):
    assert plans.about(seconds) == words
