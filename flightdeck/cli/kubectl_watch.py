"""Follow a ModelRollout to its end: one line per change. By reading it again and again: no dropped watch to mend."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from typing import Any

from flightdeck.cluster.commands import CommandFailed
from flightdeck.cluster.rollout_page import history
from flightdeck.contracts.release import Release
from services.rollout_operator.acceptance import TOO_SLOW
from services.rollout_operator.kube.orders import text_of
from services.rollout_operator.kube.status import remembered
from services.rollout_operator.plan import ENDED, Phase

DONE, ABORTED, TIMED_OUT = 0, 1, 124  # exit codes; the last as of timeout(1)
POLL_S = 1.0


class Follower:
    """What was said already, so that each change is said once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.serial: int | None = None  # of the newest entry of the history that was there at the beginning, or said
        self.line = self.bad = ""

    def look(self, rollout: Mapping[str, Any], now_s: float) -> int | None:
        """Say what is new; DONE or ABORTED once nothing is left to happen for the wanted release, else None."""
        from flightdeck.lab.rollout.sentences import ended, short, spec_in_force

        name, status = rollout["metadata"]["name"], rollout.get("status", {})
        entries = history(status)
        if self.serial is None:
            self.serial = entries[-1].serial if entries else 0
        for entry in entries:
            if entry.serial > self.serial:
                self.serial = entry.serial
                self._tell(entry.at_s, f"{entry.target}: {entry.reason} ({entry.who})")
        found = remembered(name, status, now_s)
        if (line := short(found, spec_in_force(found)) if found else "not begun") != self.line:
            self.line = line
            self._tell(now_s, line)
        refused = _refusal(status)
        if refused != self.bad:
            self.bad = refused
            if refused:
                self._tell(now_s, refused)
        seen = status.get("observedGeneration", 0) >= rollout["metadata"].get("generation", 0)
        state = found.state if found else None
        if refused.startswith("refused") and seen and (state is None or state.phase in ENDED):
            return ABORTED
        body = rollout["spec"].get("release") or status.get("champion")
        if body is None:
            return None
        end = ended(found, Release.model_validate(body), orders_wait=bool(text_of(rollout)))
        return None if end is None else DONE if end is Phase.DONE else ABORTED

    def _tell(self, at_s: float, words: str) -> None:
        self.say(f"{dt.datetime.fromtimestamp(at_s, dt.UTC):%H:%M:%S}  {words}")


def follow(
    read: Callable[[], Mapping[str, Any]], say: Callable[[str], None], warn: Callable[[str], None],
    timeout_s: float | None, *, sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.time,
) -> int:  # fmt: skip
    """Until it ends, or for `timeout_s` seconds; returns the exit code. An API server that is away is waited for.

    Args:
        read: the object as it is now; CommandFailed when kubectl cannot tell, ValueError when there is none.
    """
    follower, began_s, away = Follower(say), clock(), ""
    while True:
        try:
            code = follower.look(read(), clock())
            away = ""
        except CommandFailed as error:
            code = None
            if not away:
                away = str(error)
                warn(f"{away}\nstill watching; the rollout goes on by itself")
        if code is not None:
            return code
        if timeout_s is not None and clock() - began_s >= timeout_s:
            warn(f"it has not ended after {timeout_s:g} s; the rollout goes on")
            return TIMED_OUT
        sleep(POLL_S)


def _refusal(status: Mapping[str, Any]) -> str:
    """PlanAccepted, where a person has to do something; it begins with `refused` when nothing begins because of it."""
    for it in status.get("conditions", ()):
        if it["type"] == "PlanAccepted" and it["status"] == "False":
            return f"{'doubted' if it['reason'] == TOO_SLOW else 'refused'} ({it['reason']}): {it['message']}"
    return ""
