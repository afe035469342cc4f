"""Whether an object fits its schema: Kubernetes' own (no field beside it), and those of the CRDs at hand."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from flightdeck.cluster.manifests import Document, name_of

KUBERNETES = "1.36"
Schemas = dict[tuple[str, str], dict[str, Any]]  # (apiVersion, kind) -> strict schema


class NoSchema(LookupError):
    """Nobody here knows the kind."""


def of_crds(documents: Iterable[Document]) -> Schemas:
    """The schemas that CustomResourceDefinitions carry, made strict: a misspelt field is an error."""
    found: Schemas = {}
    for it in documents:
        if it.get("kind") != "CustomResourceDefinition":
            continue
        spec = it["spec"]
        for version in spec["versions"]:
            schema = _strict(version["schema"]["openAPIV3Schema"])
            schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def in_folder(folder: Path) -> list[Document]:
    """Every CustomResourceDefinition in the YAML files of a folder; templates of a chart are no YAML and left out."""
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        text = path.read_text()
        if "kind: CustomResourceDefinition" not in text or "{{" in text.split("kind: CustomResourceDefinition")[0]:
            continue
        found += [it for it in yaml.safe_load_all(text) if it and it.get("kind") == "CustomResourceDefinition"]
    return found


def misfit(document: Document, crds: Schemas) -> str | None:
    """What does not fit, with its path; None when all does.

    Raises:
        NoSchema: neither Kubernetes nor a CRD at hand has the kind.
    """
    schema = crds.get((document["apiVersion"], document["kind"]))
    if schema is None:
        return _of_kubernetes(document)
    # OpenAPI 3.0 is draft 4 in this: `exclusiveMinimum` is a word beside `minimum`.
    error = jsonschema.exceptions.best_match(jsonschema.Draft4Validator(schema).iter_errors(document))
    return None if error is None else _words(error)


def _of_kubernetes(document: Document) -> str | None:
    import kubernetes_validate
    from kubernetes_validate.utils import SchemaNotFoundError, ValidationError

    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except SchemaNotFoundError as error:
        raise NoSchema(f"{document['apiVersion']} {document['kind']}") from error
    except ValidationError as error:
        return _words(error)
    return None


def _words(error: jsonschema.ValidationError) -> str:
    return f"{'.'.join(str(it) for it in error.absolute_path) or 'top'}: {error.message[:300]}"


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A structural schema as JSON Schema: nothing beside the named fields, `nullable` and int-or-string understood."""
    made = copy.deepcopy(schema)

    def walk(node: Any) -> None:
        if not isinstance(node, dict):
            return
        if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
            node.setdefault("additionalProperties", False)
        if node.pop("x-kubernetes-int-or-string", False):
            node.pop("type", None)
            node.setdefault("anyOf", [{"type": "integer"}, {"type": "string"}])
        if node.get("nullable") and isinstance(node.get("type"), str):
            node["type"] = [node["type"], "null"]
        for part in (*node.get("properties", {}).values(), node.get("items"), node.get("additionalProperties")):
            walk(part)

    walk(made)
    return made


def unknown_kinds(kinds: Iterable[str]) -> str:
    """The sentence about what was not checked."""
    return (
        f"no schema here for {', '.join(sorted(set(kinds)))}: name a folder with their CRDs in GATEWAY_CHART; the API "
        "server's own check runs in `make e2e`"
    )


def checked(documents: Iterable[Document], crds: Schemas) -> tuple[list[tuple[str, str]], list[str]]:
    """([(object, what does not fit)], kinds without a schema)."""
    wrong, blind = [], []
    for it in documents:
        try:
            said = misfit(it, crds)
        except NoSchema as error:
            blind.append(str(error))
            continue
        if said:
            wrong.append((name_of(it), said))
    return wrong, sorted(set(blind))
