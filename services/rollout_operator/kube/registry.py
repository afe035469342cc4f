"""Adapter: MLflow's REST API, and the thread that keeps the copy there (registry_copy.py says what it is).

No tick waits for it: `keep` leaves a note and returns. MLflow is asked when a rollout's part of the copy changes, when
the operator starts, and every ten minutes, with two requests; while it is away, ever more seldom, for all rollouts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import httpx

from services.rollout_operator.kube.api import Document
from services.rollout_operator.ports import Unavailable
from services.rollout_operator.registry_copy import ALIAS, ROLE, Copy, Found, Point, Write, copy_of, writes

logger = logging.getLogger("flightdeck.rollout")
TRACKING_ENV = "MLFLOW_TRACKING_URI"
TIMEOUT_S = 5.0
REPEAT_S = 600.0  # between two looks at a copy that agreed, or cannot
AWAY_S, LONGEST_AWAY_S = 2.0, 60.0  # twice as long after each request that MLflow did not answer
_PREFIX = "/api/2.0/mlflow"


class RegistryRefused(ValueError):
    """MLflow understood and refuses; asking again at once changes nothing."""


class Registry(Protocol):
    """What the copy needs of a model registry. Raises Unavailable or RegistryRefused."""

    def find(self, copy: Copy) -> Found:
        """What it says of the model."""

    def write(self, model: str, what: Write) -> None:
        """One alias or one tag; safe to repeat."""


class Mlflow:
    """One server."""

    def __init__(self, tracking_uri: str) -> None:
        """Nothing is asked yet."""
        address = tracking_uri.rstrip("/") + _PREFIX
        self.client = httpx.Client(base_url=address, timeout=TIMEOUT_S, trust_env=False)  # in the cluster: no proxy

    def find(self, copy: Copy) -> Found:
        """Two requests, and one for each version that has no tag yet."""
        query = {"filter": f"name = '{copy.model}' AND tags.{ROLE} LIKE '%'", "max_results": "200"}
        answer = self._ask("GET", "/model-versions/search", params=query)
        tags = {it["version"]: _tags(it) for it in answer.get("model_versions", ())}
        for version in copy.parts:
            if version not in tags:
                found = self._one("/model-versions/get", {"name": copy.model, "version": version})
                tags |= {version: _tags(found)} if found else {}
        pointed = self._one("/registered-models/alias", {"name": copy.model, "alias": ALIAS})
        return Found(pointed["version"] if pointed else None, tags)

    def write(self, model: str, what: Write) -> None:
        """See Registry."""
        if isinstance(what, Point):
            body = {"name": model, "alias": ALIAS, "version": what.version}
            self._ask("POST", "/registered-models/alias", json=body)
        else:
            body = {"name": model, "version": what.version, "key": what.key, "value": what.value}
            self._ask("POST", "/model-versions/set-tag", json=body)

    def _one(self, path: str, query: Mapping[str, str]) -> Mapping[str, Any] | None:
        """A version, None when there is none. MLflow answers 404 to a missing model or version, 400 to an alias."""
        try:
            found: Mapping[str, Any] = self._ask("GET", path, params=query)["model_version"]
        except RegistryRefused as error:
            if "not found" in str(error):
                return None
            raise
        return found

    def _ask(self, method: str, path: str, **what: Any) -> Mapping[str, Any]:
        try:
            answer = self.client.request(method, path, **what)
        except httpx.HTTPError as error:
            raise Unavailable(f"MLflow did not answer {method} {path}: {error or type(error).__name__}") from error
        if answer.status_code >= 500 or answer.status_code == 429:
            raise Unavailable(f"MLflow answered {method} {path} with {answer.status_code}: {answer.text[:200]}")
        if answer.status_code >= 400:
            raise RegistryRefused(f"MLflow refused {method} {path} with {answer.status_code}: {answer.text[:200]}")
        found: Mapping[str, Any] = answer.json()
        return found


def _tags(version: Mapping[str, Any]) -> dict[str, str]:
    return {it["key"]: it["value"] for it in version.get("tags", ())}


class Copies:
    """Keeps the copies of all rollouts, in one thread of the operator's process."""

    def __init__(
        self, registry: Registry, tell: Callable[[Document, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is asked yet.

        Args:
            tell: of a ModelRollout, in words, what the registry cannot take; once. clock: in seconds.
        """
        self.registry, self.tell, self.clock = registry, tell, clock
        self._lock, self._news = threading.Lock(), threading.Event()
        self._notes: dict[str, tuple[Document, Copy]] = {}
        self._due_s: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._away_s, self._again_s = 0.0, 0.0

    def keep(self, name: str, rollout: Document) -> None:
        """Call after each tick with the object as it was left; returns at once."""
        copy = copy_of(rollout.get("status", {}))
        if copy is None:
            return
        with self._lock:
            before = self._notes.get(name)
            self._notes[name] = rollout, copy
            if before is None or before[1] != copy:
                self._due_s[name] = self.clock()
                self._news.set()

    def forget(self, name: str) -> None:
        """The ModelRollout goes; what the registry says stays."""
        with self._lock:
            for kept in (self._notes, self._due_s, self._told):
                kept.pop(name, None)

    def start(self) -> None:
        """Until the process ends."""
        threading.Thread(target=self._run, name="registry-copy", daemon=True).start()

    def _run(self) -> None:
        while True:
            self._news.wait(self.step())
            self._news.clear()

    def step(self) -> float:
        """Every copy that is due, once; returns the seconds until the next one is."""
        while (wait_s := self._wait_s()) <= 0:
            with self._lock:
                name = min(self._due_s, key=lambda it: self._due_s[it])
                rollout, copy = self._notes[name]
            try:
                self._repair(name, rollout, copy)
            except Unavailable as error:
                if not self._away_s:
                    logger.warning("the copy in MLflow waits until it answers: %s", error)
                self._away_s = min(2 * self._away_s or AWAY_S, LONGEST_AWAY_S)
                self._again_s = self.clock() + self._away_s
            except Exception as error:  # a thread that ends would end all copies
                logger.exception("%s: the copy in MLflow failed", name)
                self._done(name, rollout, copy, [f"the copy in MLflow failed: {error}"])
        return wait_s

    def _wait_s(self) -> float:
        with self._lock:
            first_s = min(self._due_s.values(), default=self.clock() + REPEAT_S)
        return max(first_s, self._again_s) - self.clock()

    def _repair(self, name: str, rollout: Document, copy: Copy) -> None:
        try:
            todo, troubles = writes(copy, self.registry.find(copy))
            for what in todo:
                self.registry.write(copy.model, what)
        except RegistryRefused as error:
            todo, troubles = [], [str(error)]
        if self._away_s:
            logger.info("MLflow answers again")
            self._away_s = self._again_s = 0.0
        if todo:
            logger.info("%s: the copy in MLflow follows, %d writes; champion is v%s", name, len(todo), copy.champion)
        self._done(name, rollout, copy, troubles)

    def _done(self, name: str, rollout: Document, copy: Copy, troubles: list[str]) -> None:
        """Until the next look; what went wrong is told once."""
        words = "; ".join(troubles)
        with self._lock:
            if name not in self._notes:
                return
            if self._notes[name][1] == copy:  # else it changed meanwhile, and is due already
                self._due_s[name] = self.clock() + REPEAT_S
            news = words and self._told.get(name) != words
            self._told[name] = words
        if news:
            self.tell(rollout, words)
