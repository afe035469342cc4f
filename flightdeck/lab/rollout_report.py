"""The evidence page of one rollout: one self-contained HTML file from what the controller kept."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.lab import rollout_pictures
from flightdeck.lab.report import page, write_page
from flightdeck.lab.rollout.store import Status, Store
from services.rollout_operator.plan import Transition


class NothingToShow(LookupError):
    """No rollout of this name has begun yet."""


def write_rollout_report(layout: StateLayout, name: str, *, candidate: str | None = None) -> Path:
    """Write reports/rollout-<name>.html about the newest rollout, or the newest of the release `candidate`.

    Raises:
        NothingToShow: there was none; the message says which there were.
    """
    store = Store(layout.rollouts)
    status, history = store.read_status(name), store.history(name)
    if status is None or not history:
        raise NothingToShow(f"{name}: no rollout has begun yet; see `flightdeck rollout status {name}`")
    chosen = rollout_of(history, candidate)
    if not chosen:
        known = ", ".join(dict.fromkeys(item.candidate for item in history if item.candidate))
        raise NothingToShow(f"{name}: no rollout of the release {candidate}; there were: {known}")
    return write_page(layout.reports / f"rollout-{name}.html", render(store, status, chosen))


def rollout_of(history: list[Transition], candidate: str | None) -> list[Transition]:
    """The entries of the newest rollout of this candidate (of any, when None), from its beginning to its end."""
    begins = [
        index
        for index, item in enumerate(history)
        if item.target == "pending" and item.source in (None, "done", "aborted")
    ]
    for first, behind in reversed(list(zip(begins, [*begins[1:], len(history)], strict=True))):
        if candidate in (None, history[first].candidate):
            return history[first:behind]
    return []


def known(store: Store, status: Status) -> list[Release]:
    """Every release that was a champion or was asked for."""
    return [*status.releases, *(item.release for item in store.applied(status.name))]


def render(store: Store, status: Status, history: list[Transition]) -> str:
    """The page; nothing in it points outside of it."""
    first, last = history[0], history[-1]
    looks = [look for look in store.looks(status.name) if first.at_s - 0.01 <= look.started_s <= last.at_s]
    return page(
        "rollout.html.j2",
        name=status.name,
        status=status,
        history=[(dt.datetime.fromtimestamp(item.at_s, dt.UTC), item) for item in history],
        ended=last,
        seconds=last.at_s - first.at_s,
        judgement=looks[-1].judgement if looks else None,
        looks=len(looks),
        pictures=rollout_pictures.evidence(looks, "e"),
        releases={release.id: release for release in known(store, status)},
    )
