from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError

from flightdeck.contracts.prediction import PREDICTION_STREAM, PredictionRecord
from services.predictor.metrics import Metrics
from services.predictor.prediction_log import PredictionLog


class Stream:
    """A small stand-in for the one call the log makes; refuses the first `refusals` writes."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals
        self.entries: list[list[PredictionRecord]] = []

    async def xadd(self, name: str, fields: dict[str, bytes], *, maxlen: int, approximate: bool) -> None:
        assert (name, approximate) == (PREDICTION_STREAM, True)
        assert maxlen == 1000
        if self.refusals > 0:
            self.refusals -= 1
            raise RedisConnectionError("refused")
        self.entries.append(msgspec.msgpack.decode(fields["r"], type=list[PredictionRecord]))

    @property
    def rows(self) -> list[int]:
        return [record.row for entry in self.entries for record in entry]


def record(row: int) -> PredictionRecord:
    return PredictionRecord(
        request_id="r",
        row=row,
        entity_id="e",
        asked_at_us=1,
        model="late",
        version="1",
        sha256="s",
        feature_service="late_v1",
        features=[1.0, None],
        feature_hash="h",
        score=0.5,
        decision="positive",
        degraded=[],
        ages_s={"weather": None},
        latency_us=10,
        replica="a",
    )


def new_log(
    stream: Any, *, queue_rows: int = 100, batch_rows: int = 10, interval_s: float = 0.01
) -> tuple[PredictionLog, Metrics]:
    metrics = Metrics(model="late", version="1", sha256="s", feature_service="f", image="i")
    return (
        PredictionLog(
            stream, metrics, queue_rows=queue_rows, batch_rows=batch_rows, interval_s=interval_s, stream_entries=1000
        ),
        metrics,
    )


def test_every_row_arrives_in_order_in_batches():
    async def run() -> tuple[Stream, Metrics]:
        stream = Stream()
        log, metrics = new_log(stream)
        log.start()
        for row in range(25):
            log.append(record(row))
        await asyncio.sleep(0.1)
        await log.stop(1.0)
        return stream, metrics

    stream, metrics = asyncio.run(run())
    assert stream.rows == list(range(25))
    assert [len(entry) for entry in stream.entries] == [10, 10, 5]
    assert (metrics.log_written, metrics.log_dropped) == (25, 0)


def test_rows_that_trickle_in_share_a_write_per_interval():
    async def run() -> Stream:
        stream = Stream()
        log, _ = new_log(stream, interval_s=0.1)
        log.start()
        for row in range(60):
            log.append(record(row))
            await asyncio.sleep(0.005)
        await log.stop(1.0)
        return stream

    stream = asyncio.run(run())
    assert stream.rows == list(range(60))
    assert len(stream.entries) <= 12  # 6 full batches, and a rest per 0.1 s


def test_an_outage_shorter_than_the_queue_lasts_loses_nothing():
    async def run() -> tuple[Stream, Metrics]:
        stream = Stream(refusals=3)
        log, metrics = new_log(stream)
        log.start()
        for row in range(30):
            log.append(record(row))
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.5)
        await log.stop(1.0)
        return stream, metrics

    stream, metrics = asyncio.run(run())
    assert stream.rows == list(range(30))
    assert metrics.log_failures == 3
    assert metrics.log_dropped == 0


def test_a_full_queue_drops_the_new_rows_counts_them_and_never_waits():
    async def run() -> tuple[Stream, Metrics, float]:
        stream = Stream()
        log, metrics = new_log(stream, queue_rows=5)
        started_s = time.perf_counter()
        for row in range(8):
            log.append(record(row))
        seconds = time.perf_counter() - started_s
        await log.stop(1.0)
        return stream, metrics, seconds

    stream, metrics, seconds = asyncio.run(run())
    assert stream.rows == [0, 1, 2, 3, 4]
    assert metrics.log_dropped == 3
    assert seconds < 0.1


def test_stopping_with_the_stream_away_gives_up_in_time_and_counts_what_is_lost():
    async def run() -> tuple[int, Metrics, float]:
        log, metrics = new_log(Stream(refusals=10**9))
        log.start()
        for row in range(15):
            log.append(record(row))
        started_s = time.perf_counter()
        lost = await log.stop(0.2)
        return lost, metrics, time.perf_counter() - started_s

    lost, metrics, seconds = asyncio.run(run())
    assert lost == metrics.log_dropped == 15
    assert seconds < 1.0


def test_what_was_queued_before_the_stop_is_written_by_it():
    async def run() -> Stream:
        stream = Stream()
        log, _ = new_log(stream)
        for row in range(12):
            log.append(record(row))
        await log.stop(1.0)
        return stream

    assert asyncio.run(run()).rows == list(range(12))
