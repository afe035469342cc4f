"""Whether three that count the same requests agree: a release's replicas, the gateway, the prediction log. Pure.

The judge takes errors from the gateway and all else from the log. When a proxy is not asked, users pass the gateway by,
or the log loses rows, it judges a part of the requests and cannot know; the replicas' own counters can. A mismatch is
told, never judged: it says nothing about the candidate.

Differences are taken over cumulative counts since a common beginning, so a duplicated or a missed scrape changes
nothing. What no difference can be taken over (a restart, a pod or an endpoint that came or went, another reader of the
log) begins anew at that reading. So a candidate whose replicas die again and again is never compared; its deaths are
told otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from services.rollout_operator.matching import Attempts

# Three readings of one look are not of one moment: a page is asked for up to 2 s after another, the log's writer waits
# up to 0.2 s. That costs at most so many seconds of the busiest traffic, however long the window.
SKEW_S = 2.0
FLOOR = 20  # in flight at both ends
SHARE = 0.02  # of the requests: written twice by the log, cut off in the middle, retried under the same id
LASTING_S, LASTING_LOOKS = 10.0, 3  # a mismatch that goes is none: a log that was away catches up


class Pod(msgspec.Struct, frozen=True):
    """What one replica's process counted since it began.

    Args:
        answers: of any kind on any page, probes as well. predictions: those on pages that the log writes of.
        logged: of these, the successful ones: the log has each.
    """

    answers: int
    predictions: int
    logged: int


class Reading(msgspec.Struct, frozen=True):
    """One look at all three.

    Args:
        at_s: Unix time. pods: a process -> its counts, of every replica that could have answered.
        gateway: counter -> cumulative attempts, copies as well.
        log: requests that were read from the log since its reader `log_of` began.
    """

    at_s: float
    pods: Mapping[str, Pod]
    gateway: Mapping[str, Attempts]
    log: int
    log_of: int


class CrossCheck:
    """One release, in one rollout."""

    def __init__(self) -> None:
        self.first: Reading | None = None
        self.last: Reading | None = None
        self.peak = 0.0  # requests a second, between two looks
        self.since: dict[str, tuple[float, int]] = {}  # kind of mismatch -> when it was first seen, looks since then

    def look(self, reading: Reading) -> dict[str, str]:
        """Mismatches that last: kind -> in words."""
        if self.last is not None and reading.at_s <= self.last.at_s:
            return {}  # the same look again
        if self.first is None or self.last is None or not _comparable(self.last, reading):
            self.first = self.last = reading
            self.peak, self.since = 0.0, {}
            return {}
        passed_s = reading.at_s - self.last.at_s
        self.peak = max(self.peak, *(count / passed_s for count in _counts(self.last, reading).values()))
        self.last = reading
        found = mismatches(self.first, reading, self.peak)
        self.since = {
            kind: (since, looks + 1)
            for kind in found for since, looks in [self.since.get(kind, (reading.at_s, 0))]
        }  # fmt: skip
        return {
            kind: words
            for kind, words in found.items() for since, looks in [self.since[kind]]
            if reading.at_s - since >= LASTING_S and looks >= LASTING_LOOKS
        }  # fmt: skip


def mismatches(first: Reading, last: Reading, peak: float) -> dict[str, str]:
    """Kinds of mismatch between two readings, each in words.

    Args:
        peak: requests a second at the busiest.
    """
    counted = _counts(first, last)
    found: dict[str, str] = {}

    def compare(kind: str, more: str, less: str, words: str) -> None:
        slack = FLOOR + SKEW_S * peak + SHARE * max(counted[more], counted[less])
        if counted[more] - counted[less] > slack:
            found[kind] = (
                f"{words.format(**{key: f'{value:,}' for key, value in counted.items()})} in "
                f"{last.at_s - first.at_s:.0f} s; {slack:,.0f} would be no wonder"
            )

    passed = "its replicas answered {predictions} requests, the gateway counted {attempts} attempts"
    compare("past-gateway", "predictions", "attempts", passed)
    # Failed attempts may never have reached a replica, and users may ask for other pages than predictions.
    compare("not-at-replicas", "successes", "answers",
            "the gateway counted {successes} answers, its replicas counted {answers}")  # fmt: skip
    compare("not-in-log", "logged", "log", "its replicas logged {logged} requests, the prediction log has {log}")
    compare("only-in-log", "log", "logged", "the prediction log has {log} requests, its replicas logged {logged}")
    return found


def _counts(first: Reading, last: Reading) -> dict[str, int]:
    """What was counted between two comparable readings."""

    def more(field: str) -> int:
        return sum(getattr(it, field) - getattr(first.pods[key], field) for key, it in last.pods.items())

    attempts = [(it, first.gateway[key]) for key, it in last.gateway.items()]
    total = sum(it.total - before.total for it, before in attempts)
    failed = sum(it.failed - before.failed for it, before in attempts)
    return {
        "answers": more("answers"), "predictions": more("predictions"), "logged": more("logged"),
        "attempts": total, "successes": total - failed, "log": last.log - first.log,
    }  # fmt: skip


def _comparable(before: Reading, now: Reading) -> bool:
    """Whether every counter is there in both and none went back."""
    if before.pods.keys() != now.pods.keys() or before.gateway.keys() != now.gateway.keys():
        return False
    if before.log_of != now.log_of or now.log < before.log:
        return False
    pods = all(
        getattr(now.pods[key], field) >= getattr(it, field) for key, it in before.pods.items()
        for field in ("answers", "predictions", "logged")
    )  # fmt: skip
    return pods and all(
        now.gateway[key].total >= it.total and now.gateway[key].failed >= it.failed
        for key, it in before.gateway.items()
    )
