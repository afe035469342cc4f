"""What goes to the API server, and in which order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flightdeck.cluster.manifests import (
    HASH,
    ManifestError,
    _replacement,
    as_yaml,
    images_of,
    jobs_by_content,
    name_of,
    split,
    with_environment,
)
from flightdeck.cluster.manifests import render as rendered
from flightdeck.cluster.names import K8S


def job(image: str = "a@sha256:1") -> dict[str, Any]:
    pod = {"spec": {"containers": [{"name": "one", "image": image}], "initContainers": [{"name": "b", "image": "b:1"}]}}
    return {"kind": "Job", "metadata": {"name": "migrate", "namespace": "n"}, "spec": {"template": pod}}


def test_a_job_is_named_by_what_it_does_so_that_it_runs_once():
    (one,), (same,), (other,) = (jobs_by_content([it]) for it in (job(), job(), job("a@sha256:2")))
    assert one["metadata"]["name"] == same["metadata"]["name"] != other["metadata"]["name"]
    assert one["metadata"]["name"] == f"migrate-{one['metadata']['labels'][HASH]}"
    assert one["metadata"]["labels"]["flightdeck.dev/job"] == "migrate"


def test_the_given_documents_are_not_changed():
    before = job()
    jobs_by_content([before])
    assert before == job()


def test_images_of_every_container_are_found_wherever_they_are():
    cron = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": job("c:2")["spec"]}}}
    assert sorted(images_of([job(), cron])) == ["a@sha256:1", "b:1", "b:1", "c:2"]


def test_what_the_rest_is_checked_against_comes_first():
    documents = [job(), {"kind": "Namespace", "metadata": {"name": "n"}}, {"kind": "CustomResourceDefinition"}]
    first, rest = split(documents)
    assert [it["kind"] for it in first] == ["Namespace", "CustomResourceDefinition"]
    assert rest == [job()]
    assert name_of(job()) == "job/n/migrate"


def test_an_image_that_is_not_named_by_digest_is_refused():
    with pytest.raises(ManifestError, match="only digests"):
        _replacement("flightdeck/predictor", "localhost:5001/flightdeck/predictor:dev")
    assert _replacement("flightdeck/predictor", "localhost:5001/x/predictor@sha256:ab") == {
        "name": "flightdeck/predictor", "newName": "localhost:5001/x/predictor", "digest": "sha256:ab",
    }  # fmt: skip


def test_an_overlay_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path):
    (tmp_path / "kind").mkdir()
    (tmp_path / "kind" / "kustomization.yaml").write_text("resources: []\n")
    with pytest.raises(ManifestError, match="there are: kind"):
        rendered(tmp_path / "king", {})


def test_an_image_of_ours_without_digest_is_refused():
    some = {"flightdeck/mlflow": "localhost:5001/flightdeck/mlflow@sha256:" + "a" * 64}
    with pytest.raises(ManifestError, match="no digest for flightdeck/operator, flightdeck/pipelines, flightdeck/pred"):
        rendered(K8S / "overlays" / "kind", some)


def test_pods_that_read_a_config_map_are_other_pods_when_it_changes():
    def workload(kind: str, name: str = "flightdeck-env") -> dict[str, Any]:
        pod = {"spec": {"containers": [{"name": "c", "envFrom": [{"configMapRef": {"name": name}}]}]}}
        spec = {"jobTemplate": {"spec": {"template": pod}}} if kind == "CronJob" else {"template": pod}
        return {"kind": kind, "metadata": {"name": kind.lower(), "namespace": "n"}, "spec": spec}

    def annotated(address: str) -> list[dict[str, Any]]:
        env = {"kind": "ConfigMap", "metadata": {"name": "flightdeck-env", "namespace": "n"}, "data": {"A": address}}
        given = [env, workload("Deployment"), workload("Job"), workload("CronJob"), workload("StatefulSet", "other")]
        _, *rest = with_environment(given)
        assert "annotations" not in str(given)
        return [
            (it["spec"].get("jobTemplate") or it)["spec"]["template"].get("metadata", {}).get("annotations", {})
            for it in rest
        ]

    one, same, other = annotated("a"), annotated("a"), annotated("b")
    assert one == same
    assert one[3] == other[3] == {}
    assert [before != after for before, after in zip(one, other, strict=True)] == [True, True, True, False]


def test_a_digest_that_looks_like_a_number_goes_out_as_text():
    documents = [{"kind": "A", "digest": "96e54321"}, {"kind": "B", "digest": "12345678", "count": 3}]
    text = as_yaml(documents)
    assert list(yaml.safe_load_all(text)) == documents
    assert '"96e54321"' in text and '"12345678"' in text
