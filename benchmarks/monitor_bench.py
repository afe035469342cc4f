"""The monitor on clean and on spoilt days: false alarms a month, and what each planted fault is called, and when.

Clean months are whole days drawn from the training window of 2013 (each from the days of its weekday, 8 January to 31
August): stationary by construction. Each day is scored by a model that has not seen its week. Three settings:

* `window`: what is usual is measured on the whole window, and the days are drawn from it;
* `held out`: it is measured on a random half of the days, and the months are drawn from the other half: days that the
  monitor never saw;
* `21 days`: as above, and the outcomes' promise comes from 21 days only, as in a model's holdout.

Faults begin after four clean weeks of the setting `held out` and stay for two weeks, slow ones for four. A fault is
named rightly when its first alarm has the right kind, cause and feature; what else alarms beside it is counted as well.
At last the real autumn, as it came: reported, not scored.

    python benchmarks/monitor_bench.py [--state FOLDER] [--months 200] [--repeats 10] [--markdown FILE]

Exits non-zero when a setting has more than one false alarm a month, or a fault is not named rightly in nine of ten
repeats.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import datetime as dt
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # small matrices: more threads wait for each other
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import polars as pl  # noqa: E402
from monitor_faults import Asked, Fault, asked, faults  # noqa: E402
from monitor_world import Day, World, prepare, world  # noqa: E402

from flightdeck.contracts.alarm import Status  # noqa: E402
from pipelines.data.labels import Maturity  # noqa: E402
from pipelines.monitoring.baseline import views_of  # noqa: E402
from pipelines.monitoring.concept import DayQuality, Promise, concept, day_quality, promise  # noqa: E402
from pipelines.monitoring.feedback import SPAN_DAYS, feedback  # noqa: E402
from pipelines.monitoring.finding import ANSWERS, Finding, Found, explained  # noqa: E402
from pipelines.monitoring.inputs import inputs  # noqa: E402
from pipelines.monitoring.profile import DayProfile, Vectors  # noqa: E402
from pipelines.monitoring.skew import Compared, skew  # noqa: E402
from pipelines.monitoring.volume import volume  # noqa: E402
from pipelines.monitoring.watch import Watch, watch  # noqa: E402

MONTH, BEFORE = 30, 14  # days
SAMPLE = 300  # answers recomputed a day
FIRST_DAY = dt.date(2020, 1, 6).toordinal()  # a Monday: simulated days have dates of no flight


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is usual, measured on some days, and the days that months are drawn from."""

    name: str
    watch: Watch
    promise: Promise
    drawn: Sequence[Day]


@dataclasses.dataclass
class Served:
    """One simulated day, profiled: everything that the checks of later days need of it."""

    day: int
    rows: Vectors
    profile: DayProfile
    quality: list[DayQuality]
    outcomes: pl.DataFrame


class Bench:
    """Draws months and looks at them day by day, as the monitor does."""

    def __init__(self, of: World) -> None:
        self.world = of
        self.names = tuple(item.name for item in of.manifest.features)
        self.views = views_of(of.manifest)
        self.stored = {item.view for item in of.manifest.features if item.source == "stored"}
        self.defaults = np.array([item.default for item in of.manifest.features], np.float32)
        self._clean: dict[tuple[str, int], Served] = {}

    def vectors(self, days: Sequence[Day]) -> Vectors:
        """Rows of the days with their scores."""
        return Vectors(
            (*self.names, ANSWERS),
            np.concatenate([np.column_stack([item.values, item.score.astype(np.float32)]) for item in days]),
            np.concatenate([np.full(len(item.hour), item.day) for item in days]),
            np.concatenate([item.hour for item in days]),
        )

    def quality(self, days: Sequence[Day]) -> list[DayQuality]:
        """Of clean days."""
        frames = [outcomes(item.day, item.score, item.label, None) for item in days]
        return day_quality(pl.concat(frames), self.world.spec.task)

    def usual(self, days: Sequence[Day]) -> Watch:
        """Measured on these days."""
        ignored = self.world.spec.estimator.ignore
        return watch(self.vectors(days), self.views, self.world.importances, ignored=ignored)

    def settings(self, seed: int = 1) -> list[Setting]:
        """The three."""
        window = self.world.window
        order = np.random.default_rng(seed).permutation(len(window))
        half = [window[at] for at in sorted(order[: len(window) // 2])]
        other = [window[at] for at in sorted(order[len(window) // 2 :])]
        task = self.world.spec.task
        of_half = self.usual(half)
        return [
            Setting("window", self.usual(window), promise(self.quality(window), task), window),
            Setting("held out", of_half, promise(self.quality(half), task), other),
            Setting("21 days", of_half, promise(self.quality(half[::5][:21]), task), other),
        ]

    def draw(self, of: Setting, generator: np.random.Generator, days: int) -> list[Day]:
        """Whole days, each from those of its weekday."""
        by_weekday = [[item for item in of.drawn if (item.day + 6) % 7 == weekday] for weekday in range(7)]
        return [by_weekday[at % 7][generator.integers(len(by_weekday[at % 7]))] for at in range(days)]

    def clean(self, of: Setting, source: Day, day: int) -> Served:
        """A clean day under another date; profiled once per source day."""
        key = of.name, source.day
        if key not in self._clean:
            rows = self.vectors([source])
            table = outcomes(source.day, source.score, source.label, None)
            self._clean[key] = Served(
                source.day, rows, of.watch.reference.profile(rows), day_quality(table, self.world.spec.task), table
            )
        found = self._clean[key]
        return Served(
            day, dataclasses.replace(found.rows, day=np.full(len(found.rows.day), day)),
            dataclasses.replace(found.profile, day=day), [dataclasses.replace(item, day=day) for item in found.quality],
            found.outcomes,
        )  # fmt: skip

    def spoilt(
        self, of: Setting, fault: Fault, source: Day, day: int, *, since: int, seed: int
    ) -> tuple[Served, Found]:
        """A day with the fault in it, and what the recomputation of a sample says."""
        state = asked(
            source, self.names, self.views, self.defaults, stored=self.stored, since=since, seed=[seed, day]
        )  # fmt: skip
        fault.plant(state)
        kept = state.kept
        changed = (state.served != source.values).any(axis=1)
        if changed.any():
            state.score[changed] = self.world.model.score(np.ascontiguousarray(state.served[changed])).astype(float)
        rows = self.vectors([Day(day, source.hour[kept], state.served[kept], state.score[kept], state.label[kept])])
        table = outcomes(day, state.score[kept], state.label[kept], state.lost[kept])
        matured = table.filter(pl.col("maturity") == Maturity.MATURED.value)
        served = Served(day, rows, of.watch.reference.profile(rows), day_quality(matured, self.world.spec.task), table)
        return served, skew(self.compared(state), dt.date.fromordinal(day))

    def compared(self, state: Asked) -> Compared:
        """A sample of the kept rows beside the truth."""
        at = np.flatnonzero(state.kept)
        at = np.sort(state.generator.choice(at, min(SAMPLE, len(at)), replace=False))
        most = {view: policy.max_age_s for view, policy in self.world.manifest.views.items()}
        return Compared(
            self.names, {name: self.views[name] for name in self.names},
            frozenset(name for name in self.names if self.views[name] in self.stored),
            state.served[at].astype(float), state.right[at].astype(float), self.defaults.astype(float),
            {view: age[at] for view, age in state.age_s.items()}, {view: lag[at] for view, lag in state.lag_s.items()},
            most,
        )  # fmt: skip

    def look(self, of: Setting, days: Sequence[Served], skewed: Found | None = None) -> tuple[list[Finding], Found]:
        """Everything the monitor does on the last of these days; outcomes are known of the days before."""
        last = days[-1]
        found = inputs(of.watch, last.rows, [item.profile for item in days[-SPAN_DAYS:]])
        found = found.add(volume(of.watch, last.day, {item.day: item.profile.rows for item in days}))
        found = found.add(concept(of.promise, [one for item in days[:-1] for one in item.quality], unit="probability"))
        if skewed is not None:
            found = found.add(skewed)
        if len(days) > 10 and (len(days) % 7 == 0 or skewed is not None):  # once a week where nothing is planted
            recent = [
                item.outcomes.with_columns(day_local=pl.lit(dt.date.fromordinal(item.day)))
                for item in days[-SPAN_DAYS:-1]
            ]
            found = found.add(feedback(pl.concat(recent), decision_threshold=self.world.spec.decision_threshold))
        return explained(found.findings), found


def outcomes(day: int, score: np.ndarray, label: np.ndarray, lost: np.ndarray | None) -> pl.DataFrame:
    """As `with_labels` would give them."""
    gone = np.zeros(len(label), dtype=bool) if lost is None else lost
    return pl.DataFrame({"score": score, "value": np.where(gone, np.nan, label), "_lost": gone}).select(
        "score", pl.col("value").fill_nan(None), day_local=pl.lit(dt.date.fromordinal(day)),
        maturity=pl.when("_lost").then(pl.lit(Maturity.LOST.value)).otherwise(pl.lit(Maturity.MATURED.value)),
    )  # fmt: skip


def name_of(finding: Finding) -> str:
    """Kind, cause and subject."""
    cause = f":{finding.cause.value}" if finding.cause else ""
    return f"{finding.kind.value}{cause} {finding.subject}"


def false_alarms(bench: Bench, of: Setting, months: int) -> tuple[list[int], collections.Counter[str]]:
    """New alarms of each simulated month, and which they were. Two weeks before each month are its history."""
    counts, which = [], collections.Counter()
    for month in range(months):
        generator = np.random.default_rng([7, month])
        sources = bench.draw(of, generator, BEFORE + MONTH)
        days = [bench.clean(of, source, FIRST_DAY + at) for at, source in enumerate(sources)]
        known: set[str] = set()
        new = 0
        for at in range(BEFORE, len(days)):
            now = {name_of(item) for item in bench.look(of, days[: at + 1])[0]}
            new += len(now - known)
            which.update(now - known)
            known = now
        counts.append(new)
    return counts, which


@dataclasses.dataclass(frozen=True)
class Seen:
    """How one planted fault ended: its first alarm, after how many days and answers, and what else alarmed."""

    right: bool
    days: int | None
    rows: int
    first: str
    beside: tuple[str, ...]


def planted(bench: Bench, of: Setting, fault: Fault, repeat: int) -> Seen:
    """A fault after four clean weeks."""
    generator = np.random.default_rng([11, repeat])
    sources = bench.draw(of, generator, 2 * BEFORE + fault.days)
    days = [bench.clean(of, source, FIRST_DAY + at) for at, source in enumerate(sources[: 2 * BEFORE])]
    before = {name_of(item) for item in bench.look(of, days)[0]}
    rows, first, after, beside = 0, "", None, set()
    right = not fault.expected
    for since, source in enumerate(sources[2 * BEFORE :]):
        day = FIRST_DAY + 2 * BEFORE + since
        served, skewed = bench.spoilt(of, fault, source, day, since=since, seed=repeat)
        days.append(served)
        rows += len(served.rows.day)
        found = [item for item in bench.look(of, days, skewed)[0] if name_of(item) not in before]
        matching = [item for item in found if _matches(fault, item)]
        beside |= {name_of(item) for item in found if item not in matching}
        if found and not first:
            first, after = name_of((matching or found)[0]), since + 1
            right = bool(matching)
        if first:
            break
    return Seen(right, after, rows, first, tuple(sorted(beside)))


def _matches(fault: Fault, finding: Finding) -> bool:
    cause = finding.cause.value if finding.cause else ""
    named = not fault.features or bool(set(fault.features) & set(finding.features))
    return (finding.kind.value, cause) in fault.expected and named


def real_autumn(bench: Bench, of: Setting) -> Iterator[tuple[str, collections.Counter[str], int]]:
    """Per month the alarms of the days as they came, with the promise of the model's own holdout."""
    own = dataclasses.replace(of, promise=promise(bench.quality(bench.world.holdout), bench.world.spec.task))
    days, known = [], set()
    by_month: dict[str, collections.Counter[str]] = {}
    reported: collections.Counter[str] = collections.Counter()
    for source in [*bench.world.window[-SPAN_DAYS:], *bench.world.later]:
        rows = bench.vectors([source])
        table = outcomes(source.day, source.score, source.label, None)
        days.append(
            Served(
                source.day, rows, own.watch.reference.profile(rows), day_quality(table, bench.world.spec.task), table
            )
        )
        if source.day < bench.world.later[0].day:
            continue
        findings, found = bench.look(own, days)
        now = {name_of(item) for item in findings}
        month = f"{dt.date.fromordinal(source.day):%Y-%m}"
        by_month.setdefault(month, collections.Counter()).update(now - known)
        reported[month] += any(check.status is Status.REPORTED for check in found.checks)
        known = now
    for month, counts in by_month.items():
        yield month, counts, reported[month]


def interval(counts: Sequence[int]) -> tuple[float, float, float]:
    """Mean a month with a 95 % interval (normal, over months)."""
    mean = float(np.mean(counts))
    error = 1.96 * float(np.std(counts, ddof=1)) / np.sqrt(len(counts)) if len(counts) > 1 else float("inf")
    return mean, max(0.0, mean - error), mean + error


def main() -> int:
    """Simulate, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--state", type=Path, help="a state folder with the whole year ingested, built and exported")
    parser.add_argument("--months", type=int, default=200, help="clean months per setting")
    parser.add_argument("--repeats", type=int, default=10, help="of each fault")
    parser.add_argument("--only", default="", help="only faults whose name holds this word")
    parser.add_argument("--markdown", type=Path, help="write the tables here as well")
    options = parser.parse_args()
    started = time.perf_counter()

    def say(words: str) -> None:
        print(f"[{time.perf_counter() - started:5.0f} s] {words}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        state = (options.state or Path(temporary)).absolute()
        os.environ["FLIGHTDECK_STATE"] = str(state)
        if not options.state:
            say("ingest and build the year")
            prepare(state)
        bench = Bench(world(state, say))
        say("measure what is usual")
        settings = bench.settings()
        lines, failed = report(bench, settings, options, say)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    return 1 if failed else 0


def report(bench: Bench, settings: list[Setting], options: argparse.Namespace, say: object) -> tuple[list[str], bool]:
    """The tables as Markdown, and whether a limit was missed."""
    assert callable(say)
    failed = False
    season = settings[0].watch.season
    lines = [f"Season-bound by measure: {', '.join(sorted(season)) or 'none'}.", ""]
    lines += [
        "| clean days | months | false alarms a month (95 %) | months without any | which, most often |",
        "| --- | --- | --- | --- | --- |",
    ]
    for setting in settings if not options.only else []:
        say(f"clean months, {setting.name}")
        counts, which = false_alarms(bench, setting, options.months)
        mean, low, high = interval(counts)
        failed |= mean > 1
        often = ", ".join(f"{name} {count}" for name, count in which.most_common(4)) or "none"
        quiet = np.mean([count == 0 for count in counts])
        lines.append(
            f"| {setting.name} | {len(counts)} | {mean:.2f} ({low:.2f} to {high:.2f}) | {quiet:.0%} | {often} |"
        )
    lines += [
        "",
        "| fault | named rightly | after days, median (most) | answers, median | first alarm | beside it |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for fault in faults():
        if options.only not in fault.name:
            continue
        say(fault.name)
        seen = [planted(bench, settings[1], fault, repeat) for repeat in range(options.repeats)]
        right = sum(item.right for item in seen)
        failed |= fault.scored and right < 0.9 * len(seen)
        told = [item for item in seen if item.days is not None]
        first = collections.Counter(item.first or "none" for item in seen).most_common(1)[0][0]
        beside = collections.Counter(name for item in seen for name in item.beside).most_common(2)
        after = f"{np.median([item.days for item in told]):g} ({max(item.days for item in told)})" if told else "-"
        answers = f"{np.median([item.rows for item in told]):,.0f}" if told else "-"
        words = ", ".join(f"{name} {count}" for name, count in beside) or "nothing"
        named = f"{right} of {len(seen)}" + ("" if fault.scored else ", not scored")
        lines.append(f"| {fault.name} | {named} | {after} | {answers} | {first} | {words} |")
    if not options.only:
        say("the real autumn")
        lines += [
            "",
            "| real month | new alarms | which | days with season-bound inputs reported |",
            "| --- | --- | --- | --- |",
        ]
        for month, counts, reported in real_autumn(bench, settings[0]):
            names = ", ".join(f"{name} {count}" for name, count in counts.most_common(8)) or "none"
            lines.append(f"| {month} | {sum(counts.values())} | {names} | {reported} |")
    return lines, failed


if __name__ == "__main__":
    sys.exit(main())
