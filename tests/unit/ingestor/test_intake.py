from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_repo.streaming import CONGESTION, OVERDUE, FlightEvent, FlightFold
from flightdeck.contracts.events import Effect
from services.ingestor.intake import Intake, Kept, Reason, Remembered, Taken
from tests.unit.ingestor.told import MINUTE_US, at, cancelled, departed, fields, landed, recomputed, scheduled

SECOND_US = 1_000_000
GOOD = fields(departed("UA1", 5))[b"e"]


class Ingested:
    """An intake, and what a transaction would have kept of its batches."""

    def __init__(self) -> None:
        self.kept, self.remembered, self.batches = Kept(), {}, []
        self.entries = 0
        self.restart()

    def restart(self) -> None:
        """A new process: it has what was kept and nothing else."""
        kept = msgspec.msgpack.decode(msgspec.msgpack.encode(self.kept), type=Kept)
        self.intake = Intake(FlightFold(), kept, dict(self.remembered), future_tolerance_us=SECOND_US)

    def take(self, *events: FlightEvent | dict[bytes, bytes], now_us: int = at(24 * 60)) -> Taken:
        entries = []
        for event in events:
            self.entries += 1
            entries.append((b"%d-0" % self.entries, event if isinstance(event, dict) else fields(event)))
        return self.commit(self.intake.take(entries, now_us))

    def commit(self, taken: Taken) -> Taken:
        for name in taken.forgotten:
            del self.remembered[name]
        self.remembered |= taken.remembered
        self.kept = self.intake.kept
        self.batches.append(taken)
        return taken

    @property
    def newest(self) -> dict[tuple[str, str], dict[str, float]]:
        return {(row.view, row.keys["origin"]): row.features for row in self.kept.newest}


@pytest.fixture
def ingested() -> Ingested:
    return Ingested()


def test_a_snapshot_is_made_when_an_event_comes_from_after_it(ingested):
    first = ingested.take(departed("UA1", 5), departed("UA2", 30, sched_min=10))
    assert not first.snapshots, "what is known at the very moment may still come"
    taken = ingested.take(departed("UA3", 31))
    assert {row.at_us for row in taken.snapshots} == {at(30)}
    assert ingested.newest[CONGESTION, "EWR"]["departures_1h"] == 2.0
    assert ingested.newest[CONGESTION, "EWR"]["mean_dep_delay_min_1h"] == 10.0
    assert ingested.newest[CONGESTION, "JFK"]["departures_1h"] == 0.0


def test_an_event_told_twice_counts_once(ingested):
    taken = ingested.take(departed("UA1", 5), departed("UA1", 5))
    again = ingested.take(departed("UA1", 5), departed("UA2", 31))
    assert (taken.duplicates["departed"], again.duplicates["departed"]) == (1, 1)
    assert [event.id for event in taken.accepted + again.accepted] == ["departed:UA1", "departed:UA2"]
    assert ingested.newest[CONGESTION, "EWR"]["departures_3h"] == 1.0
    assert len(taken.entries) == 2, "a copy is acknowledged too"


def test_an_event_told_twice_counts_once_over_a_restart(ingested):
    ingested.take(departed("UA1", 5), landed("UA0", 6))
    ingested.restart()
    taken = ingested.take(departed("UA1", 5), landed("UA0", 6), departed("UA2", 31))
    assert taken.duplicates == {"departed": 1, "landed": 1}
    assert ingested.newest[CONGESTION, "EWR"]["departures_1h"] == 1.0


def test_a_late_event_revises_the_newest_snapshot(ingested):
    ingested.take(departed("UA1", 5), departed("UA2", 31))
    taken = ingested.take(departed("UA3", 20))
    assert [(row.view, row.keys["origin"], row.at_us, row.revision) for row in taken.snapshots] == [
        (CONGESTION, "EWR", at(30), 1)
    ]
    assert taken.accepted[0].late
    assert ingested.newest[CONGESTION, "EWR"]["departures_1h"] == 2.0
    assert len(ingested.newest) == 6, "rows that did not change stay"
    [row] = ingested.take(departed("UA4", 21)).snapshots
    assert row.revision == 2, "each is newer than the one before"


def test_a_late_event_that_changes_no_row_makes_no_revision(ingested):
    ingested.take(departed("UA1", 5), departed("UA2", 31))
    taken = ingested.take(landed("UA0", 6), scheduled("UA9", 100, told_min=-10))
    assert not taken.snapshots
    assert all(event.late for event in taken.accepted)


def test_what_is_too_late_for_any_snapshot_is_kept_and_changes_nothing(ingested):
    ingested.take(departed("UA1", 0), departed("UA2", 8 * 60 + 1))
    before = ingested.newest
    taken = ingested.take(departed("UA3", 10))
    assert [event.effect for event in taken.accepted] == [Effect.EXPIRED]
    assert ingested.newest == before
    assert not taken.remembered


def test_what_no_snapshot_needs_is_forgotten(ingested):
    ingested.take(*(departed(f"UA{number}", number) for number in range(100)))
    taken = ingested.take(departed("UA999", 10 * 60))
    assert len(taken.forgotten) == 100
    assert list(ingested.remembered) == ["departed:UA999"]
    assert ingested.intake.remembered == 1


def test_an_event_from_the_future_is_set_back_to_now(ingested):
    taken = ingested.take(departed("UA1", 300, sched_min=20), now_us=at(31))
    [event] = taken.accepted
    assert (event.at_us, event.told_us, taken.clamped["departed"]) == (at(31), at(300), 1)
    assert ingested.kept.reached_us == at(31), "else it would pass for the newest for hours"
    ingested.restart()
    ingested.take(departed("UA2", 61), now_us=at(61))
    assert ingested.newest[CONGESTION, "EWR"]["departures_1h"] == 1.0


def test_a_clock_that_is_a_little_behind_clamps_nothing(ingested):
    taken = ingested.take(departed("UA1", 5), now_us=at(5) - SECOND_US)
    assert not taken.clamped
    assert taken.accepted[0].at_us == at(5)


@pytest.mark.parametrize(
    ("entry", "reason", "words"),
    [
        ({b"other": b"x"}, Reason.NO_FIELD, "'e'"),
        ({b"e": b"{not json"}, Reason.NOT_JSON, "malformed"),
        ({b"e": b"\xff\xfe"}, Reason.NOT_JSON, "utf-8"),
        ({b"e": b"[" * 100_000}, Reason.INVALID, "array"),
        ({b"e": b'{"x":' + b"[" * 100_000}, Reason.NOT_JSON, "recursion"),
        ({b"e": b'{"kind":"vanished","id":"x","at_us":1}'}, Reason.INVALID, "vanished"),
        ({b"e": b'{"kind":"departed","id":"x","at_us":1}'}, Reason.INVALID, "flight_id"),
        ({b"e": b'{"kind":"departed","id":"","at_us":1}'}, Reason.INVALID, "id"),
        (fields(departed("UA1", 5, origin="XXX")), Reason.INVALID, "XXX"),
        (fields(departed("UA1", 10_000, sched_min=5)), Reason.INVALID, "dep_delay_min"),
        ({b"e": GOOD.replace(b'"sched_dep_us":1', b'"sched_dep_us":2')}, Reason.INVALID, "7 days"),
        ({b"e": GOOD.replace(b'"at_us":', b'"at_us":-')}, Reason.INVALID, "at_us"),
        ({b"e": GOOD.replace(b'"dep_delay_min":0', b'"dep_delay_min":NaN')}, Reason.NOT_JSON, ""),
        ({b"e": GOOD[:-1] + b',"more":"\xff"}'}, Reason.NOT_JSON, "utf-8"),
    ],
)  # fmt: skip
def test_what_is_no_event_becomes_a_dead_letter_with_its_bytes_and_stops_nothing(ingested, entry, reason, words):
    taken = ingested.take(departed("UA8", 1), entry, departed("UA9", 31))
    [letter] = taken.dead
    assert (letter.entry, letter.reason, letter.fields) == (b"2-0", reason, entry)
    assert words in letter.error
    assert len(taken.entries) == 3
    assert ingested.newest[CONGESTION, "EWR"]["departures_1h"] == 1.0


def test_an_event_that_cannot_be_now_is_a_dead_letter_too(ingested):
    taken = ingested.take(departed("UA1", 20 * 1440), now_us=at(0))
    assert [letter.reason for letter in taken.dead] == [Reason.INVALID]


def test_an_entry_that_was_deleted_while_it_was_pending_is_acknowledged(ingested):
    taken = ingested.intake.take([(b"1-0", None)], at(0))
    assert (taken.entries, taken.accepted, taken.dead) == ([b"1-0"], [], [])


def test_time_alone_makes_a_snapshot_of_a_quiet_hour(ingested):
    ingested.take(scheduled("UA1", 10, told_min=0), departed("UA2", 1))
    taken = ingested.commit(ingested.intake.pass_time(at(31), 120 * MINUTE_US, at(31)))
    assert {row.at_us for row in taken.snapshots} == {at(30)}
    assert ingested.newest[OVERDUE, "EWR"]["overdue_flights"] == 1.0


def test_a_source_that_fell_silent_makes_no_news(ingested):
    ingested.take(departed("UA1", 1))
    taken = ingested.commit(ingested.intake.pass_time(at(100_000), 120 * MINUTE_US, at(100_000)))
    assert max(row.at_us for row in taken.snapshots) == at(120)
    assert not ingested.intake.pass_time(at(200_000), 120 * MINUTE_US, at(200_000)).changes


def test_time_before_the_first_event_makes_no_snapshot(ingested):
    assert not ingested.intake.pass_time(at(10_000), 120 * MINUTE_US, at(10_000)).changes


def test_a_long_gap_is_not_filled_to_the_last_snapshot(ingested):
    ingested.take(departed("UA1", 1))
    taken = ingested.take(departed("UA2", 1100 * 30 + 1), now_us=at(10**6))
    assert taken.skipped == 100
    assert len({row.at_us for row in taken.snapshots}) == 1000
    assert max(row.at_us for row in taken.snapshots) == at(1100 * 30)


def test_what_another_fold_remembered_is_refused_with_words():
    with pytest.raises(ValueError, match="cannot read an event that was remembered"):
        Intake(FlightFold(), Kept(), {"x": Remembered(1, b'{"kind":"old"}')}, future_tolerance_us=0)


def test_what_is_told_first_counts_also_over_a_restart(ingested):
    first, second = departed("UA1", 20), departed("UA1", 10)
    second = msgspec.structs.replace(second, id="corrected")
    taken = ingested.take(first, second)
    assert [event.effect for event in taken.accepted] == [Effect.APPLIED, Effect.NONE]
    ingested.restart()
    ingested.take(departed("UA2", 75), departed("UA3", 91))
    assert ingested.newest[CONGESTION, "EWR"]["departures_1h"] == 1.0
    assert ingested.newest[CONGESTION, "EWR"]["departures_3h"] == 2.0


def a_day(seed: int) -> list[FlightEvent]:
    """Some hours of plans, departures and cancellations, in the order of time."""
    chance = random.Random(seed)
    events: list[FlightEvent] = []
    for number in range(60):
        name, sched_min = f"UA{number}", chance.randrange(0, 600)
        origin = chance.choice(["EWR", "JFK", "LGA"])
        events.append(scheduled(name, sched_min, origin=origin))
        if chance.random() < 0.1:
            events.append(cancelled(name, sched_min, origin=origin))
        else:
            left_min = sched_min + chance.randrange(-10, 200)
            events.append(departed(name, left_min, sched_min=sched_min, origin=origin))
            events.append(landed(name, left_min + chance.randrange(60, 300)))
    return sorted(events, key=lambda event: (event.at_us, event.id))


def disturbed(events: Sequence[FlightEvent], chance: random.Random, late_min: float) -> list[FlightEvent]:
    """Each event up to `late_min` late, some twice, some three times."""
    arrivals = [
        (event.at_us + chance.uniform(0, late_min) * MINUTE_US, number, event)
        for number, event in enumerate(events)
        for _ in range(chance.choice([1, 1, 1, 2, 3]))
    ]
    return [event for _, _, event in sorted(arrivals, key=lambda item: item[:2])]


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), batch=st.integers(1, 90), late_min=st.sampled_from([0, 1, 29, 90, 170]))
def test_the_features_are_those_of_a_recomputation_whatever_the_order_the_copies_and_the_restarts(
    seed, batch, late_min
):
    chance, ingested = random.Random(seed), Ingested()
    events = a_day(seed)
    arriving = disturbed(events, chance, late_min)
    for start in range(0, len(arriving), batch):
        part = arriving[start : start + batch]
        if chance.random() < 0.2:  # killed before the transaction: what it did in memory is gone
            ingested.intake.take([(b"0-0", fields(event)) for event in part], at(10**5))
            ingested.restart()
        ingested.take(*part, now_us=at(10**5))
        if chance.random() < 0.3:
            ingested.restart()
        if ingested.newest:
            assert ingested.newest == recomputed(arriving[: start + len(part)], ingested.kept.snapshot_us)
    accepted = [
        event.id for taken in ingested.batches for event in taken.accepted if event.effect is not Effect.EXPIRED
    ]
    assert len(accepted) == len(set(accepted))
    assert {event.id for taken in ingested.batches for event in taken.accepted} == {event.id for event in events}
