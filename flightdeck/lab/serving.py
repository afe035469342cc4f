"""Stages of the story around serving: replicas behind the gateway, the replay with users and streamer, the drain."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import msgspec

from flightdeck.contracts.prediction import OUTCOME_STREAM
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import ModelRollout
from flightdeck.lab.findings import Findings
from flightdeck.lab.load import PROBE_ID, pace, probe
from flightdeck.lab.replaying import Replay, stand_clock
from flightdeck.lab.rollout.store import Status, Store
from flightdeck.lab.stack import Stack
from flightdeck.lab.users import microseconds, percentile, reason_counts
from flightdeck.progress import Board, Stage
from services.rollout_operator.plan import Phase

DEGRADED_LIMIT = 0.1  # about 2 % are planes and routes without history; a busy machine makes features old besides
LIVE_AUC = 0.7  # July as a whole reaches 0.76; single days lie between 0.6 and 0.8, and few days may be replayed
SERVE_S = 150.0
FRESH_S = 5.0  # a status that is older is of a controller that is gone
WHO = "flightdeck lab"


class Serving:
    """The first champion, and one replay before it."""

    def __init__(self, stack: Stack, findings: Findings, board: Board) -> None:
        self.stack, self.findings, self.board = stack, findings, board
        self.store = Store(stack.layout.rollouts)
        self.probed = 0

    def serve(self, stage: Stage, rollout: ModelRollout, replay: Replay) -> None:
        """The first release of `rollout`, and the clock standing at the start of `replay`, whose users warm up."""
        stand_clock(self.stack, replay.start_utc)
        self.store.apply(rollout, WHO)
        self.stack.start_serving()
        replay.start()
        release = rollout.spec.release
        self.wait_champion(stage, release)
        stage.figure(f"{rollout.spec.replicas} replicas of {release.short} behind {self.stack.urls()['API']}")

    def wait_champion(self, stage: Stage, release: Release) -> None:
        """Until `release` is the champion, with all its replicas ready.

        Raises:
            ServingFailed: it is not in time, or was sent home.
        """
        name, deadline = release.model.name, time.monotonic() + SERVE_S
        while not serves(status := self.store.read_status(name), release):
            state = status.state if status else None
            if time.monotonic() > deadline or (state and state.phase is Phase.ABORTED and state.champion is None):
                why = state.reason if state else "the rollout controller told nothing"
                stage.expect(False, f"the champion does not serve: {why}")
                raise ServingFailed(why)
            stage.tell("replicas load the model")
            self.board.tick(stage)
            time.sleep(0.1)

    def champion(self, name: str) -> Release:
        """What serves now, as the rollout tells it.

        Raises:
            ServingFailed: nothing does.
        """
        status = self.store.read_status(name)
        if status is None or status.state is None or status.state.champion is None:
            raise ServingFailed(f"{name} has no champion")
        return status.state.champion

    def replay(self, stage: Stage, replay: Replay, days: int, seconds: float) -> None:
        """Send the flights, push the features, until the clock stands at the end.

        Args:
            days: at most so many; fewer when the replicas could not answer them all within `seconds`.
        """
        arrivals = replay.arrivals()
        stage.tell("measure what the replicas can take")
        self.probed, capacity = probe(self.stack.ports["gateway"], arrivals[:2000])
        chosen = pace(capacity, len(arrivals) / days, days, seconds)
        self.findings.speed, self.findings.pace = chosen.speed, chosen.why
        end = replay.start_utc + dt.timedelta(days=chosen.days)
        replay.wait_ready(lambda: stage.tell("users and streamer get ready"))
        clock = replay.go(chosen.speed, end)
        self.findings.replayed = (replay.start_utc, end)
        length_s = (end - replay.start_utc).total_seconds() / clock.speed
        deadline = clock.real_start_s + length_s + 60
        while replay.running and time.time() < deadline:
            stage.tell(replay.words(), min(max(time.time() - clock.real_start_s, 0), length_s), length_s)
            self.board.tick(stage)
            time.sleep(0.2)
        replay.finish(max(1.0, deadline - time.time()))
        self._collect(stage, replay, sum(arrival.at_us < microseconds(end) for arrival in arrivals))

    def drain(self, stage: Stage, replay: Replay) -> None:
        """Every logged prediction into the lake, once; joined with the outcomes that had arrived by the clock's end."""
        import redis

        from pipelines import stores
        from pipelines.data.predictions import drain

        clock, lake = replay.clock, stores.lake(self.stack.layout)
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

    def drain_all(self, replay: Replay) -> int:
        """Whatever is left of the prediction log into the lake; returns the rows written."""
        import redis

        from pipelines import stores
        from pipelines.data.predictions import drain

        assert replay.clock is not None
        streams: Any = redis.Redis.from_url(f"redis://127.0.0.1:{self.stack.ports['redis-streams']}/0")
        return drain(streams, stores.lake(self.stack.layout), now=replay.clock.now, consumer="lab").written

    # -- parts ----------------------------------------------------------------------------------------------------

    def _collect(self, stage: Stage, replay: Replay, due: int) -> None:
        findings = self.findings
        outcomes = findings.outcomes = replay.outcomes()
        streamed = findings.streamed = replay.progress()[1]
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


def serves(status: Status | None, release: Release) -> bool:
    """Whether `release` is the champion and all its replicas are ready."""
    state = status.state if status else None
    return (
        status is not None and state is not None and state.champion is not None and state.champion.id == release.id
        and state.phase in (Phase.DONE, Phase.ABORTED) and status.champion_ready >= status.replicas
        and time.time() - status.updated_at_s < FRESH_S
    )  # fmt: skip


class ServingFailed(RuntimeError):
    """The first champion did not come up; the reason is for people."""
