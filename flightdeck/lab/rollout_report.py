"""The evidence page of one rollout of the lab, from what the controller kept in files."""

from __future__ import annotations

from pathlib import Path

from flightdeck.contracts.layout import StateLayout
from flightdeck.lab.rollout.store import Store
from flightdeck.pages.page import write_page
from flightdeck.pages.rollout import NothingToShow, evidence_page

__all__ = ["NothingToShow", "write_rollout_report"]


def write_rollout_report(layout: StateLayout, name: str, *, candidate: str | None = None) -> Path:
    """Write reports/rollout-<name>.html about the newest rollout, or the newest of the release `candidate`.

    Raises:
        NothingToShow: there was none; the message says which there were.
    """
    store = Store(layout.rollouts)
    status, history = store.read_status(name), store.history(name)
    if status is None or not history:
        raise NothingToShow(f"{name}: no rollout has begun yet; see `flightdeck rollout status {name}`")
    releases = [*status.releases, *(item.release for item in store.applied(name))]
    content = evidence_page(name, history, store.looks(name), releases, candidate=candidate)
    return write_page(layout.reports / f"rollout-{name}.html", content)
