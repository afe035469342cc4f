"""Runs in a process of its own: one governor that looks again and again, and prints the orders that it gave.

`python look.py URL LOOKS`: the go is a line on the standard input.
"""

from __future__ import annotations

import datetime as dt
import sys

from flightdeck.contracts.model_spec import load_model_spec, specs_folder
from flightdeck.contracts.retrain import Answer, Order, Pretest
from pipelines.governor.governor import Ended, Governor
from pipelines.governor.journal import Journal

NOW = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)


class Standing:
    """A clock that stands still."""

    def now(self) -> dt.datetime:
        return NOW


class Printing:
    """A runner whose trainings never end."""

    def start(self, order: Order) -> None:
        print(order.key, flush=True)

    def ended(self, order: Order) -> Ended | None:
        return None


def main(url: str, looks: int) -> None:
    governor = Governor(
        Journal(url), Standing(), Printing(), lambda _: "",
        lambda _spec, _now: Pretest(answer=Answer.WOULD_WIN, reason="gain +0.01 [+0.005, +0.015]"),
    )  # fmt: skip
    spec = load_model_spec(specs_folder() / "late.yaml")
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(looks):
        governor.tick(spec)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
