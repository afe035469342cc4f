"""The publisher on a real Redis: by the clock, once each, also when it is killed."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
import time

import pytest
import redis

from feature_repo.streaming import FlightFold
from flightdeck.contracts.clock import CLOCK_KEY
from flightdeck.contracts.events import EVENT_STREAM
from pipelines.data.publish import publish
from pipelines.flights import source
from pipelines.flights.events import events_between
from pipelines.flights.publish import main
from tests.integration.ingestor.conftest import until

TOLD = [(number, b"event %d" % number) for number in range(1000)]
FEBRUARY = dt.datetime(2013, 2, 11, 5, tzinfo=dt.UTC)


def on_the_stream(streams) -> list[bytes]:
    return [fields[b"e"] for _, fields in streams.client.xrange(EVENT_STREAM)]


def all_contents() -> list[bytes]:
    return [content for _, content in TOLD]


def test_events_are_written_when_the_clock_reaches_them(streams):
    now = itertools.count(0, 100)
    asked: list[int] = []

    def now_us() -> int:
        asked.append(next(now))
        assert len(on_the_stream(streams)) <= asked[-1] + 1
        return asked[-1]

    done = publish(streams.client, iter(TOLD), name="t", now_us=now_us)
    assert (done.written, done.before) == (1000, 0)
    assert on_the_stream(streams) == all_contents()
    assert len(asked) >= 10


def test_a_publisher_that_was_killed_goes_on_where_it_was(streams):
    class Killed(BaseException):
        pass

    def dies() -> int:
        if len(on_the_stream(streams)) >= 300:
            raise Killed
        return 10**6

    with pytest.raises(Killed):
        publish(streams.client, iter(TOLD), name="t", batch=100, now_us=dies)
    done = publish(streams.client, iter(TOLD), name="t", now_us=lambda: 10**6)
    assert (done.written, done.before) == (700, 300)
    assert on_the_stream(streams) == all_contents()
    again = publish(streams.client, iter(TOLD), name="t", now_us=lambda: 10**6)
    assert (again.written, again.before) == (0, 1000)


def test_a_transaction_whose_answer_was_lost_is_not_repeated(streams):
    class LosesAnswers(redis.Redis):
        lost = 0

        def pipeline(self, *args, **options):
            made = super().pipeline(*args, **options)
            execute = made.execute

            def loses():
                execute()
                if LosesAnswers.lost < 3:
                    LosesAnswers.lost += 1
                    raise redis.ConnectionError("after the server had done it")

            made.execute = loses
            return made

    with LosesAnswers(port=streams.port) as client:
        done = publish(client, iter(TOLD), name="t", batch=100, now_us=lambda: 10**6)
    assert (done.written, done.failures) == (1000, 3)
    assert on_the_stream(streams) == all_contents()


def test_a_publisher_waits_while_nobody_takes_the_events(streams):
    done = []
    worker = threading.Thread(
        target=lambda: done.append(
            publish(streams.client, iter(TOLD), name="t", batch=50, backlog_at_most=200, now_us=lambda: 10**6)
        )
    )
    worker.start()
    until(lambda: streams.client.xlen(EVENT_STREAM) > 200, "it has written some")
    time.sleep(0.2)
    assert streams.client.xlen(EVENT_STREAM) == 250
    while worker.is_alive():
        streams.client.delete(EVENT_STREAM)
        time.sleep(0.01)
    assert done[0].written == 1000


def test_a_server_that_lost_what_it_had_is_told(streams):
    def loses() -> int:
        if streams.client.xlen(EVENT_STREAM) == 300:
            streams.client.flushall()
            raise redis.ConnectionError("restarted without its data")
        return 10**6

    with pytest.raises(ValueError, match="lost what it had"):
        publish(streams.client, iter(TOLD), name="t", batch=100, now_us=loses)


def test_two_days_of_events_are_complete_ordered_and_the_same_again():
    until_utc = FEBRUARY + dt.timedelta(days=2)
    told = list(events_between(FEBRUARY, until_utc))
    assert told == list(events_between(FEBRUARY, until_utc))
    halves = [FEBRUARY, FEBRUARY + dt.timedelta(hours=31), until_utc]
    assert told == [event for pair in itertools.pairwise(halves) for event in events_between(*pair)]
    assert [at_us for at_us, _ in told] == sorted(at_us for at_us, _ in told)
    fold, refused, kinds = FlightFold(), [], []
    for at_us, content in told:
        try:
            event = fold.decode(content)
        except ValueError as error:
            refused.append(str(error))
        else:
            assert event.at_us == at_us
            kinds.append(event.__struct_config__.tag)
    assert [("wind_speed_mph" in words, "253" in words) for words in refused] == [(True, True)], "1,048 mph at EWR"
    flights = source.all_flights()
    for kind, column in (("departed", "departed_at_utc"), ("landed", "known_at_utc")):
        known = flights.filter(flights[column].is_between(FEBRUARY, until_utc, closed="left"))
        assert kinds.count(kind) == known.filter(~known["cancelled"]).height > 1000
    assert kinds.count("cancelled") > 10
    assert kinds.count("weather") + len(refused) == 2 * 3 * 24


def test_the_entry_point_sets_the_clock_once_and_publishes_the_period(streams, capsys):
    period = ["--from", "2013-07-01T12:00", "--until", "2013-07-01T13:00", "--speed", "36000", "--redis", streams.url]
    assert main(period) == 0
    written = streams.client.xlen(EVENT_STREAM)
    assert capsys.readouterr().out.startswith(f"{written:,} events written, 0 had been")
    assert written > 100
    clock = streams.client.hgetall(CLOCK_KEY)
    assert main(period) == 0
    assert capsys.readouterr().out.startswith(f"0 events written, {written:,} had been")
    assert streams.client.hgetall(CLOCK_KEY) == clock, "a publisher that begins again turns no clock back"
