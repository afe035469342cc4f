"""Kubernetes' schema and those of CRDs find a field that is misspelt or of another type."""

from __future__ import annotations

import pytest

from flightdeck.delivery.manifests import schemas

SERVICE = {
    "apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]},
}  # fmt: skip
CRD = {
    "kind": "CustomResourceDefinition",
    "spec": {
        "group": "example.org",
        "names": {"kind": "Thing"},
        "versions": [{"name": "v1", "schema": {"openAPIV3Schema": {
            "type": "object",
            "properties": {"spec": {"type": "object", "properties": {
                "share": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                "size": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "note": {"type": "string", "nullable": True},
                "map": {"type": "object", "additionalProperties": {"type": "string"}},
            }}},
        }}}],
    },
}  # fmt: skip
CRDS = schemas.of_crds([CRD])


def thing(**spec):
    return {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": spec}


def test_what_fits_fits():
    assert schemas.misfit(SERVICE, {}) is None
    assert schemas.misfit(thing(share=0.1, size="1", free={"a": 1}, note=None, map={"x": "y"}), CRDS) is None


@pytest.mark.parametrize(
    ("change", "path"),
    [({"port": "many"}, "spec.ports.0.port"), ({"port": 80, "protocoll": "TCP"}, "spec.ports.0")],
)
def test_kubernetes_own_kinds_are_held_to_names_and_types(change, path):
    said = schemas.misfit({**SERVICE, "spec": {"ports": [change]}}, {})
    assert said is not None and said.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("spec", "words"),
    [({"share": 0}, "spec.share"), ({"shares": 1}, "'shares' was unexpected"), ({"map": {"x": 1}}, "spec.map.x"),
     ({"size": 1.5}, "spec.size")],
)  # fmt: skip
def test_our_own_kinds_are_held_to_their_definition(spec, words):
    assert words in str(schemas.misfit(thing(**spec), CRDS))


def test_a_kind_that_nobody_knows_is_told_not_passed():
    wrong, blind = schemas.checked([thing()], {})
    assert (wrong, blind) == ([], ["example.org/v1 Thing"])
    assert "GATEWAY_CHART" in schemas.unknown_kinds(blind)


def test_definitions_are_found_in_a_chart_and_its_templates_left_out(tmp_path):
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds" / "a.yaml").write_text("kind: CustomResourceDefinition\nspec: {group: a}\n---\nkind: Service\n")
    (tmp_path / "t.yaml").write_text("{{- if .Values.x }}\nkind: CustomResourceDefinition\n{{- end }}\n")
    assert schemas.in_folder(tmp_path) == [{"kind": "CustomResourceDefinition", "spec": {"group": "a"}}]
