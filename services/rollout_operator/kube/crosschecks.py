"""Asks replicas what they counted and compares (crosscheck.py), beside the ticks.

Every few seconds while a candidate is judged, in a thread that no tick waits for. A lasting mismatch is one Event and a
sentence in the status.
"""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
import re
import time
from collections.abc import Callable
from typing import Any

from flightdeck.contracts.model_spec import Task
from flightdeck.contracts.prediction import PredictionRecord
from flightdeck.contracts.release import Release
from services.rollout_operator.crosscheck import CrossCheck, Pod, Reading
from services.rollout_operator.kube import counters, replicas, warnings
from services.rollout_operator.kube.platform import KubePlatform
from services.rollout_operator.kube.store import KubeStore
from services.rollout_operator.matching import Attempts
from services.rollout_operator.ports import Records, Unavailable
from services.rollout_operator.tick import JUDGED, Rollout

EVERY_S = 5.0
FRESH_S = 1.5  # gateway and log must have been read in the tick that just ended
LONGEST_S = 2.0  # for all replicas' pages; what took longer is of no one moment (crosscheck.SKEW_S)
PAGE = "/metrics"
OVER = ("Failed", "Succeeded")  # an evicted pod stays in the list and answers nobody
LOGGED = ("/v1/predict", "/v1/score")  # each successful answer of these has a record
_REQUESTS = re.compile(r"^predictor_requests_total\{([^}]*)\} ([0-9.e+]+)$", re.MULTILINE)
_BEGAN = re.compile(r"^process_start_time_seconds ([0-9.e+]+)$", re.MULTILINE)
REMEMBERED = 5_000  # records, to know again what the log has twice; a repeated write has at most 256


_serials = itertools.count(1)


class CountedRecords:
    """The prediction log, counting requests per release as they are read."""

    def __init__(self, records: Records) -> None:
        self.records, self.read_s = records, float("-inf")
        self.serial = next(_serials)  # an id() comes again once its object is gone
        self.requests: collections.Counter[str] = collections.Counter()
        self._seen: dict[tuple[str, str, int], None] = {}

    @property
    def cursors(self) -> dict[str, str]:
        """Of the log itself."""
        return self.records.cursors

    @cursors.setter
    def cursors(self, value: dict[str, str]) -> None:
        self.records.cursors = value

    def skip_to_now(self) -> None:
        """See Records."""
        self.records.skip_to_now()

    def predictions(self) -> list[PredictionRecord]:
        """See Records. A request's first row stands for it; written twice, it is one."""
        found = self.records.predictions()
        self.read_s = time.monotonic()
        for record in found:
            key = record.replica, record.request_id, record.asked_at_us
            if record.row == 0 and key not in self._seen:
                self._seen[key] = None
                self.requests[record.release] += 1
        for key in list(self._seen)[: max(0, len(self._seen) - REMEMBERED)]:
            del self._seen[key]
        return found

    def outcomes(self, task: Task) -> dict[str, float]:
        """See Records."""
        return self.records.outcomes(task)


def parse(text: str, pod: str) -> tuple[str, Pod]:
    """A replica's page: the process, and what it counted.

    Raises:
        Unavailable: it is no predictor's page: nothing found is no zero.
    """
    if "predictor_model_info" not in text:
        raise Unavailable(f"{pod}{PAGE} is no page of a predictor")
    answers = predictions = logged = 0
    for labels, value in _REQUESTS.findall(text):
        named, count = counters.labels_of(labels), int(float(value))
        answers += count
        if named.get("route") in LOGGED:
            predictions += count
            logged += count if named.get("code") == "2xx" else 0
    began = _BEGAN.search(text)
    return f"{pod} {began[1] if began else ''}", Pod(answers, predictions, logged)


class Snapshot:
    """What a tick saw of one release, and where its replicas are: all that the thread needs."""

    def __init__(self, release: Release, platform: KubePlatform, records: CountedRecords, now_s: float) -> None:
        self.release, self.now_s = release, now_s
        route = f"{platform.api.namespace}/{platform.model}"
        self.gateway: dict[str, Attempts] = {}
        for copies in (False, True):
            self.gateway |= counters.of_release(
                platform.scraped, platform.owners, release.id, route, copies=copies
            )  # fmt: skip
        self.log, self.log_of = records.requests[release.id], records.serial
        mine = [it for it in platform.pods if (it["metadata"].get("labels") or {}).get(replicas.RELEASE) == release.id]
        told = [(it["metadata"]["name"], it.get("status", {})) for it in mine]
        self.pods = [(name, str(it.get("podIP", ""))) for name, it in told if it.get("phase") not in OVER]

    def read(self, fetch: Callable[[str], str]) -> Reading:
        """With the replicas' own word.

        Raises:
            Unavailable: one of them does not tell, or the pages took too long: a gap, no zero.
        """
        began_s, pods = time.monotonic(), {}
        for name, address in self.pods:
            if not address:
                raise Unavailable(f"{name} has no address yet")
            process, counted = parse(fetch(replicas.page(address, PAGE)), name)
            pods[process] = counted
        if time.monotonic() - began_s > LONGEST_S:
            raise Unavailable(f"the pages of {len(pods)} replicas took more than {LONGEST_S:g} s")
        return Reading(self.now_s, pods, self.gateway, self.log, self.log_of)


_threads = concurrent.futures.ThreadPoolExecutor(4, thread_name_prefix="crosscheck")


class CrossChecks:
    """Of one ModelRollout."""

    def __init__(self, run: Callable[[Callable[[], None]], Any] = _threads.submit) -> None:
        """Nothing is asked yet. `run` takes the work off the tick's hands."""
        self.run, self.busy = run, False
        self.of, self.next_s = 0.0, 0.0
        self.checks: dict[str, CrossCheck] = {}
        self.found: dict[str, str] = {}

    def after(self, rollout: Rollout, now_s: float) -> None:
        """Call after each tick; returns at once."""
        state, platform, records, store = rollout.status.state, rollout.platform, rollout.records, rollout.store
        if state is None or state.champion is None or state.candidate is None or state.works_in not in JUDGED:
            return
        if not (
            isinstance(platform, KubePlatform) and isinstance(records, CountedRecords) and isinstance(store, KubeStore)
        ):
            return
        if self.of != state.started_s:
            self.of, self.checks, self.found = state.started_s, {}, {}
        if self.found:
            rollout.status.doubt = f"the evidence may be incomplete: {'; '.join(self.found.values())}"
        fresh = time.monotonic() - min(platform.scraped_s, records.read_s) <= FRESH_S
        if self.busy or now_s < self.next_s or not fresh:
            return
        self.busy, self.next_s = True, now_s + EVERY_S
        sides = {
            "champion": Snapshot(state.champion, platform, records, now_s),
            "candidate": Snapshot(state.candidate, platform, records, now_s),
        }
        self.run(lambda: self._work(sides, state.started_s, platform, store.object))

    def _work(self, sides: dict[str, Snapshot], of: float, platform: KubePlatform, rollout: Any) -> None:
        try:
            for role, snapshot in sides.items():
                try:
                    reading = snapshot.read(platform.fetch)
                except Unavailable:
                    continue  # the next look is over a longer time
                found = self.checks.setdefault(role, CrossCheck()).look(reading)
                for kind, words in found.items():
                    if of == self.of and (key := f"{role} {kind}") not in self.found:
                        self.found[key] = f"{role} {snapshot.release.short}: {words}"
                        message = f"the evidence may be incomplete: {self.found[key]}"
                        warnings.tell(platform.api, rollout, "EvidenceIncomplete", message, key=f"{of} {key}")
        finally:
            self.busy = False
