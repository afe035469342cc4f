"""Adapter: the ledger of an environment, in its cluster: one immutable ConfigMap per delivery, created, never applied.

A ConfigMap needs nothing but kubectl, the API server itself refuses to change an immutable one, and the number in its
name makes two writers of the same place a conflict. The documents that were applied are kept beside the record, so that
an undo needs neither Git nor the overlay of that time.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import pydantic

from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.manifests import Document
from flightdeck.contracts.ledger import DeliveryRecord

LABEL = "flightdeck.dev/ledger"
PREFIX = "delivery-"
RECORD, DOCUMENTS = "record.json", "manifests.json.gz"
MOST_BYTES = 900_000  # etcd takes objects of 1.5 MB, the API server ConfigMaps of 1 MiB


class LedgerError(RuntimeError):
    """The ledger cannot be read or written as it must be."""


def packed(documents: Sequence[Document]) -> bytes:
    """The documents, the same bytes for the same documents."""
    text = json.dumps(list(documents), sort_keys=True, separators=(",", ":"))
    return gzip.compress(text.encode(), mtime=0)


def unpacked(content: bytes) -> list[Document]:
    """What `packed` was given."""
    found: list[Document] = json.loads(gzip.decompress(content))
    return found


def digest(documents: Sequence[Document]) -> str:
    """Of the documents, whatever gzip makes of them."""
    text = json.dumps(list(documents), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def name_of(number: int) -> str:
    """Of the ConfigMap."""
    return f"{PREFIX}{number:06d}"


def read(kubectl: Kubectl, namespace: str) -> list[DeliveryRecord]:
    """All records, oldest first; none where the namespace is not there.

    Raises:
        LedgerError: a record is none of ours.
        CommandFailed: the API server does not answer or refuses.
    """
    found = []
    for item in kubectl.get("configmaps", "-n", namespace, "-l", f"{LABEL}=delivery")["items"]:
        try:
            found.append(DeliveryRecord.model_validate_json(item["data"][RECORD]))
        except (KeyError, pydantic.ValidationError) as error:
            raise LedgerError(
                f"ConfigMap {item['metadata']['name']} in {namespace} is no record of a delivery: {error}"
            ) from error
    return sorted(found, key=lambda it: it.number)


def documents_of(kubectl: Kubectl, namespace: str, record: DeliveryRecord) -> list[Document]:
    """What that delivery applied, checked against its digest.

    Raises:
        LedgerError: it is not there any more, or not what was kept.
    """
    found = kubectl.find("configmap", name_of(record.number), namespace)
    content = (found or {}).get("binaryData", {}).get(DOCUMENTS)
    if not content:
        raise LedgerError(f"the manifests of delivery {record.number} are not in {namespace} any more")
    documents = unpacked(base64.b64decode(content))
    if digest(documents) != record.manifests:
        raise LedgerError(f"the manifests of delivery {record.number} in {namespace} are not what was recorded")
    return documents


def append(kubectl: Kubectl, namespace: str, record: DeliveryRecord, documents: Sequence[Document]) -> None:
    """Keep it for good.

    Raises:
        LedgerError: there is one of this number, or it is too large.
        CommandFailed: the API server refuses.
    """
    content = base64.b64encode(packed(documents)).decode()
    if len(content) + len(record.text) > MOST_BYTES:
        raise LedgerError(f"the manifests are {len(content):,} bytes packed, more than a ConfigMap takes")
    body: dict[str, Any] = {
        "apiVersion": "v1", "kind": "ConfigMap", "immutable": True,
        "metadata": {
            "name": name_of(record.number), "namespace": namespace,
            "labels": {LABEL: "delivery", "app.kubernetes.io/part-of": "flightdeck"},
        },
        "data": {RECORD: record.text}, "binaryData": {DOCUMENTS: content},
    }  # fmt: skip
    try:
        kubectl("create", "-f", "-", stdin=json.dumps(body))
    except CommandFailed as error:
        if "AlreadyExists" in error.stderr:
            raise LedgerError(f"delivery {record.number} is in the ledger already: another one was recorded") from error
        raise


def gaps(records: Sequence[DeliveryRecord]) -> list[str]:
    """What is wrong with the chain, in sentences; empty when no record is missing and none was exchanged. Pure."""
    found, previous = list[str](), ""
    for expected, record in enumerate(records, start=1):
        if record.number != expected:
            missing = f"{expected}" if record.number == expected + 1 else f"{expected} to {record.number - 1}"
            return [*found, f"delivery {missing} is missing before {record.number}: the ledger was cut"]
        if record.previous != previous:
            found.append(f"delivery {record.number} does not follow what stands as delivery {record.number - 1}")
        previous = record.sha256
    return found


UNDER_WAY = "delivery-under-way"  # ConfigMap: what a delivery that was killed leaves behind for the next one


def note(kubectl: Kubectl, namespace: str, content: dict[str, str]) -> None:
    """What is under way, over what was noted before."""
    meta = {"name": UNDER_WAY, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "flightdeck"}}
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": content}
    kubectl(
        "apply", "--server-side", "--force-conflicts", "--field-manager=flightdeck-delivery", "-f", "-",
        stdin=json.dumps(body),
    )  # fmt: skip


def noted(kubectl: Kubectl, namespace: str) -> dict[str, str]:
    """What a delivery that did not end had noted; empty when the last one ended."""
    return dict((kubectl.find("configmap", UNDER_WAY, namespace) or {}).get("data") or {})


def clear(kubectl: Kubectl, namespace: str) -> None:
    """It ended."""
    kubectl("delete", "configmap", UNDER_WAY, "-n", namespace, "--ignore-not-found")
