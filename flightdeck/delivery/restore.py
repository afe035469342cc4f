"""Back to what a record deployed, and on to what the environment before has: both without a build and without Git."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from flightdeck.cluster import deploy
from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.manifests import Document
from flightdeck.cluster.names import ENVIRONMENTS, PLATFORM, SERVING
from flightdeck.cluster.readiness import wait_ready
from flightdeck.cluster.up import READY_S
from flightdeck.contracts import environments
from flightdeck.contracts.ledger import DeliveryRecord
from flightdeck.delivery import decisions, ledger
from flightdeck.delivery.users import FellShort


def restore(kubectl: Kubectl, target: DeliveryRecord, *, applied: Sequence[Document], say: deploy.Tell) -> None:
    """Deploy what a record deployed, take away what only the failed one brought, wait until all is ready.

    Raises:
        LedgerError: its manifests are not there any more.
        DeployRefused, CommandFailed, NotReady: the cluster does not take it.
    """
    documents = ledger.documents_of(kubectl, PLATFORM, target)
    deploy.deploy(kubectl, documents, tell=say)
    take_away(kubectl, applied, documents)
    wait_ready(kubectl, (PLATFORM, SERVING), timeout_s=READY_S)


def take_away(kubectl: Kubectl, applied: Sequence[Document], back_to: Sequence[Document]) -> None:
    """What only `applied` has of the two, but for what holds data or serves users."""
    for it in decisions.surplus(applied, back_to):
        with contextlib.suppress(CommandFailed):  # a leftover harms less than half a roll-back
            kubectl("delete", it["kind"], it["metadata"]["name"], *_in(it), "--ignore-not-found", "--wait=false")


def _in(document: Document) -> Iterator[str]:
    if space := document["metadata"].get("namespace"):
        yield from ("-n", space)


def promoted(source: str, context: str, commit: str) -> dict[str, str]:
    """The digests that the environment before has, of this very commit.

    Raises:
        FellShort: it has none.
    """
    of = environments.named(ENVIRONMENTS, source)
    try:
        records = ledger.read(Kubectl(of.context or context), of.platform)
        return dict(decisions.promotable(records, commit, source).images)
    except ValueError as error:
        raise FellShort(str(error)) from error
