"""One ingestor in this process, on a real Redis and Feast, that dies or loses its lease at a stage of our choice."""

from __future__ import annotations

import datetime as dt
import threading

import numpy as np
import pytest

from feature_repo.streaming import Departed, FlightFold
from flightdeck.contracts.clock import ReplayClock
from flightdeck.contracts.events import EVENT_FIELD, EVENT_STREAM, SNAPSHOT_STREAM, microseconds
from pipelines.data.publish import publish
from pipelines.flights.events import events_between
from services.ingestor.ingestor import Ingestor
from services.ingestor.metrics import Metrics
from services.ingestor.online import FeastOnline, OnlineStoreUnusable, open_store
from services.ingestor.pushing import Pusher
from services.ingestor.settings import IngestorSettings
from services.ingestor.streams import GROUP, LEASE_KEY, Streams
from tests.integration.ingestor.conftest import ROOT, accepted, is_done, replay, served, snapshots, until
from tests.unit.ingestor.told import recomputed

pytestmark = [pytest.mark.xdist_group("feast"), pytest.mark.timeout(600)]  # Feast's import on a busy machine

FROM = dt.datetime(2013, 7, 1, 9, tzinfo=dt.UTC)
UNTIL = FROM + dt.timedelta(hours=12)
TOLD = list(events_between(FROM, UNTIL))
EVENTS = [FlightFold().decode(content) for _, content in TOLD]
CONFIG = ROOT / "feature_repo" / "feature_store.yaml"


class Killed(BaseException):
    """As a SIGKILL: nothing after it runs."""


class Dies(Streams):
    """Dies at its n-th pass of a stage."""

    def __init__(self, url: str, stage: str, passes: int) -> None:
        super().__init__(url, consumer="dies", lease_s=60, dead_letters_kept=100)
        self._stage, self._passes = stage, passes

    def _at(self, stage: str) -> None:
        self._passes -= stage == self._stage
        if self._passes <= 0:
            raise Killed

    def claim(self, count, idle_s):
        found = super().claim(count, idle_s)
        self._at("claimed")
        return found

    def read(self, count, block_s):
        found = super().read(count, block_s)
        self._at("read")
        return found

    def commit(self, taken, kept):
        self._at("decided")
        super().commit(taken, kept)
        self._at("committed")


@pytest.fixture
def settings() -> IngestorSettings:
    return IngestorSettings(batch_events=60, flush_interval_s=0.005, settle_s=0.05)


@pytest.fixture
def store(layout, online):
    return open_store(CONFIG, registry=f"sqlite:///{layout.feast_registry}", online_redis=online.address)


@pytest.fixture
def ingestor(store, settings):
    """`ingestor(streams)`: all parts but the process."""

    def make(streams: Streams) -> tuple[Ingestor, Metrics]:
        metrics = Metrics(FlightFold.kinds, FlightFold.views)
        pusher = Pusher(FeastOnline(store, FlightFold.views), metrics)
        pusher.start()
        return Ingestor(FlightFold, streams, pusher, metrics, settings), metrics

    return make


def connect(streams, consumer: str = "lives") -> Streams:
    return Streams(streams.url, consumer=consumer, lease_s=60, dead_letters_kept=100)


def run_to_the_end(streams, made: Ingestor) -> None:
    stop = threading.Event()
    worker = threading.Thread(target=made.run, args=(stop,))
    worker.start()
    try:
        until(lambda: is_done(streams), "all events are done", 60)
    finally:
        stop.set()
        worker.join()


def assert_each_event_counts_once(streams) -> None:
    assert sorted(event.id for event in accepted(streams)) == sorted(event.id for event in EVENTS)
    newest = {(row.view, row.keys["origin"]): row for row in snapshots(streams)}
    for key, features in recomputed(EVENTS, max(row.at_us for row in newest.values())).items():
        assert newest[key].features == features
    made = [(row.view, row.keys["origin"], row.at_us, row.revision) for row in snapshots(streams)]
    assert len(made) == len(set(made)), "a row made twice"
    assert streams.client.xpending(EVENT_STREAM, GROUP)["pending"] == 0


def tell(streams) -> None:
    replay(streams, ReplayClock(UNTIL, 0.0, 0.0))
    publish(streams.client, iter(TOLD), name="test", now_us=lambda: microseconds(UNTIL))


@pytest.mark.parametrize(
    "deaths",
    [
        [("read", 2), ("claimed", 1), ("claimed", 2), ("read", 1), ("claimed", 1)],
        [("read", passes) for passes in (1, 2, 4, 3, 1, 1)],
        [("decided", passes) for passes in (1, 2, 4, 3, 1, 1)],
        [("committed", passes) for passes in (1, 2, 4, 3, 1, 1)],
    ],
    ids=["claimed", "read", "decided", "committed"],
)
def test_death_at_any_stage_loses_no_event_and_counts_none_twice(streams, ingestor, deaths):
    tell(streams)
    for stage, passes in deaths:
        dying, _ = ingestor(Dies(streams.url, stage, passes))
        with pytest.raises(Killed):
            dying.run(threading.Event())
        streams.client.delete(LEASE_KEY)  # as if it had run out
    assert streams.client.xlen(EVENT_STREAM) > 0, "it died before it was done"
    alive, _ = ingestor(connect(streams))
    run_to_the_end(streams, alive)
    assert_each_event_counts_once(streams)


def test_one_that_lost_its_lease_while_it_stood_still_writes_nothing(streams, ingestor):
    class StandsStill(Streams):
        reached, goes_on = threading.Event(), threading.Event()

        def commit(self, taken, kept):
            if taken.entries:
                self.reached.set()
                assert self.goes_on.wait(60)
            super().commit(taken, kept)

    tell(streams)
    still, metrics = ingestor(StandsStill(streams.url, consumer="still", lease_s=60, dead_letters_kept=100))
    stop = threading.Event()
    worker = threading.Thread(target=still.run, args=(stop,))
    worker.start()
    try:
        assert StandsStill.reached.wait(60)
        streams.client.delete(LEASE_KEY)  # as if it had run out
        other, _ = ingestor(connect(streams, "other"))
        other_stop = threading.Event()
        other_worker = threading.Thread(target=other.run, args=(other_stop,))
        other_worker.start()
        until(lambda: is_done(streams), "the other one has done all, the batch of the first among it", 60)
        StandsStill.goes_on.set()
        until(lambda: metrics.restarts == 1, "the first one has noticed", 20)
        other_stop.set()
        other_worker.join()
    finally:
        stop.set()
        StandsStill.goes_on.set()
        worker.join()
    assert_each_event_counts_once(streams)


def test_events_that_one_without_a_lease_took_are_finished_by_the_one_that_works(streams, ingestor, settings):
    tell(streams)
    taken = streams.client.xgroup_create(EVENT_STREAM, GROUP, id="0") and streams.client.xreadgroup(
        GROUP, "went away", {EVENT_STREAM: ">"}, count=10
    )
    assert len(taken[0][1]) == 10
    made, _ = ingestor(connect(streams))
    run_to_the_end(streams, made)
    assert_each_event_counts_once(streams)


def test_a_full_streams_server_is_waited_for(streams, ingestor):
    tell(streams)
    streams.client.config_set("maxmemory", 1)  # without eviction: every write that grows is refused
    made, metrics = ingestor(connect(streams))
    stop = threading.Event()
    worker = threading.Thread(target=made.run, args=(stop,))
    worker.start()
    try:
        until(lambda: not metrics.streams_up, "it has noticed", 20)
        assert not streams.client.exists(SNAPSHOT_STREAM)
        streams.client.config_set("maxmemory", 0)
        until(lambda: is_done(streams), "all events are done", 60)
    finally:
        streams.client.config_set("maxmemory", 0)
        stop.set()
        worker.join()
    assert_each_event_counts_once(streams)


def test_a_late_event_is_served_at_once(streams, online, layout, ingestor):
    half = FROM + dt.timedelta(hours=6)
    last_us = microseconds(half) - 1  # the newest snapshot is half an hour before
    known = [(event, content) for event, (at_us, content) in zip(EVENTS, TOLD, strict=True) if at_us <= last_us]
    late, late_content = next(
        (event, content)
        for event, content in known
        if isinstance(event, Departed) and event.origin == "EWR" and event.at_us > last_us - 80 * 60 * 1_000_000
    )
    replay(streams, ReplayClock(half, 0.0, 0.0))
    made, _ = ingestor(connect(streams))
    stop = threading.Event()
    worker = threading.Thread(target=made.run, args=(stop,))
    worker.start()
    try:
        contents = [(event.at_us, content) for event, content in known if event is not late]
        publish(streams.client, iter(contents), name="t", now_us=lambda: last_us)
        until(lambda: is_done(streams), "all but one are done", 60)
        wanted = recomputed([event for event, _ in known], snapshots(streams)[-1].at_us)["congestion", "EWR"]
        before = until(lambda: served(layout, online)["congestion", "EWR"]["departures_1h"][0], "it is served", 60)
        assert before == wanted["departures_1h"] - 1
        streams.client.xadd(EVENT_STREAM, {EVENT_FIELD: late_content})
        now = until(
            lambda: (row := served(layout, online)["congestion", "EWR"])["departures_1h"][0] > before and row, "", 60
        )
    finally:
        stop.set()
        worker.join()
    assert {name: value for name, (value, _) in now.items()} == {
        name: np.float32(value) for name, value in wanted.items()
    }


def test_a_clock_that_is_set_after_the_start_dates_nothing_ahead(streams, ingestor):
    made, _ = ingestor(connect(streams))  # at wall time, years after the events
    stop = threading.Event()
    worker = threading.Thread(target=made.run, args=(stop,))
    worker.start()
    try:
        until(lambda: streams.client.exists(LEASE_KEY), "it works", 20)
        threading.Event().wait(0.5)
        half = FROM + dt.timedelta(hours=6)
        replay(streams, ReplayClock(half, 0.0, 0.0))
        now_us = microseconds(half)
        publish(streams.client, (item for item in TOLD if item[0] <= now_us), name="t", now_us=lambda: now_us)
        until(lambda: is_done(streams), "all events are done", 60)
        threading.Event().wait(0.5)
    finally:
        stop.set()
        worker.join()
    assert max(row.at_us for row in snapshots(streams)) < now_us


def test_a_configuration_that_is_none_is_told(tmp_path, monkeypatch):
    with pytest.raises(OnlineStoreUnusable, match="no file"):
        open_store(tmp_path / "no file")
    monkeypatch.delenv("FLIGHTDECK_FEAST_REGISTRY", raising=False)
    with pytest.raises(OnlineStoreUnusable, match="FLIGHTDECK_FEAST_REGISTRY"):
        open_store(ROOT / "feature_repo" / "feature_store_cluster.yaml", online_redis="127.0.0.1:1")
