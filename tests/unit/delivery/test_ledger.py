"""The ledger is only ever added to, and shows when something is missing from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flightdeck.cluster.commands import CommandFailed
from flightdeck.contracts.ledger import Verdict
from flightdeck.delivery import ledger
from flightdeck.delivery.ledger import LedgerError
from tests.unit.delivery.records import chain, record

DOCUMENTS = [{"kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}, "data": {"x": "1"}}]


class ConfigMaps:
    """Stands for kubectl: ConfigMaps by name."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.verbs: list[str] = []

    def __call__(self, *args: str, stdin: str = "", timeout_s: float = 0) -> str:
        self.verbs.append(args[0])
        body = json.loads(stdin)
        if args[0] == "create" and body["metadata"]["name"] in self.objects:
            raise CommandFailed("kubectl ended with 1", "Error (AlreadyExists)")
        self.objects[body["metadata"]["name"]] = body
        return ""

    def get(self, *args: str) -> dict[str, Any]:
        return {"items": list(self.objects.values())}

    def find(self, kind: str, name: str, namespace: str | None = None) -> Any:
        return self.objects.get(name)


def test_a_record_comes_back_as_it_was_with_its_manifests():
    kubectl, kept = ConfigMaps(), record(1, manifests=ledger.digest(DOCUMENTS))
    ledger.append(kubectl, "n", kept, DOCUMENTS)  # type: ignore[arg-type]
    assert ledger.read(kubectl, "n") == [kept]  # type: ignore[arg-type]
    assert ledger.documents_of(kubectl, "n", kept) == DOCUMENTS  # type: ignore[arg-type]
    (body,) = kubectl.objects.values()
    assert body["immutable"] is True
    assert kubectl.verbs == ["create"]  # an apply could change one


def test_two_writers_of_one_number_are_a_conflict():
    kubectl = ConfigMaps()
    ledger.append(kubectl, "n", record(1), DOCUMENTS)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="delivery 1 is in the ledger already"):
        ledger.append(kubectl, "n", record(1, Verdict.FAILED), DOCUMENTS)  # type: ignore[arg-type]


def test_manifests_that_are_gone_or_altered_are_refused():
    kubectl, kept = ConfigMaps(), record(1, manifests="another digest")
    with pytest.raises(LedgerError, match="not in n any more"):
        ledger.documents_of(kubectl, "n", kept)  # type: ignore[arg-type]
    ledger.append(kubectl, "n", kept, DOCUMENTS)  # type: ignore[arg-type]
    with pytest.raises(LedgerError, match="not what was recorded"):
        ledger.documents_of(kubectl, "n", kept)  # type: ignore[arg-type]


def test_a_whole_chain_has_no_gap_and_a_cut_or_altered_one_has():
    whole = chain(Verdict.DELIVERED, Verdict.ROLLED_BACK, Verdict.DELIVERED)
    assert ledger.gaps(whole) == []
    assert "delivery 2 is missing before 3" in ledger.gaps([whole[0], whole[2]])[0]
    assert "delivery 1 is missing before 2" in ledger.gaps(whole[1:])[0]
    altered = [whole[0].model_copy(update={"who": "eve"}), *whole[1:]]
    assert ledger.gaps(altered) == ["delivery 2 does not follow what stands as delivery 1"]


def test_a_config_map_that_is_no_record_is_an_error_and_not_left_out():
    kubectl = ConfigMaps()
    kubectl.objects["x"] = {"metadata": {"name": "x"}, "data": {"record.json": "{}"}}
    with pytest.raises(LedgerError, match="ConfigMap x in n is no record"):
        ledger.read(kubectl, "n")  # type: ignore[arg-type]


def test_the_same_documents_are_packed_to_the_same_bytes():
    assert ledger.packed(DOCUMENTS) == ledger.packed(json.loads(json.dumps(DOCUMENTS)))
    assert ledger.unpacked(ledger.packed(DOCUMENTS)) == DOCUMENTS
