"""What cannot be looked at is a finding, never a traceback without an outcome."""

from __future__ import annotations

import pytest
import yaml

from flightdeck.delivery.manifests import alerts, gate

EMPTY = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replicas": 1}}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with one overlay whose objects a test says; nothing is asked of kubectl or promtool."""
    (tmp_path / "k8s" / "overlays" / "kind").mkdir(parents=True)
    (tmp_path / "k8s" / "overlays" / "kind" / "kustomization.yaml").write_text("")
    monkeypatch.setattr(alerts, "check", lambda root: "")
    monkeypatch.setattr(gate, "BESIDE", ())
    return tmp_path


def judged(root, monkeypatch, *documents):
    monkeypatch.setattr(gate, "_as_deployed", lambda name: gate.manifests.with_environment(documents))
    monkeypatch.setattr(gate.manifests, "kustomize", lambda folder: list(documents))
    return "\n".join(it.what for it in gate.judge(root=root).findings)


def test_an_object_that_no_deploy_could_read_is_named_with_what_it_lacks(checkout, monkeypatch):
    said = judged(checkout, monkeypatch, EMPTY)
    assert "overlay kind does not render: an object lacks what a deploy reads: KeyError('template')" in said
    assert "kind: deployment/a does not fit its schema at spec: " in said
    assert "kind: Deployment/a: has no pod with containers" in said


@pytest.mark.parametrize(
    "spec",
    [{"template": {"spec": {"containers": ["x"]}}}, {"template": {"spec": "x"}}, {"template": ["x"]}],
)
def test_an_object_that_no_rule_can_read_is_refused(checkout, monkeypatch, spec):
    assert "the rules could not be applied to kind: " in judged(checkout, monkeypatch, {**EMPTY, "spec": spec})


def test_a_definition_that_is_none_is_refused(checkout, monkeypatch):
    crd = {"apiVersion": "x/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a"}, "spec": {"template": 1}}
    assert "a CustomResourceDefinition cannot be read: KeyError('versions')" in judged(checkout, monkeypatch, crd)


def test_a_plan_and_a_spec_that_cannot_be_read_are_refused(checkout, monkeypatch):
    (checkout / "specs").mkdir()
    (checkout / "specs" / "a.rollout.yaml").write_text(yaml.safe_dump({"kind": "ModelRollout"}))
    (checkout / "specs" / "b.yaml").write_text("a: [b\n")
    said = judged(checkout, monkeypatch)
    assert "specs/a.rollout.yaml: a ModelRollout without `metadata.name` or `spec`" in said
    assert "specs/b.yaml is no YAML: " in said
