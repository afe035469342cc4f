"""Ingestor processes on real days of July: killed, starved, disturbed; then features are recomputed from all events."""

from __future__ import annotations

import datetime as dt
import random
import threading
import time

import numpy as np
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_repo.streaming import FlightFold
from flightdeck.contracts.clock import ReplayClock
from flightdeck.contracts.events import (
    DEAD_LETTER_STREAM,
    EVENT_FIELD,
    EVENT_STREAM,
    Effect,
    microseconds,
    time_of,
)
from pipelines.data.publish import publish
from pipelines.flights.events import events_between
from tests.integration.ingestor.conftest import WITHIN_S, accepted, is_done, replay, served, snapshots, until
from tests.unit.ingestor.told import recomputed

# A process takes seconds to import Feast, on a busy machine a minute.
pytestmark = [pytest.mark.xdist_group("feast"), pytest.mark.slow, pytest.mark.timeout(900)]

FROM = dt.datetime(2013, 7, 1, 6, tzinfo=dt.UTC)
UNTIL = FROM + dt.timedelta(days=2)
LATER = ReplayClock(UNTIL, 0.0, 0.0)  # a clock that stands at the end: all is due at once


TOLD = list(events_between(FROM, UNTIL))
EVENTS = [FlightFold().decode(content) for _, content in TOLD]


def add(streams, contents) -> None:
    with streams.client.pipeline(transaction=True) as both:
        for content in contents:
            both.xadd(EVENT_STREAM, {EVENT_FIELD: content})
        both.execute()


def assert_all_is_as_recomputed(streams, online, layout, events) -> None:
    """Each event once; the newest rows, on the stream and served by Feast, are those of all events together."""
    taken = accepted(streams)
    ids = [event.id for event in taken if event.effect is not Effect.EXPIRED]
    assert len(ids) == len(set(ids)), "an event counted twice"
    assert {event.id for event in taken} == {event.id for event in events}
    newest = {}
    for row in snapshots(streams):
        newest[row.view, row.keys["origin"]] = row
    at_us = max(row.at_us for row in newest.values())
    assert at_us >= max(event.at_us for event in events) - FlightFold.period // dt.timedelta(microseconds=1)
    wanted = recomputed(events, at_us)
    assert {key: row.features for key, row in newest.items()} == wanted

    def same() -> bool:
        found = served(layout, online)
        return all(
            found[key][name] == (np.float32(value), time_of(newest[key].at_us))  # Feast tells whole seconds
            for key, row in wanted.items()
            for name, value in row.items()
        )

    until(same, "Feast serves the newest rows")


def test_each_snapshot_of_two_days_is_the_recomputed_one_and_sigterm_ends_clean(streams, online, layout, start):
    replay(streams, LATER)
    process = start(batch_events=200)
    until(process.works, "the ingestor works")
    publish(streams.client, iter(TOLD), name="test", now_us=lambda: microseconds(UNTIL))
    until(lambda: is_done(streams), "all events are done")
    assert_all_is_as_recomputed(streams, online, layout, EVENTS)
    rows = snapshots(streams)
    assert {row.revision for row in rows} == {0}
    assert len({row.at_us for row in rows}) == 2 * 48
    for at_us in sorted({row.at_us for row in rows})[::7]:
        made = {(row.view, row.keys["origin"]): row.features for row in rows if row.at_us == at_us}
        assert made == recomputed(EVENTS, at_us)
    assert process.metric("ingestor_events_total") == len(EVENTS)
    assert process.metric("ingestor_freshness_seconds_count") > 0
    assert process.metric("ingestor_pushed_rows_total") > 0
    assert process.end() == 0, process.log.read_text()
    assert "all that was read is committed" in process.log.read_text()
    assert not streams.client.exists("flightdeck:ingestor:lease")


def test_killed_again_and_again_under_copies_disorder_and_poison_it_loses_and_repeats_nothing(
    streams, online, layout, start
):
    replay(streams, LATER)
    chance = random.Random(8)
    arriving = [
        (place + chance.uniform(0, 200), copy, content)  # out of order by up to 200 events: two hours and more
        for place, (_, content) in enumerate(TOLD)
        for copy in range(chance.choice([1, 1, 1, 2]))
    ]
    arriving += [(chance.uniform(0, len(TOLD)), -1, b"poison \xff %d" % number) for number in range(20)]
    contents = [content for *_, content in sorted(arriving)]
    poison = [content for content in contents if content.startswith(b"poison")]

    def tell() -> None:
        for place in range(0, len(contents), 50):
            add(streams, contents[place : place + 50])
            time.sleep(0.02)

    waiting = [start(batch_events=40, flush_interval_s=0.01) for _ in range(3)]
    for process in waiting:
        until(lambda process=process: process.page("/readyz"), "it works or stands by")
    teller = threading.Thread(target=tell)
    teller.start()
    for _ in range(2):
        [working] = until(lambda: [item for item in waiting if item.works()], "one works")
        time.sleep(chance.uniform(0.1, 0.5))
        assert sum(item.metric("ingestor_leads") for item in waiting) == 1.0, "the others stand by"
        working.kill()
        waiting.remove(working)
    [process] = waiting
    teller.join()
    until(lambda: is_done(streams), "all events are done")
    assert_all_is_as_recomputed(streams, online, layout, EVENTS)
    letters = [letter for _, letter in streams.client.xrange(DEAD_LETTER_STREAM)]
    assert [letter[b"original:e"] for letter in letters] == poison, "each once, to the byte"
    assert process.metric("ingestor_dead_letters_total") > 0
    assert process.metric("ingestor_duplicate_events_total") > 0


def test_a_streams_server_that_dies_and_comes_back_loses_nothing(streams, online, layout, start):
    replay(streams, LATER)
    process = start(batch_events=50, flush_interval_s=0.02)
    until(process.works, "the ingestor works")
    done, reached_us = [], [TOLD[len(TOLD) // 2][0]]
    client = redis.Redis(port=streams.port, socket_timeout=5, retry=Retry(NoBackoff(), 0))
    publisher = threading.Thread(
        target=lambda: done.append(publish(client, iter(TOLD), name="test", batch=40, now_us=lambda: reached_us[0]))
    )
    publisher.start()
    until(lambda: process.metric("ingestor_events_total") > 100, "some events are done")
    streams.kill()
    reached_us[0] = microseconds(UNTIL)  # the rest is told while the server is away
    until(lambda: process.metric("ingestor_streams_up") == 0.0, "it has noticed")
    time.sleep(2)
    assert process.process.poll() is None
    streams.start()
    until(lambda: done and is_done(streams), "all events are done")
    publisher.join()
    client.close()
    assert done[0].written == len(TOLD)
    assert done[0].failures > 0
    assert_all_is_as_recomputed(streams, online, layout, EVENTS)
    assert process.metric("ingestor_duplicate_events_total") == 0, "the publisher repeats nothing either"
    assert process.metric("ingestor_restarts_total") >= 1


def test_an_online_store_that_is_away_holds_up_no_event_and_the_next_process_pushes(streams, online, layout, start):
    replay(streams, LATER)
    process = start()
    until(process.works, "the ingestor works")
    online.kill()
    try:
        publish(streams.client, iter(TOLD), name="test", now_us=lambda: microseconds(UNTIL))
        until(lambda: is_done(streams), "all events are done")
        until(lambda: process.metric("ingestor_online_up") == 0.0, "it has noticed")
        process.kill()
    finally:
        online.start()
    start()
    until(lambda: served(layout, online)["congestion", "EWR"]["departures_3h"][1], "the next one has pushed")
    assert_all_is_as_recomputed(streams, online, layout, EVENTS)


def test_an_ingestor_without_a_registered_view_ends_with_a_sentence(start, tmp_path):
    process = start(feast_registry=f"sqlite:///{tmp_path}/empty.db")
    assert process.process.wait(WITHIN_S) == 3
    assert "run `flightdeck features apply`" in process.log.read_text()
