"""The governor's looks, on a real journal, with a clock and a runner that the test moves."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from flightdeck.contracts.model_spec import ModelSpec, Retrain
from flightdeck.contracts.retrain import Answer, Cause, Order, Outcome, Pretest
from pipelines.governor import governor as acts
from pipelines.governor.governor import Ended, Governor, Refused
from pipelines.governor.journal import Journal

NOW = dt.datetime(2013, 7, 1, 12, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)


@dataclasses.dataclass
class World:
    """A clock, a runner and rollouts by hand: a training takes `train`, its rollout `roll` after that.

    whole: an order ends with its rollout; else with the training, and the rollout is told as busy.
    """

    at: dt.datetime = NOW
    train: dt.timedelta = 3 * MINUTE
    roll: dt.timedelta = 8 * MINUTE
    begun: dict[str, dt.datetime] = dataclasses.field(default_factory=dict)
    starts: int = 0
    fails: bool = False
    whole: bool = True

    def now(self) -> dt.datetime:
        return self.at

    def start(self, order: Order) -> None:
        self.starts += 1
        self.begun.setdefault(order.key, self.at)

    def ended(self, order: Order) -> Ended | None:
        takes = self.train + (self.roll if self.whole and not self.fails else MINUTE * 0)
        if order.key not in self.begun or self.at < self.begun[order.key] + takes:
            return None
        return Ended(not self.fails, "no room on the disk" if self.fails else "v7 is champion")

    def rollouts(self) -> list[tuple[dt.datetime, dt.datetime]]:
        return [(at + self.train, at + self.train + self.roll) for at in self.begun.values()] if not self.fails else []

    def busy(self, model: str) -> str:
        if self.whole:
            return ""
        under_way = [begin for begin, end in self.rollouts() if begin <= self.at < end]
        return f"the rollout of {model}, begun at {under_way[0]:%H:%M}" if under_way else ""


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def journal(tmp_path) -> Journal:
    return Journal(f"sqlite:///{tmp_path / 'governor.db'}")


@pytest.fixture
def governor(journal, world) -> Governor:
    def refuse(_spec: ModelSpec, _now: dt.datetime) -> Pretest:
        raise AssertionError("this policy asks for no pre-test")

    return Governor(journal, world, world, world.busy, refuse)


def after_pretest(spec: ModelSpec, **policy: object) -> ModelSpec:
    plan = {"train_days": 60, "sample_rows": 1000, "min_gain": 0, "on_cannot_tell": "skip"}
    assert spec.retrain is not None
    content = spec.retrain.model_dump(mode="json") | {"pretest": plan} | policy
    return spec.model_copy(update={"retrain": Retrain.model_validate(content)})


def outcomes(journal: Journal) -> list[str]:
    return [entry.decision.outcome.value for entry in journal.history("late")]


def test_a_storm_of_a_thousand_triggers_over_ten_minutes_makes_one_run(governor, journal, world, spec, trigger):
    for second in range(0, 600, 6):
        world.at = NOW + dt.timedelta(seconds=second)
        acts.tell(journal, [trigger("drift", world.at, n) for n in range(second, second + 10)], world.at)
        governor.tick(spec)
    for minute in range(10, 60):
        world.at = NOW + minute * MINUTE
        governor.tick(spec)
    assert list(world.begun) == ["late-1"]
    assert outcomes(journal).count("TRAIN") == 1
    assert not journal.waiting("late"), "all 1,000 are settled"
    settled = [len(journal.settled_by("late", entry.number)) for entry in journal.history("late")]
    assert sum(settled) == 1000


@pytest.mark.parametrize("whole", [True, False])
def test_retraining_every_ten_minutes_for_two_hours_starves_no_rollout(  # noqa: PLR0917
    governor, journal, world, spec, trigger, whole
):
    world.whole = whole
    for minute in range(121):
        world.at = NOW + minute * MINUTE
        if minute % 10 == 0:
            acts.tell(journal, [trigger("new_data", world.at, minute)], world.at)
        governor.tick(spec)
    trainings = sorted(world.begun.values())
    rollouts = world.rollouts()
    assert len(trainings) >= 120 // (10 + 11), "and it does not starve retraining either"
    for begin, end in rollouts:
        between = [at for at in trainings if begin <= at < end]
        assert not between, f"a training at {between} while the rollout of {begin} to {end} was under way"
    finished = [end for _, end in rollouts if end <= world.at]
    assert len(finished) >= len(trainings) - 1
    waits = [entry.decision.cause for entry in journal.history("late") if entry.decision.outcome is Outcome.WAIT]
    assert Cause.BUSY in waits
    world.at += 60 * MINUTE
    governor.tick(spec)
    settled = [len(journal.settled_by("late", entry.number)) for entry in journal.history("late")]
    assert sum(settled) + len(journal.waiting("late")) == 13, "no request is lost"


@pytest.mark.parametrize(("back", "waits"), [(5 * MINUTE, 9), (30 * 24 * 60 * MINUTE, 0)])
def test_a_clock_set_back_holds_one_cool_down_at_most(governor, journal, world, spec, trigger, back, waits):  # noqa: PLR0917
    acts.tell(journal, [trigger("new_data")], NOW)
    governor.tick(spec)
    world.at += world.train + world.roll
    governor.tick(spec)
    before = world.at = NOW - back
    acts.tell(journal, [trigger("new_data", world.at, 1)], world.at)
    while len(world.begun) < 2 and world.at < before + 60 * MINUTE:
        governor.tick(spec)
        world.at += MINUTE
    assert (world.at - before) // MINUTE - 1 == waits
    for _ in range(20):
        world.at += MINUTE
        governor.tick(spec)
    world.at = NOW  # the same moment comes by again
    acts.tell(journal, [trigger("new_data", world.at, 2)], world.at)
    governor.tick(spec)
    assert len(world.begun) == (3 if waits == 0 else 2)


def test_a_look_after_a_kill_asks_for_the_same_run_again(governor, journal, world, spec, trigger):
    acts.tell(journal, [trigger()], NOW)
    governor.tick(spec)
    world.begun.clear()  # killed after the decision, before the run began
    world.at += MINUTE
    governor.tick(spec)
    assert list(world.begun) == ["late-1"]
    assert outcomes(journal) == ["TRAIN"]


def test_a_training_that_fails_is_told_and_tried_again_after_the_cool_down(governor, journal, world, spec, trigger):
    world.fails = True
    acts.tell(journal, [trigger("new_data")], NOW)
    governor.tick(spec)
    world.at += 5 * MINUTE
    acts.tell(journal, [trigger("new_data", world.at, 1)], world.at)
    governor.tick(spec)
    assert outcomes(journal) == ["TRAIN", "FAILED", "WAIT"]
    assert "no room on the disk" in journal.history("late")[1].decision.reason
    world.at += 10 * MINUTE
    governor.tick(spec)
    assert outcomes(journal)[-1] == "TRAIN"


def test_broken_data_make_an_incident_and_no_training_until_a_clean_check(governor, journal, world, spec, trigger):
    acts.tell(journal, [trigger("broken_data"), trigger("quality")], NOW)
    governor.tick(spec)
    governor.tick(spec)
    assert outcomes(journal) == ["INCIDENT", "WAIT"]
    assert not world.begun
    acts.tell(journal, [trigger("data_clean", NOW - MINUTE)], NOW)
    governor.tick(spec)
    assert not world.begun, "that check looked before the evidence"
    world.at += MINUTE
    acts.tell(journal, [trigger("data_clean", world.at)], world.at)
    governor.tick(spec)
    assert outcomes(journal) == ["INCIDENT", "WAIT", "RESOLVED", "TRAIN"]
    assert not journal.waiting("late")


def test_a_clean_check_with_nothing_to_clear_is_not_kept(journal, trigger):
    assert acts.tell(journal, [trigger("data_clean"), trigger("skew_clean")], NOW) == 0


def test_an_incident_ends_by_hand_with_who_and_why(governor, journal, world, spec, trigger):
    with pytest.raises(Refused, match="no open incident"):
        acts.resolve(journal, "late", "ada", "mended", NOW)
    acts.tell(journal, [trigger("skew"), trigger("quality")], NOW)
    governor.tick(spec)
    acts.tell(journal, [trigger("skew", number=2)], NOW)
    (entry,) = acts.resolve(journal, "late", "ada", "the unit was mended", NOW)
    assert (entry.by, entry.decision.outcome) == ("ada", Outcome.RESOLVED)
    assert "the unit was mended" in entry.decision.reason
    governor.tick(spec)
    assert list(world.begun) == ["late-4"], "INCIDENT, WAIT, RESOLVED, TRAIN"


def test_a_freeze_of_all_holds_and_keeps_what_asks(governor, journal, world, spec, trigger):
    acts.freeze(journal, "*", "ada", "audit", NOW)
    with pytest.raises(Refused, match="all models are frozen already, by ada"):
        acts.freeze(journal, "*", "bob", "audit", NOW)
    acts.tell(journal, [trigger()], NOW)
    acts.request(journal, "late", "bob", "I want it", NOW)
    governor.tick(spec)
    assert outcomes(journal) == ["WAIT"]
    acts.unfreeze(journal, "*", "ada", "audit is over", NOW)
    with pytest.raises(Refused, match="late is not frozen"):
        acts.unfreeze(journal, "late", "ada", "", NOW)
    governor.tick(spec)
    assert outcomes(journal) == ["WAIT", "TRAIN"]
    assert len(journal.settled_by("late", 2)) == 2


def test_the_schedule_asks_once_per_period_on_the_clock(journal, world, spec):
    weekly = after_pretest(spec, triggers={"schedule": "pretest"}, every="P7D")
    asked: list[dt.datetime] = []

    def no(_spec: ModelSpec, now: dt.datetime) -> Pretest:
        asked.append(now)
        return Pretest(answer=Answer.WOULD_NOT, reason="gain -0.001 [-0.002, -0.0005]")

    governor = Governor(journal, world, world, world.busy, no)
    for hour in range(0, 15 * 24, 6):
        world.at = NOW + hour * 60 * MINUTE
        governor.tick(weekly)
    assert [(at - NOW).days for at in asked] == [0, 7, 14]
    assert outcomes(journal) == ["SKIP"] * 3
    world.at = NOW - 200 * dt.timedelta(days=1)  # another replay
    governor.tick(weekly)
    assert len(asked) == 4


def test_a_pretest_that_cannot_be_made_leaves_the_request_where_it_is(journal, world, spec, trigger):
    asking = after_pretest(spec, triggers={"drift": "pretest"})

    def away(_spec: ModelSpec, _now: dt.datetime) -> Pretest:
        raise ConnectionError("the lake does not answer")

    acts.tell(journal, [trigger()], NOW)
    with pytest.raises(ConnectionError, match="the lake"):
        Governor(journal, world, world, world.busy, away).tick(asking)
    assert not outcomes(journal)
    assert len(journal.waiting("late")) == 1
