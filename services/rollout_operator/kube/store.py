"""The tick's store on Kubernetes: the ModelRollout itself, and two keys in the streams' Valkey: evidence and looks.

The status is written whole and only over the version that was read (resourceVersion): of two operators, or of a
decision on a spec that changed meanwhile, one fails with Conflict and decides anew. So nothing needs a lock.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import redis

from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import InvalidRollout, ModelRollout, RolloutSpec, parse_rollout, valid_rollout
from services.rollout_operator import acceptance, gate
from services.rollout_operator.kube import accepted, gatekeeper, looks, orders, status, stops
from services.rollout_operator.kube.api import Api, Conflict, Document, Refused
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.remembered import KeptEvidence, Look, Status
from services.rollout_operator.state import ENDED, Order, OrderKind, Stop, Transition

logger = logging.getLogger("flightdeck.rollout")
FIGURES_S = 5.0  # between two writes for nothing but new figures of the judge
KEPT_S = 30 * 86_400  # evidence of a rollout that was deleted while Valkey was away


class KubeStore:
    """One ModelRollout."""

    def __init__(self, api: Api, valkey: Any, name: str, trust: Callable[[], gate.Trust]) -> None:
        """`trust` tells the keys whose approvals count, as of now."""
        self.api, self.valkey, self.name, self.trust = api, valkey, name, trust
        self.object: Document = {}
        self.refusal, self.refusal_reason = "", acceptance.REFUSED  # of PlanAccepted: why, and in one word
        self.admission: gate.Admission | None = None
        self.new: list[Transition] = []
        self.written_s = 0.0
        self.looks, self.answered = looks.Looks(valkey), False
        self.spec: RolloutSpec | None = None
        self.stops = stops.Stops(api)
        self.stop: Stop | None = None
        self.rate: Callable[[], float | None] = lambda: None  # users' requests per second, as measured

    # What people want

    def wanted(self, name: str) -> ModelRollout:
        """Reads the object anew. One without a release wants what serves: Git names none, and may come first.

        A release that is not let in is as if nobody had asked for it; the condition tells (gate.py).

        Raises:
            Unavailable: it is gone, or the API server does not answer. InvalidRollout: it cannot be followed.
        """
        self.object, self.answered, self.admission = self._read(), False, None
        try:
            found = self._parsed()
        except InvalidRollout as error:
            self.refusal, self.refusal_reason = str(error), acceptance.REFUSED
            return self._going_on(error)
        self.admission = gatekeeper.admit(self.object, found.spec.release, self.trust())
        self.refusal, self.refusal_reason = self.admission.refusal, gatekeeper.UNAPPROVED
        if self.admission.release is None:
            raise InvalidRollout(self.refusal)
        found = found.with_release(self.admission.release)
        self.spec = found.spec
        return found

    def _going_on(self, error: InvalidRollout) -> ModelRollout:
        """The spec in force, with the replicas that are asked for now: an autoscaler is not refused with a plan.

        Once a rollout has ended nothing begins with it either, also not what a stop had sent home.
        """
        kept = self.object.get("status", {})
        try:
            found = parse_rollout(kept.get("inForce", ""), self.name)
        except InvalidRollout:
            raise error from None
        if kept.get("phase") in ENDED and "champion" in kept:
            found = found.with_release(Release.model_validate(kept["champion"]))
        replicas = self.object["spec"].get("replicas", found.spec.replicas)
        self.spec = found.spec.model_copy(update={"replicas": replicas})
        return found.model_copy(update={"spec": self.spec})

    def _parsed(self) -> ModelRollout:
        spec = self.object["spec"]
        if "release" not in spec:
            kept = self.object.get("status", {}).get("champion")
            if not kept:
                raise InvalidRollout(f"{self.name}: no spec.release yet: nothing was released")
            spec = {**spec, "release": kept}
        content = {key: self.object[key] for key in ("apiVersion", "kind")}
        content |= {"metadata": {"name": self.name}, "spec": spec}
        found = valid_rollout(content, self.name)
        model = found.spec.release.model
        if model.name != self.name:
            raise InvalidRollout(
                f"{self.name}: the release is of the model {model.name}; a rollout has the name of its model, and so "
                "has the one HTTPRoute, so that no two can move the same users"
            )
        if not model.image:
            raise InvalidRollout(f"{self.name}: the model of {found.spec.release.short} is in no OCI registry; gate it")
        if words := acceptance.never(found.spec):
            raise InvalidRollout(f"{self.name}: {words}")
        return found

    def orders_after(self, name: str, number: int) -> list[tuple[int, Order]]:
        """The annotation, unless it was obeyed already."""
        text = orders.text_of(self.object)
        try:
            found = orders.order_of(self.object)
        except ValueError as error:
            logger.warning("%s: %s", name, error)
            return []
        if found and found.kind is OrderKind.RETRY and self.admission and self.admission.refusal:
            return []  # what is wanted is not let in, and no other release is meant
        return [(orders.number_of(text), found)] if found and orders.number_of(text) != number else []

    def stopped(self, name: str) -> Stop | None:
        """Asked for only where something runs or would begin: an idle rollout is told at no request of its own."""
        kept = self.object.get("status", {})
        sent_home = Release.model_validate(kept["refused"]).id if "refused" in kept else ""
        settled = self.spec is None or self.spec.release.id in (kept.get("championRelease"), sent_home)
        # A refused release does not excuse: the one let in before it may begin now; and so may one by a `retry`.
        idle = kept.get("phase") in ENDED and settled and not orders.text_of(self.object)
        self.stop = self.stops.now(needed=not idle)
        return self.stop

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
        self._broken_glass(found)
        generation = self.object["metadata"].get("generation", 0)
        rate = accepted.rate(before, self.rate())
        doubt = "" if self.refusal else accepted.doubt(self.spec, found.state, before, rate, generation)
        document = status.document(
            found, before, self._asked(), self.new, order=obeyed,
            generation=generation, refusal=self.refusal or doubt, now_s=found.updated_at_s,
            reason=acceptance.TOO_SLOW if doubt else self.refusal_reason, stop=self.stop,
        )  # fmt: skip
        memory = gatekeeper.kept(self.admission.memory) if self.admission else before.get(gatekeeper.KEPT)
        document |= {gatekeeper.KEPT: memory} if memory else {}
        if rate:
            document["requestsPerSecond"] = rate
        self._write(document, before, found.updated_at_s)
        if obeyed:
            self._take_away(obeyed)

    def _asked(self) -> Release | None:
        """What is asked for; None also where it cannot be read: that is told as a refusal, and it does not serve."""
        try:
            return Release.model_validate(self.object["spec"]["release"])
        except (KeyError, ValueError):
            return None

    def _broken_glass(self, found: Status) -> None:
        """Into the history, once, with the status that remembers it."""
        seen = self.admission
        if seen and seen.broken and seen.release and found.state:
            found.state, self.new = gatekeeper.entered(
                found.state, self.new, seen.release, seen.broken, found.updated_at_s
            )
            self.admission = msgspec.structs.replace(seen, broken=None)

    def write_refusal(self, now_s: float) -> None:
        """Says of a spec that was never followed why it cannot be."""
        before = self.object.get("status", {})
        generation = self.object["metadata"].get("generation", 0)
        old = before.get("conditions", ())
        said = status.conditions(None, None, old, self.refusal, generation, now_s, self.refusal_reason)
        others = [it for it in old if it["type"] not in {new["type"] for new in said}]
        self._write({**before, "conditions": others + said}, before, now_s)

    def _write(self, document: Document, before: Mapping[str, Any], now_s: float) -> None:
        figures = document.get("judgement") != before.get("judgement") and now_s - self.written_s >= FIGURES_S
        if not figures and _without_figures(document) == _without_figures(before):
            return
        self.object = self.api.replace_status({**self.object, "status": document})
        self.written_s = now_s
        told, self.new = [status.event(self.object, item) for item in self.new], []
        if doubted := accepted.event(self.object, before, now_s):
            told.append(doubted)
        for event in told:
            try:
                self.api.create(event)
            except (Unavailable, Refused) as error:  # the status has it; an Event is for people
                logger.info("%s: no Event %s: %s", self.name, event["metadata"]["name"], error)

    def _take_away(self, text: str) -> None:
        try:
            self.object = self.api.patch("ModelRollout", self.name, orders.removal(text))
        except (Conflict, Refused) as error:  # another order took its place, or it is gone
            logger.info("%s: the obeyed order stays: %s", self.name, error)

    def look(self, name: str, look: Look) -> None:
        """Beside the evidence, and only when Valkey took that in this tick: nobody waits for it twice."""
        if self.answered and not self.looks.keep(self.object["metadata"]["uid"], look):
            logger.info("%s: Valkey did not keep a look", name)

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
        self.answered = True

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
            self.valkey.delete(self.key, looks.key(self.object["metadata"]["uid"]))
        except redis.RedisError as error:
            logger.info("%s: evidence stays until it expires: %s", self.name, error)

    def _read(self) -> Document:
        found = self.api.read("ModelRollout", self.name)
        if found is None:
            raise Unavailable(f"there is no ModelRollout {self.name} any more")
        return found


def _without_figures(document: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != "judgement"}
