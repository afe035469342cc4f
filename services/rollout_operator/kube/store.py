"""The tick's store on Kubernetes: the ModelRollout itself, and a key in the streams' Valkey for the evidence.

The status is written whole and only over the version that was read (resourceVersion): of two operators, or of a
decision on a spec that changed meanwhile, one fails with Conflict and decides anew. So nothing needs a lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import redis

from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import InvalidRollout, ModelRollout, parse_rollout
from services.rollout_operator.kube import orders, status, warnings
from services.rollout_operator.kube.api import Api, Conflict, Document, Refused
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.remembered import KeptEvidence, Look, Status
from services.rollout_operator.state import Order, Transition

logger = logging.getLogger("flightdeck.rollout")
FIGURES_S = 5.0  # between two writes for nothing but new figures of the judge
KEPT_S = 30 * 86_400  # evidence of a rollout that was deleted while Valkey was away


class KubeStore:
    """One ModelRollout."""

    def __init__(self, api: Api, valkey: Any, name: str) -> None:
        self.api, self.valkey, self.name = api, valkey, name
        self.object: Document = {}
        self.refusal = ""
        self.new: list[Transition] = []
        self.written_s = 0.0

    # What people want

    def wanted(self, name: str) -> ModelRollout:
        """Reads the object anew. One without a release wants what serves: Git names none, and may come first.

        Raises:
            Unavailable: it is gone, or the API server does not answer. InvalidRollout: it cannot be followed.
        """
        self.object = self._read()
        try:
            found = self._parsed()
            self.refusal = ""
        except InvalidRollout as error:
            self.refusal = str(error)
            raise
        return found

    def _parsed(self) -> ModelRollout:
        kept = self.object.get("status", {}).get("champion")
        spec = self.object["spec"]
        release = Release.model_validate(kept) if kept and "release" not in spec else None
        if "release" not in spec and release is None:
            raise InvalidRollout(f"{self.name}: no spec.release yet: nothing was released")
        content = {key: self.object[key] for key in ("apiVersion", "kind")}
        content |= {"metadata": {"name": self.name}, "spec": spec}
        found = parse_rollout(msgspec.json.encode(content).decode(), self.name, release=release)
        model = found.spec.release.model
        if model.name != self.name:
            raise InvalidRollout(
                f"{self.name}: the release is of the model {model.name}; a rollout has the name of its model, and so "
                "has the one HTTPRoute, so that no two can move the same users"
            )
        if not model.image:
            raise InvalidRollout(f"{self.name}: the model of {found.spec.release.short} is in no OCI registry; gate it")
        return found

    def orders_after(self, name: str, number: int) -> list[tuple[int, Order]]:
        """The annotation, unless it was obeyed already."""
        text = orders.text_of(self.object)
        try:
            found = orders.order_of(self.object)
        except ValueError as error:
            logger.warning("%s: %s", name, error)
            return []
        return [(orders.number_of(text), found)] if found and orders.number_of(text) != number else []

    # What is remembered

    def read_status(self, name: str) -> Status | None:
        """Raises ValueError when another version wrote it in another way."""
        self.object = self._read()
        return status.remembered(name, self.object.get("status", {}), time.time())

    def record(self, name: str, transitions: Sequence[Transition]) -> None:
        """Goes with the next status: one write, neither without the other."""
        self.new = list(transitions)

    def write_status(self, found: Status) -> None:
        """Only what is new; of mere figures not each.

        Raises:
            Conflict: the object changed since `wanted`. Unavailable: the API server does not answer.
        """
        before = self.object.get("status", {})
        text = orders.text_of(self.object)
        obeyed = text if text and orders.number_of(text) == found.orders_done else ""
        if not text:
            found.orders_done = 0  # taken away: the same words may come again
        release = self.object["spec"].get("release")
        document = status.document(
            found, before, Release.model_validate(release) if release else None, self.new, order=obeyed,
            generation=self.object["metadata"].get("generation", 0), refusal=self.refusal, now_s=found.updated_at_s,
        )  # fmt: skip
        self._write(document, before, found.updated_at_s)
        if obeyed:
            self._take_away(obeyed)

    def write_refusal(self, now_s: float) -> None:
        """Says of a spec that was never followed why it cannot be."""
        before = self.object.get("status", {})
        generation = self.object["metadata"].get("generation", 0)
        said = status.conditions(None, None, before.get("conditions", ()), self.refusal, generation, now_s)
        self._write({**before, "conditions": said}, before, now_s)

    def _write(self, document: Document, before: Mapping[str, Any], now_s: float) -> None:
        figures = document.get("judgement") != before.get("judgement") and now_s - self.written_s >= FIGURES_S
        if not figures and _without_figures(document) == _without_figures(before):
            return
        self.object = self.api.replace_status({**self.object, "status": document})
        self.written_s = now_s
        if (why := _refused(document)) and why != _refused(before):
            warnings.tell(self.api, self.object, "Refused", why)
        told, self.new = self.new, []
        for item in told:
            try:
                self.api.create(status.event(self.object, item))
            except (Unavailable, Refused) as error:  # the history has it; an Event is for people
                logger.info("%s: no Event for entry %d: %s", self.name, item.serial, error)

    def _take_away(self, text: str) -> None:
        try:
            self.object = self.api.patch("ModelRollout", self.name, orders.removal(text))
        except (Conflict, Refused) as error:  # another order took its place, or it is gone
            logger.info("%s: the obeyed order stays: %s", self.name, error)

    def look(self, name: str, look: Look) -> None:
        """Not kept here: the judge's figures are in the status."""

    # Evidence

    @property
    def key(self) -> str:
        """Of this very object: one of the same name, made later, begins anew."""
        return f"flightdeck:rollout:{self.object['metadata']['uid']}:evidence"

    def save_evidence(self, name: str, started_s: float, cursors: dict[str, str], dump: bytes) -> None:
        """Raises Unavailable when Valkey does not answer; what is in memory goes on."""
        content = msgspec.msgpack.encode(KeptEvidence(started_s, cursors, dump))
        try:
            self.valkey.set(self.key, content, ex=KEPT_S)
        except redis.RedisError as error:
            raise Unavailable(f"Valkey did not keep the evidence: {error}") from error

    def load_evidence(self, name: str) -> KeptEvidence | None:
        """Raises Unavailable when Valkey does not answer: that is not the same as no evidence."""
        try:
            content = self.valkey.get(self.key)
        except redis.RedisError as error:
            raise Unavailable(f"Valkey did not tell the evidence: {error}") from error
        try:
            return msgspec.msgpack.decode(content, type=KeptEvidence) if content else None
        except msgspec.DecodeError:
            return None

    def forget_evidence(self) -> None:
        """When the object goes."""
        try:
            self.valkey.delete(self.key)
        except redis.RedisError as error:
            logger.info("%s: evidence stays until it expires: %s", self.name, error)

    def _read(self) -> Document:
        found = self.api.read("ModelRollout", self.name)
        if found is None:
            raise Unavailable(f"there is no ModelRollout {self.name} any more")
        return found


def _refused(document: Mapping[str, Any]) -> str:
    """Why the spec cannot be followed, as people read it; empty when it can."""
    for it in document.get("conditions", ()):
        if it["type"] == "PlanAccepted" and it["status"] == "False":
            return str(it.get("message", ""))
    return ""


def _without_figures(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "judgement"}
