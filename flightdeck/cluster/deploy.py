"""Bring an overlay to a cluster: refused before anything is touched, one deploy at a time, Git's fields only."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from flightdeck.cluster import manifests
from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.manifests import Document, name_of
from flightdeck.cluster.names import MANAGER, PLATFORM

CRD = "CustomResourceDefinition"
LEASE = "flightdeck-deploy"
LEASE_S = 120  # a deploy that says nothing for so long is dead
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"

Tell = Callable[[str], None]


class DeployRefused(RuntimeError):
    """The API server would not take the manifests, or another deploy is at work; nothing was changed."""


def deploy(
    kubectl: Kubectl,
    documents: Sequence[Document],
    *,
    tell: Tell = lambda _: None,
    prepare: Callable[[], None] = lambda: None,
    wait_s: float = 600,
    dry_run: bool = False,
) -> list[str]:
    """Check all documents against the API server, then apply them; returns the names of what is other than before.

    Args:
        prepare: called when namespaces are there and all is checked, before anything that runs: makes Secrets.
        wait_s: how long to wait for another deploy to end.
        dry_run: only check, and leave nothing behind.
    Raises:
        DeployRefused: a document is refused (what this call had laid for the check is taken away again), or another
            deploy does not end in time.
        CommandFailed: the API server fails in the middle; applying again goes on.
    """
    first, rest = manifests.split(manifests.jobs_by_content(documents))
    tell(f"check {len(documents)} objects against the API server")
    _check(kubectl, first)
    there = [kubectl.find(document["kind"], document["metadata"]["name"]) for document in first]
    fresh = [document for document, found in zip(first, there, strict=True) if found is None]
    # The rest may need fields that only the new schema has. What stands there comes back should the rest be refused.
    older = [_bare(found) for found in there if found and found["kind"] == CRD]
    newer = [document for document in first if document["kind"] == CRD and document not in fresh]
    schemas = versions(kubectl, newer)
    laid: list[Document] = []
    accepted = False
    try:
        for document in fresh:
            _apply(kubectl, [document])
            laid.append(document)
        _apply(kubectl, newer)
        _wait_established(kubectl, [*fresh, *newer])
        _check(kubectl, rest)
        accepted = True
    finally:
        if dry_run or not accepted:
            _take_away(kubectl, laid)
            _apply(kubectl, older)
    if dry_run:
        return []
    with alone(kubectl, tell, wait_s):
        tell("apply")
        prepare()
        before = schemas | versions(kubectl, rest)
        _apply(kubectl, first)
        _remove_failed_jobs(kubectl, rest)
        _apply(kubectl, rest)
        _remove_older_jobs(kubectl, rest)
        after = versions(kubectl, [*newer, *rest])
    return [name_of(document) for document in laid] + [name for name in after if after[name] != before.get(name)]


def _check(kubectl: Kubectl, documents: Sequence[Document]) -> None:
    """Server-side dry run with strict fields: an unknown or wrong key is an error, not a silence."""
    if not documents:
        return
    try:
        _apply(kubectl, documents, "--dry-run=server")
    except CommandFailed as error:
        raise DeployRefused(f"the API server refuses the manifests; nothing was changed:\n{_reasons(error)}") from error


def _reasons(error: CommandFailed) -> str:
    lines = [line for line in error.stderr.strip().splitlines() if not line.startswith("Warning")]
    return "\n".join(f"  {line}" for line in lines[:20]) or f"  {error}"


def _apply(kubectl: Kubectl, documents: Sequence[Document], *more: str) -> str:
    if not documents:
        return ""
    return kubectl(
        "apply", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}", "--validate=strict", *more,
        "-f", "-", stdin=manifests.as_yaml(documents), timeout_s=300,
    )  # fmt: skip


def versions(kubectl: Kubectl, documents: Sequence[Document]) -> dict[str, str]:
    """Object -> what it is, without its status, for those that are there."""
    if not documents:
        return {}
    said = kubectl("get", "--ignore-not-found", "-o", "json", "-f", "-", stdin=manifests.as_yaml(documents))
    found = json.loads(said or "{}")
    items = found.get("items", [found] if found else [])
    return {name_of(item): f"{item['metadata']['uid']} {_content(item)}" for item in items}


def _content(item: dict[str, Any]) -> str:
    kept = {key: value for key, value in item.items() if key not in ("status", "metadata")}
    return json.dumps(kept, sort_keys=True)


def _take_away(kubectl: Kubectl, documents: Sequence[Document]) -> None:
    for document in reversed(documents):
        with contextlib.suppress(CommandFailed):
            kubectl("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=manifests.as_yaml([document]))


def _bare(found: Document) -> Document:
    """As one would write it: without what the API server adds."""
    meta = {key: found["metadata"][key] for key in ("name", "labels") if key in found["metadata"]}
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "metadata": meta, "spec": found["spec"]}


def _wait_established(kubectl: Kubectl, documents: Sequence[Document]) -> None:
    kinds = [document["metadata"]["name"] for document in documents if document["kind"] == CRD]
    for name in kinds:
        kubectl("wait", f"crd/{name}", "--for=condition=Established", "--timeout=60s")


def _remove_failed_jobs(kubectl: Kubectl, documents: Sequence[Document]) -> None:
    """A Job that gave up is made anew: it has the same name as long as it is to do the same."""
    for document in documents:
        if document["kind"] == "Job":
            meta = document["metadata"]
            there = kubectl.find("job", meta["name"], meta["namespace"]) or {}
            conditions = there.get("status", {}).get("conditions") or ()
            if any(it["type"] == "Failed" and it["status"] == "True" for it in conditions):
                kubectl("delete", "job", meta["name"], "-n", meta["namespace"], "--ignore-not-found", "--wait=true")


def _remove_older_jobs(kubectl: Kubectl, documents: Sequence[Document]) -> None:
    for document in documents:
        if document["kind"] == "Job":
            meta = document["metadata"]
            labels = meta["labels"]
            older = f"flightdeck.dev/job={labels['flightdeck.dev/job']},{manifests.HASH}!={labels[manifests.HASH]}"
            kubectl("delete", "jobs", "-n", meta["namespace"], "-l", older, "--ignore-not-found", "--wait=false")


@contextlib.contextmanager
def alone(kubectl: Kubectl, tell: Tell, wait_s: float, *, lease: str = LEASE) -> Iterator[None]:
    """Hold the Lease; a second deploy waits, and takes over one whose holder is dead.

    Raises:
        DeployRefused: the other one did not end in time.
    """
    who = f"{socket.gethostname()}-{os.getpid()}"
    deadline = time.monotonic() + wait_s
    while (other := _take(kubectl, who, lease)) is not None:
        if time.monotonic() > deadline:
            raise DeployRefused(
                f"another deploy ({other}) is at work and did not end within {wait_s:.0f} s; nothing was changed. "
                f"When it is dead: kubectl -n {PLATFORM} delete lease {lease}"
            )
        tell(f"wait for the deploy of {other}")
        time.sleep(1)
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(kubectl, who, lease, ended), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        ended.set()
        renewing.join(30)
        with contextlib.suppress(CommandFailed):
            found = kubectl.find("lease", lease, PLATFORM)
            if found and found["spec"].get("holderIdentity") == who:
                kubectl("delete", "lease", lease, "-n", PLATFORM, "--ignore-not-found")


def _renew(kubectl: Kubectl, who: str, lease: str, ended: threading.Event) -> None:
    """Say now and then that its holder lives; never over another's head."""
    while not ended.wait(LEASE_S / 4):
        now = dt.datetime.now(dt.UTC).strftime(TIME)
        patch = [
            {"op": "test", "path": "/spec/holderIdentity", "value": who},
            {"op": "replace", "path": "/spec/renewTime", "value": now},
        ]
        with contextlib.suppress(CommandFailed):  # three more tries before anybody takes over
            kubectl("patch", "lease", lease, "-n", PLATFORM, "--type=json", "-p", json.dumps(patch))


def _take(kubectl: Kubectl, who: str, name: str) -> str | None:
    """None when the Lease is ours now, else who holds it."""
    now = dt.datetime.now(dt.UTC)
    lease: dict[str, Any] = {
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name, "namespace": PLATFORM},
        "spec": {"holderIdentity": who, "leaseDurationSeconds": LEASE_S, "renewTime": now.strftime(TIME)},
    }  # fmt: skip
    found = kubectl.find("lease", name, PLATFORM)
    try:
        if found is None:
            kubectl("create", "-f", "-", stdin=json.dumps(lease))
            return None
        if is_alive(found["spec"], now):
            return str(found["spec"].get("holderIdentity"))
        lease["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"]  # refused when another was quicker
        kubectl("replace", "-f", "-", stdin=json.dumps(lease))
    except CommandFailed as error:
        if "AlreadyExists" in error.stderr or "Conflict" in error.stderr or "has been modified" in error.stderr:
            return "another"
        raise
    return None


def is_alive(lease: dict[str, Any], now: dt.datetime) -> bool:
    """Whether the holder of a Lease may still be at work."""
    try:
        renewed = dt.datetime.strptime(lease["renewTime"], TIME).replace(tzinfo=dt.UTC)
    except (KeyError, ValueError):
        return False
    return now < renewed + dt.timedelta(seconds=float(lease.get("leaseDurationSeconds") or LEASE_S))
