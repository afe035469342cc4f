"""How often the judge errs, and after how many requests it decides, beside two common ways of judging.

Each scenario is rolled out thousands of times over made-up traffic (services/rollout_operator/simulate.py). Ends
non-zero when more good candidates are aborted than `alpha`, or more bad ones promoted than `beta`, beyond what chance
explains (95 % Wilson interval).

The baselines are for comparison only; both see the same requests, and both are given more than they would know:

- `fixed threshold`: after each window (an eighth of the deadline, 30 s) the candidate's figures of that window against
  the champion's true ones plus the margin; a second window beyond aborts the step, four windows with data end it well.
  So work analysis runs with a count and a failure limit.
- `repeated 5 % test`: the judge's own questions and the judge's own looks, each answered by an ordinary one-sided
  z-test at 5 %, from 30 observations on.

    python benchmarks/judge_bench.py [--rollouts 2000] [--only WORD] [--markdown FILE]
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from flightdeck.contracts.rollout import Margins, RolloutSpec, duration_text, parse_rollout  # noqa: E402
from services.rollout_operator.simulate import (  # noqa: E402
    Counts,
    End,
    Judging,
    Metric,
    Outcomes,
    Rule,
    Said,
    metrics_of,
    simulate,
)  # fmt: skip
from services.rollout_operator.traffic import Batch, Behaviour, Candidate, Ints, Load, Mask  # noqa: E402

SPEC = """
apiVersion: flightdeck.dev/v1alpha1
kind: ModelRollout
metadata: {name: bench}
spec:
  release: {image: code, model: {name: late, version: "1", sha256: "%s"}, featureService: late_v1}
  replicas: 3
  plan:
    - shadow: {minPairs: 500, deadline: 4m}
    - canary: {weight: 10, minRequests: 100, deadline: 4m}
    - canary: {weight: 50, minRequests: 200, deadline: 4m}
  judge:
    maxRestarts: 100  # the evidence alone has to find crashes
    margins:
      errorRate: 0.02
      latencyP50Ratio: 1.5
      latencyP99Ratio: 2
      degradedRate: 0.02
      scoreShift: 0.1
      scoreDelta: 0.05
      labelFlips: 0.05
      featureSkew: 0.02
  onDeadline: abort
  onNoData: abort
  onNewRelease: queueNewest
""" % ("0" * 64)

CHAMPION = Behaviour()
STEADY = Load(rate_per_s=100)
BURSTY = Load(rate_per_s=100, burst_every_s=40, burst_s=8, burst_rate=2.5, burst_slower=3, burst_errors=0.05)
TINY = Load(rate_per_s=1)
SLOW = Load(rate_per_s=1, tick_s=20)


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A candidate under a traffic. `good`: it must not be aborted; `bad`: it must not be promoted; or both at once."""

    name: str
    candidate: Candidate
    load: Load = STEADY
    good: bool = False
    bad: bool = False
    patience: float = 1.0  # times the plan's deadlines
    bare: bool = False  # errors are the only metric, and half of the users the only step: nothing else protects


def _fault(*, only_under_weight: bool = False, after: int = 0, **changes: float) -> Candidate:
    return Candidate(CHAMPION, dataclasses.replace(CHAMPION, **changes), only_under_weight, after)  # type: ignore[arg-type]


def _other(**changes: float) -> Candidate:
    return Candidate(dataclasses.replace(CHAMPION, **changes))  # type: ignore[arg-type]


AT_MARGIN = _other(errors=CHAMPION.errors + 0.02)  # neither good nor bad: both bounds hold at once
SCENARIOS = (
    Scenario("equal", Candidate(), good=True),
    Scenario("equal, bursty traffic", Candidate(), BURSTY, good=True),
    Scenario("equal, 1 request/s", Candidate(), TINY, good=True),
    Scenario("equal, 1 request/s, deadlines of 4 h", Candidate(), SLOW, good=True, patience=60),
    Scenario(
        "worse, by about half of each margin",
        _other(errors=0.011, degraded=0.015, score_noise=0.03, flips=0.015, skew=0.01, median_ms=6.0),
        good=True,
    ),
    Scenario("errors at the margin", AT_MARGIN, good=True, bad=True),
    Scenario("errors at the margin, bursty", AT_MARGIN, BURSTY, good=True, bad=True),
    Scenario("errors at the margin, one step, one metric", AT_MARGIN, good=True, bad=True, bare=True),
    Scenario("errors 5 %", _other(errors=0.05), bad=True),
    Scenario("errors just beyond the margin", _other(errors=CHAMPION.errors + 0.022), bad=True),
    Scenario("errors 5 %, 1 request/s", _other(errors=0.05), TINY, bad=True),
    Scenario("errors 5 %, 1 request/s, deadlines of 4 h", _other(errors=0.05), SLOW, bad=True, patience=60),
    Scenario("50 ms slower", _other(added_ms=50.0), bad=True),
    Scenario("latency tail: 8 % instead of 2 %, 8 times", _other(tail_share=0.08, tail_times=8.0), bad=True),
    Scenario("constant answer", _other(constant=0.2), bad=True),
    Scenario("scores shifted by 0.1", _other(score_shift=0.1), bad=True),
    Scenario("flips just beyond the margin", _other(flips=0.055), bad=True),
    Scenario("feature skew in 5 %", _other(skew=0.05), bad=True),
    Scenario("NaN: 10 % degraded", _other(degraded=0.1), bad=True),
    Scenario("crash after 100 under weight", _fault(only_under_weight=True, after=100, dies_every=100), bad=True),
    Scenario("3 times slower, only under weight", _fault(only_under_weight=True, median_ms=15.0), bad=True),
    Scenario("errors 5 % after 300 under weight", _fault(only_under_weight=True, after=300, errors=0.05), bad=True),
)


class FixedThreshold:
    """Windows of one step each, against the champion's true figures plus the margin."""

    PART, WINDOWS, ALLOWED = 1 / 8, 4, 1  # a window is so much of the step's deadline

    def __init__(self, spec: RolloutSpec, rollouts: int, seed: int) -> None:
        self.spec, self.step = spec, np.zeros(rollouts, dtype=np.int64)
        drawn = np.random.default_rng(seed)
        usual = 1000 * CHAMPION.median_ms * np.exp(CHAMPION.spread * drawn.standard_normal(1_000_000))
        usual *= np.where(drawn.random(usual.size) < CHAMPION.tail_share, CHAMPION.tail_times, 1)
        self.p50, self.p99 = np.quantile(usual, (0.5, 0.99))
        scores = drawn.random(1_000_000) ** 2
        self.middle = float(np.median(scores))
        self.usual = {"mean": float(np.mean(scores)), "spread": float(np.mean(np.abs(scores - self.middle)))}
        self.names = [*metrics_of(spec), *self.usual]
        self.sums = np.zeros((rollouts, len(self.names), 2))  # so much of so many
        self.age = np.zeros(rollouts)  # of the window, in ticks
        self.failed, self.counted = np.zeros(rollouts, dtype=np.int64), np.zeros(rollouts, dtype=np.int64)
        self.window_s = np.array([step.deadline_s * self.PART for step in spec.plan])

    def look(self, batch: Batch, active: Ints, step: Ints) -> npt.NDArray[np.int8]:
        """Add the tick; at the end of a window, compare."""
        new = active[self.step[active] != step]
        for state in (self.sums, self.age, self.failed, self.counted):
            state[new] = 0
        self.step[active] = step
        answered, pairs = batch.answered, batch.paired
        given = self.spec.judge.margins
        shares = {
            "errorRate": (batch.failed[0], batch.taken),
            "latencyP50Ratio": (batch.latency_us[0] > self.p50 * (given.latency_p50_ratio or 1), answered),
            "latencyP99Ratio": (batch.latency_us[0] > self.p99 * (given.latency_p99_ratio or 1), answered),
            "degradedRate": (batch.degraded[0], answered),
            "scoreDelta": (np.abs(batch.score[0] - batch.score[1]), pairs),
            "labelFlips": (batch.decision[0] ^ batch.decision[1], pairs),
            "featureSkew": (batch.skewed, pairs),
            "mean": (batch.score[0], answered),
            "spread": (np.abs(batch.score[0] - self.middle), answered),
        }
        for index, name in enumerate(self.names):
            if name in shares:
                what, of = shares[name]
                self.sums[active, index] += np.stack([(what * of).sum(axis=1), of.sum(axis=1)], axis=1)
        self.age[active] += 1
        self._close(active[self.age[active] * batch.tick_s >= self.window_s[step]])
        said = [self.failed[active] > self.ALLOWED, self.counted[active] >= self.WINDOWS]
        return np.select(said, [Said.FAIL, Said.PASS], Said.WATCHING).astype(np.int8)

    def _close(self, ended: Ints) -> None:
        limits = {
            "errorRate": CHAMPION.errors + (self.spec.judge.margins.error_rate or 1),
            "latencyP50Ratio": 0.5,
            "latencyP99Ratio": 0.01,
            "degradedRate": CHAMPION.degraded + (self.spec.judge.margins.degraded_rate or 1),
            "scoreDelta": self.spec.judge.margins.score_delta or 1,
            "labelFlips": self.spec.judge.margins.label_flips or 1,
            "featureSkew": self.spec.judge.margins.feature_skew or 1,
        }
        with np.errstate(invalid="ignore"):  # a window without data is beyond nothing
            found = self.sums[ended, :, 0] / self.sums[ended, :, 1]
        beyond = np.zeros(ended.size, dtype=bool)
        for index, name in enumerate(self.names):
            if name in limits:
                beyond |= found[:, index] > limits[name]
            elif name in self.usual:
                beyond |= np.abs(found[:, index] - self.usual[name]) > (self.spec.judge.margins.score_shift or 1)
        self.failed[ended] += beyond
        self.counted[ended] += self.sums[ended, -1, 1] > 0
        for state in (self.sums, self.age):
            state[ended] = 0


class RepeatedTest(Judging):
    """The judge's questions, answered by an ordinary test at each look."""

    Z, LEAST = 1.645, 30

    def decide(self, metric: Metric, since: Counts, total: Counts) -> tuple[Mask, Mask]:
        """One-sided 5 % z-tests of each part, and of each side, against its margin."""
        of = np.maximum(total.sum(axis=-1), 1)
        mean = total @ metric.levels / of
        error = np.sqrt(np.maximum(total @ metric.levels**2 / of - mean**2, 0) / of)
        shown = np.abs(mean) if metric.rule.two_sided else mean
        enough = of >= self.LEAST
        beyond = enough & (shown - metric.margin > self.Z * error)
        return beyond.any(axis=1), (enough & (metric.margin - shown > self.Z * error)).all(axis=1)


RULES: dict[str, Callable[[RolloutSpec, int, int], Rule]] = {
    "judge": Judging,
    "fixed threshold": FixedThreshold,
    "repeated 5 % test": RepeatedTest,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One scenario under one rule. A wrong end is an abort of a good one, or a promotion of a bad one."""

    scenario: Scenario
    rule: str
    outcomes: Outcomes

    @property
    def wrong(self) -> list[tuple[str, int, float]]:
        """(what, how many, bound)."""
        ends = ((self.scenario.good, "aborted", End.ABORTED), (self.scenario.bad, "promoted", End.PROMOTED))
        return [(word, int((self.outcomes.end == end).sum()), 0.05) for asked, word, end in ends if asked]

    @property
    def broken(self) -> bool:
        """Whether chance does not explain how far a bound is exceeded."""
        return any(wilson(count, self.outcomes.end.size)[0] > bound for _, count, bound in self.wrong)

    def cells(self) -> tuple[str, ...]:
        """For the table."""
        out, total = self.outcomes, self.outcomes.end.size
        errs = []
        for word, count, _ in self.wrong:
            low, high = wilson(count, total)
            errs.append(f"{word} {count / total:.1%} ({low:.1%} to {high:.1%})")
        decided = out.end != End.UNDECIDED
        figures = ["-"] * 3
        if decided.any():
            requests, pairs = out.requests[decided], out.pairs[decided]
            figures = [f"{it:,.0f}" for it in (np.median(requests), np.quantile(requests, 0.9), np.median(pairs))]
        return (
            self.scenario.name, self.rule, "; ".join(errs), f"{out.share(End.UNDECIDED):.1%}",
            *figures,
        )  # fmt: skip


COLUMNS = ("scenario", "rule", "wrong end (95 % interval)", "no decision", "requests, median", "p90", "pairs, median")


def wilson(count: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Interval of a share (E. B. Wilson, JASA 22, 1927)."""
    share, square = count / total, z * z / total
    middle = (share + square / 2) / (1 + square)
    half = z * np.sqrt(share * (1 - share) / total + square / total / 4) / (1 + square)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def bench_spec(patience: float = 1.0, *, bare: bool = False) -> RolloutSpec:
    """Plan and margins of the whole table, with so many times its deadlines."""
    deadline = duration_text(4 * 60 * patience)
    spec = parse_rollout(SPEC.replace("deadline: 4m", f"deadline: {deadline}"), "the bench's spec").spec
    if not bare:
        return spec
    errors = spec.judge.model_copy(update={"margins": Margins(error_rate=spec.judge.margins.error_rate)})
    return spec.model_copy(update={"plan": spec.plan[-1:], "judge": errors})


def measure(scenario: Scenario, rule: str, rollouts: int, seed: int = 20) -> Row:
    """Roll it out so many times."""
    spec = bench_spec(scenario.patience, bare=scenario.bare)
    made = simulate(
        spec, scenario.load, scenario.candidate, champion=CHAMPION, rollouts=rollouts, seed=seed,
        rule=RULES[rule],
    )  # fmt: skip
    return Row(scenario, rule, made)


def markdown(rows: Sequence[Row]) -> str:
    """The table for docs."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(row.cells() for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> int:
    """Measure and print; exit 1 when the judge breaks a bound."""
    parser = argparse.ArgumentParser(description="Simulate rollouts under the judge and under two baselines.")
    parser.add_argument("--rollouts", type=int, default=2000, help="per scenario and rule")
    parser.add_argument("--only", default="", help="scenarios whose name holds this word")
    parser.add_argument("--markdown", type=Path, help="write the table into this file as well")
    parser.add_argument("--seed", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    chosen = parser.parse_args()

    from rich.console import Console
    from rich.table import Table

    table = Table(*COLUMNS, title=f"{chosen.rollouts} simulated rollouts each, alpha and beta 5 %")
    rows, started = [], time.perf_counter()
    wanted = [(scenario, rule) for scenario in SCENARIOS if chosen.only in scenario.name for rule in RULES]
    with concurrent.futures.ProcessPoolExecutor(chosen.jobs) as pool:
        for row in pool.map(
            measure, *zip(*wanted, strict=True), *([it] * len(wanted) for it in (chosen.rollouts, chosen.seed))
        ):
            rows.append(row)
            table.add_row(*row.cells(), style="bold" if row.rule == "judge" else "red" if row.broken else "dim")
            if row.rule == list(RULES)[-1]:
                table.add_section()
    Console(width=None if sys.stdout.isatty() else 170).print(table)
    if chosen.markdown:
        chosen.markdown.write_text(markdown(rows))
    broken_rows = [row for row in rows if row.rule == "judge" and row.broken]
    for row in broken_rows:
        print(f"BROKEN: {row.scenario.name}: {row.cells()[2]}, bound 5 %")
    print(f"{len(rows)} rows in {time.perf_counter() - started:.0f} s; the judge broke {len(broken_rows)} bounds")
    return 1 if broken_rows else 0


if __name__ == "__main__":
    sys.exit(main())
