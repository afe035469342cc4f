"""The users' requests per second at one HTTPRoute, from the gateway's counters that the operator reads anyway."""

from __future__ import annotations

import time
from collections.abc import Callable

from services.rollout_operator.kube.counters import Counters, under

WINDOW_S = 15.0  # at least so long is averaged
MOST = 1_000  # counters remembered: one that is gone may only have been silent
REST_S = 60.0  # without a judged rollout the counters are looked at so rarely


class Rate:
    """Sums what each counter grew by; one that begins anew or is new counts from zero.

    Attempts are counted, so a request that the gateway sent again counts twice.
    """

    def __init__(self, route: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: route: `namespace/name`."""
        self.route, self.clock = route, clock
        self.per_s: float | None = None
        self.looked_s = float("-inf")
        self.began_s: float | None = None
        self.grown = 0
        self.before: dict[tuple[str, str, str], int] = {}

    @property
    def due(self) -> bool:
        """Nobody looked for long."""
        return self.clock() - self.looked_s >= REST_S

    def missed(self) -> None:
        """The counters did not answer: not again at once."""
        self.looked_s = self.clock()

    def saw(self, counters: Counters) -> None:
        """All counters of all proxies as they are now."""
        now_s = self.looked_s = self.clock()
        found = {place: it.total for place, it in counters.items() if under(self.route, place[1], copies=False)}
        for place, total in found.items():
            old = self.before.get(place, 0 if self.before else total)
            self.grown += total - old if total >= old else total
        self.before = found if len(self.before) > MOST else self.before | found
        if self.began_s is None:
            self.began_s = now_s
        elif (spent_s := now_s - self.began_s) >= WINDOW_S:
            self.per_s, self.began_s, self.grown = self.grown / spent_s, now_s, 0
