"""Stages of the story around serving: replicas behind the gateway, the replay with users and streamer, the drain."""

from __future__ import annotations

import datetime as dt
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from flightdeck.contracts.clock import CLOCK_KEY, ReplayClock
from flightdeck.contracts.release import Release
from flightdeck.lab.findings import Findings
from flightdeck.lab.load import PROBE_ID, pace, probe
from flightdeck.lab.programs import find
from flightdeck.lab.progress import Board, Stage
from flightdeck.lab.stack import Stack
from flightdeck.lab.streamer import OUTCOME_STREAM, StreamPlan, StreamProgress
from flightdeck.lab.users import (
    PLAN_ENV,
    Arrival,
    Plan,
    Progress,
    microseconds,
    percentile,
    read_arrivals,
    read_outcomes,
    reason_counts,
    write_atomically,
)

if TYPE_CHECKING:
    from pipelines.use_case import UseCase

T = TypeVar("T")
USERS = 64
HEAD_START_S = 1.0
DEGRADED_LIMIT = 0.1  # about 2 % are planes and routes without history; a busy machine makes features old besides
LIVE_AUC = 0.7  # July as a whole reaches 0.76; single days lie between 0.6 and 0.8, and few days may be replayed
LOCUSTFILE = Path(__file__).with_name("locustfile.py")


class Serving:
    """Holds the files through which lab, users and streamer talk."""

    def __init__(self, stack: Stack, findings: Findings, board: Board) -> None:
        self.stack, self.findings, self.board = stack, findings, board
        self.folder = stack.layout.run / "replay"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.probed = 0
        self.clock: ReplayClock | None = None

    def serve(self, stage: Stage, release: Release, at_utc: dt.datetime) -> None:
        """Replicas, gateway, and the clock standing at `at_utc`; users and streamer warm up meanwhile."""
        self.set_clock(ReplayClock(at_utc, time.time(), 0.0))
        names = self.stack.start_predictors(release)
        self.stack.start_gateway(names)
        self._start_replayers()
        stage.tell("replicas load the model")
        self.stack.supervisor.wait([*names, "gateway"], 90)
        stage.figure(f"{len(names)} replicas of {release.short} behind {self.stack.urls()['API']}")

    def replay(self, stage: Stage, use_case: UseCase, first: dt.date, days: int, seconds: float) -> None:
        """Send the flights, push the features, until the clock stands at the end."""
        arrivals = read_arrivals(self.folder / "arrivals")
        stage.tell("measure what the replicas can take")
        self.probed, capacity = probe(self.stack.ports["gateway"], arrivals[:2000])
        chosen = pace(capacity, len(arrivals) / days, days, seconds)
        start = use_case.day_start_utc(first)
        end = use_case.day_start_utc(first + dt.timedelta(days=chosen.days))
        self._wait_ready(stage)
        self.clock = ReplayClock(start, time.time() + HEAD_START_S, chosen.speed, end)
        self.set_clock(self.clock)
        write_atomically(self.folder / "go", self.clock.to_mapping())
        self.findings.speed, self.findings.pace, self.findings.replayed = chosen.speed, chosen.why, (start, end)
        self._watch(stage, self.clock)
        self._collect(stage, arrivals, microseconds(end))

    def drain(self, stage: Stage) -> None:
        """Every logged prediction into the lake, once; joined with the outcomes that had arrived by the clock's end."""
        import redis

        from pipelines.data.lake import Lake
        from pipelines.data.predictions import drain

        clock, lake = self.clock, Lake(self.stack.layout.lake)
        assert clock is not None
        streams: Any = redis.Redis.from_url(f"redis://127.0.0.1:{self.stack.ports['redis-streams']}/0")
        expected = self.probed + sum(outcome.ok for outcome in self.findings.outcomes)
        written = repeated = 0
        deadline = time.monotonic() + 15
        while written + repeated < expected and time.monotonic() < deadline:
            done = drain(streams, lake, now=clock.now, consumer="lab")
            written, repeated = written + done.written, repeated + done.repeated
            stage.tell(f"{written:,} of {expected:,} records", written, expected)
            self.board.tick(stage)
            if not done.entries:
                time.sleep(0.3)
        stage.figure(
            f"{written:,} predictions in the lake, {expected:,} answered ({self.probed:,} of them the probe's)"
        )
        # A request that the gateway sent twice after a lost answer is logged twice, with one request id.
        stage.expect(written >= expected, f"{expected - written} answered predictions are not in the lake")
        self.findings.predictions = self._matured(lake, streams)
        matured = self.findings.predictions
        stage.figure(f"{matured.height:,} with an outcome that landed before the clock stopped")
        self._live_quality(stage)

    def set_clock(self, clock: ReplayClock) -> None:
        """Make `clock` everybody's now."""
        import redis

        streams = redis.Redis.from_url(f"redis://127.0.0.1:{self.stack.ports['redis-streams']}/0")
        streams.delete(CLOCK_KEY)
        streams.hset(CLOCK_KEY, mapping=clock.to_mapping())

    # -- parts ----------------------------------------------------------------------------------------------------

    def _start_replayers(self) -> None:
        for name in ("go", "users.ready", "streamer.ready", "users.progress", "streamer.progress", "outcomes"):
            (self.folder / name).unlink(missing_ok=True)
        common = {"go": str(self.folder / "go")}
        users = Plan(
            port=self.stack.ports["gateway"], users=USERS, arrivals=str(self.folder / "arrivals"),
            outcomes=str(self.folder / "outcomes"), progress=str(self.folder / "users.progress"),
            ready=str(self.folder / "users.ready"), **common,
        )  # fmt: skip
        streamer = StreamPlan(
            feed=str(self.folder / "feed"), progress=str(self.folder / "streamer.progress"),
            ready=str(self.folder / "streamer.ready"), **common,
        )  # fmt: skip
        write_atomically(self.folder / "users.json", users)
        write_atomically(self.folder / "streamer.json", streamer)
        self.stack.start_once(
            "streamer", (sys.executable, "-m", "flightdeck.lab.streamer", str(self.folder / "streamer.json"))
        )
        argv = (
            str(find("locust")), "-f", str(LOCUSTFILE), "--headless", "--users", str(USERS), "--spawn-rate", str(USERS),
            "--skip-log-setup", "--only-summary",
        )  # fmt: skip
        self.stack.start_once("users", argv, **{PLAN_ENV: str(self.folder / "users.json")})

    def _wait_ready(self, stage: Stage) -> None:
        waiting = {name: self.folder / f"{name}.ready" for name in ("users", "streamer")}
        deadline = time.monotonic() + 60
        while not all(path.is_file() for path in waiting.values()):
            for name in waiting:
                if not self.stack.supervisor.running(name) or time.monotonic() > deadline:
                    self.stack.supervisor.join(name, 0.1)
            stage.tell("users and streamer get ready")
            time.sleep(0.05)

    def _watch(self, stage: Stage, clock: ReplayClock) -> None:
        assert clock.virtual_end is not None
        length_s = (clock.virtual_end - clock.virtual_start).total_seconds() / clock.speed
        deadline = clock.real_start_s + length_s + 60
        last_sent, last_s, rate = 0, time.time(), 0.0
        supervisor = self.stack.supervisor
        while (supervisor.running("users") or supervisor.running("streamer")) and time.time() < deadline:
            users = _read(self.folder / "users.progress", Progress())
            streamed = _read(self.folder / "streamer.progress", StreamProgress())
            if time.time() - last_s > 1:
                rate, last_sent, last_s = (users.sent - last_sent) / (time.time() - last_s), users.sent, time.time()
            stage.tell(
                f"{clock.now():%d %b %H:%M}Z  {users.answered:,} answers, {rate:,.0f}/s, {users.failed} failed, "
                f"{users.degraded} degraded, p50 {users.p50_ms:.0f} ms, p99 {users.p99_ms:.0f} ms; "
                f"{sum(streamed.rows.values()):,} feature rows pushed, {streamed.outcomes:,} landed",
                min(max(time.time() - clock.real_start_s, 0), length_s), length_s,
            )  # fmt: skip
            self.board.tick(stage)
            time.sleep(0.2)
        for name in ("users", "streamer"):
            supervisor.join(name, max(1.0, deadline - time.time()))

    def _collect(self, stage: Stage, arrivals: list[Arrival], end_us: int) -> None:
        findings = self.findings
        findings.outcomes = read_outcomes(self.folder / "outcomes")
        findings.streamed = _read(self.folder / "streamer.progress", StreamProgress())
        outcomes, streamed = findings.outcomes, findings.streamed
        due = sum(arrival.at_us < end_us for arrival in arrivals)
        failed = [outcome for outcome in outcomes if not outcome.ok]
        degraded = [outcome for outcome in outcomes if outcome.degraded]
        latencies = [outcome.latency_ms for outcome in outcomes]
        service = [outcome.service_ms for outcome in outcomes]
        seconds = max(outcome.done_s for outcome in outcomes) - min(outcome.intended_s for outcome in outcomes)
        start, end = findings.replayed or (None, None)
        assert start and end
        reasons = ", ".join(f"{kind} {count:,}" for kind, count in reason_counts(outcomes).most_common())
        stage.figure(
            f"{(end - start).days} days of flights ({start:%d %b} to {end - dt.timedelta(days=1):%d %b}) at "
            f"{findings.speed:,.0f}x; {findings.pace}",
            f"{len(outcomes):,} requests in {seconds:.0f} s ({len(outcomes) / seconds:,.0f}/s), {len(failed)} failed",
            f"latency from the intended start: p50 {percentile(latencies, 0.5):.1f} ms, p99 "
            f"{percentile(latencies, 0.99):.0f} ms (at the server: {percentile(service, 0.5):.1f}, "
            f"{percentile(service, 0.99):.0f})",
            f"{len(degraded) / len(outcomes):.2%} degraded: {reasons or 'none'}",
            f"streamed: {streamed.snapshots:,} congestion snapshots ({streamed.skipped} overtaken), "
            f"{sum(streamed.rows.values()):,} rows, {streamed.outcomes:,} outcomes; busy {streamed.busy_share:.0%}",
        )
        stage.expect(len(outcomes) == due, f"{due - len(outcomes)} of {due} requests were not sent")
        stage.expect(not failed, f"{len(failed)} requests failed, the first with {failed[0].error if failed else ''}")
        stage.expect(
            len(degraded) <= DEGRADED_LIMIT * len(outcomes),
            f"{len(degraded) / len(outcomes):.1%} of the answers were degraded, at most {DEGRADED_LIMIT:.0%} expected",
        )
        stage.expect(not streamed.errors, f"the streamer met {streamed.errors} errors: {streamed.last_error}")

    def _matured(self, lake: Any, streams: Any) -> Any:
        """Predictions of the users with the labels that the outcome stream had brought."""
        import polars as pl

        rows: list[tuple[int, str, int, float | None]] = []
        for _, fields in streams.xrange(OUTCOME_STREAM):
            rows += msgspec.msgpack.decode(fields[b"r"])
        labels = pl.DataFrame(
            rows, schema={"known_us": pl.Int64, "entity_id": pl.String, "label": pl.Int8, "delay": pl.Float32},
            orient="row",
        )  # fmt: skip
        found = pl.from_arrow(lake.read("predictions"))
        assert isinstance(found, pl.DataFrame)
        asked = found.filter(~pl.col("request_id").str.starts_with(PROBE_ID)).unique("entity_id", keep="first")
        return asked.join(labels.unique("entity_id"), on="entity_id", how="inner").sort("asked_at_utc")

    def _live_quality(self, stage: Stage, expected: float = LIVE_AUC) -> None:
        from flightdeck.lab.quality import auc

        matured = self.findings.predictions
        assert matured is not None
        value = auc(matured["label"].to_numpy(), matured["score"].to_numpy()) if matured.height else None
        late, mean = (float(matured[name].to_numpy().mean()) if matured.height else 0.0 for name in ("label", "score"))
        stage.figure(f"live AUC {value or float('nan'):.3f}, mean score {mean:.3f}, late share {late:.3f}")
        stage.expect(value is not None and value >= expected, f"live AUC {value}, expected {expected} at least")


def _read(path: Path, default: T) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type(default))
    except OSError:
        return default
