"""A person's word on the object: the annotation `flightdeck.dev/order`, which kubectl can set. Pure.

    kubectl annotate modelrollout late flightdeck.dev/order="abort numbers look odd"

`by=ann` as the second word says who, for the history. Exactly once: the text is remembered in the status with the
decision that obeys it, then the annotation is taken away, and only if it still has that text. A process that dies in
between finds the remembered text and just takes it away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from services.rollout_operator.state import Order, OrderKind

ANNOTATION = "flightdeck.dev/order"
BY = "by="


def text_of(rollout: Mapping[str, Any]) -> str:
    """As it stands there; empty without one."""
    return str((rollout["metadata"].get("annotations") or {}).get(ANNOTATION, ""))


def order_of(rollout: Mapping[str, Any]) -> Order | None:
    """The first word is what to do, the rest is why; `by=` before it says who.

    Raises:
        ValueError: no such word.
    """
    text = text_of(rollout)
    if not text.strip():
        return None
    kind, _, note = text.strip().partition(" ")
    known = [str(it) for it in OrderKind]
    if kind not in known:
        raise ValueError(f"annotation {ANNOTATION}: {kind!r} is no order; there are: {', '.join(known)}")
    return Order(OrderKind(kind), *said_by(note))


def said_by(words: str) -> tuple[str, str]:
    """Who, and what is left: `by=ann too slow` is (`ann`, `too slow`). Without `by=` it was somebody with kubectl."""
    who = "kubectl"
    if words.startswith(BY):
        who, _, words = words.removeprefix(BY).partition(" ")
    return who, words.strip()


def text(order: Order) -> str:
    """The annotation that `order_of` reads."""
    return " ".join(part for part in (str(order.kind), f"{BY}{order.who}", order.note) if part)


def number_of(text: str) -> int:
    """Stands for the text where the tick counts orders; 0 for none."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") if text else 0


def removal(text: str) -> list[dict[str, Any]]:
    """A JSON patch that takes the annotation away if it still has this text."""
    path = f"/metadata/annotations/{ANNOTATION.replace('~', '~0').replace('/', '~1')}"
    return [{"op": "test", "path": path, "value": text}, {"op": "remove", "path": path}]
