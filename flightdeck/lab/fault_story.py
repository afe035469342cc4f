"""The fault drills: an earlier run's champion against itself with one planted fault at a time, under live traffic."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from flightdeck.lab import session
from flightdeck.lab.faults import CATALOGUE
from flightdeck.lab.findings import Findings
from flightdeck.lab.replaying import Replay, rebuild_online, stand_clock
from flightdeck.lab.rollouts import Case, Rollouts, case_of
from flightdeck.lab.serving import Serving
from flightdeck.lab.stack import STORES, Stack
from flightdeck.lab.story import MAIN_FAULTS, STANDS
from flightdeck.lab.training import LATE, ROLLOUT
from flightdeck.lab.users import Outcome
from flightdeck.progress import Board, Stage
from services.rollout_operator.plan import Phase

DAYS = 90  # of flights from STANDS on: the source has no more
SPEED = 9_000.0  # about 130 requests a second in a busy hour
SAME_AGAIN = 5  # A/A rollouts
# The cluster's tests plant these: the first takes a whole readyDeadline, the second is found as slow-50ms is, and the
# third needs tighter margins than the shipped plan has.
ON_THE_CLUSTER = ("never-ready", "slow-2s", "shift-005")


def stages() -> list[str]:
    """In order; each fault is one."""
    rest = [name for name in CATALOGUE if name not in (*MAIN_FAULTS, *ON_THE_CLUSTER)]
    return ["start", *rest, *(f"A/A {number}" for number in range(1, SAME_AGAIN + 1)), "drain and stand", "report"]


class FaultStory:
    """One run of the drills; needs the state that `lab run` or `lab up` left."""

    def __init__(self, stack: Stack, board: Board) -> None:
        self.stack, self.board, self.layout = stack, board, stack.layout
        self.outcomes: list[Outcome] = []
        self.replay = Replay(stack, "drills", STANDS, STANDS + dt.timedelta(days=DAYS))
        self.rollouts = Rollouts(self.layout, ROLLOUT, board, self.replay)
        self.serving = Serving(stack, Findings(dt.datetime.now(dt.UTC)), board)
        self.champion = self.serving.champion(LATE)

    def run(self) -> None:
        """All drills; the page is written last, and also when one before failed."""
        try:
            self._stage("start", self.start)
            for name in stages()[1:-2]:
                self._stage(name, self._drill(name))
            self._stage("drain and stand", self.stand)
        finally:
            self._stage("report", self.report)

    def start(self, stage: Stage) -> None:
        """The champion serves again; the flights of October to December are made ready, and the users come."""
        from flightdeck.lab.jobs import world

        self.stack.start_stores()
        self.stack.start_tracking()
        self.stack.supervisor.wait(STORES, 30)
        stand_clock(self.stack, STANDS)
        self.stack.start_serving()
        stage.tell("prepare the replay")
        self.board.tick(stage)
        world(self.replay.world(), self.replay.folder / "world")
        self.replay.start()
        self.serving.wait_champion(stage, self.champion)
        rows = rebuild_online(self.stack, STANDS)
        self.replay.wait_ready(lambda: stage.tell("users and streamer get ready"))
        self.replay.go(SPEED)
        stage.figure(
            f"{self.champion.short} serves, {rows:,} rows online, {len(self.replay.arrivals()):,} flights to ask"
        )

    def _drill(self, name: str) -> Callable[[Stage], None]:
        if name in CATALOGUE:
            case = case_of(CATALOGUE[name], self.champion)
        else:
            label = name.replace("/", "").replace(" ", "-").lower()
            again = self.champion.model_copy(update={"image": f"{self.champion.image}+{label}"})
            case = Case(name, again, Phase.DONE)
        return lambda stage: self._run(stage, case)

    def _run(self, stage: Stage, case: Case) -> None:
        stage.expect(self.replay.running, "the users have no flights left to ask for")
        self.rollouts.run(stage, case)

    def stand(self, stage: Stage) -> None:
        """The users go; the figures of each drill; the store is as before."""
        self.replay.stop()
        outcomes = self.outcomes = self.replay.outcomes()
        failed = sum(not item.ok for item in outcomes)
        self.rollouts.count(outcomes)
        stage.expect(bool(outcomes), "the users' process left no outcomes")
        written = self.serving.drain_all(self.replay)
        rebuild_online(self.stack, STANDS)
        stand_clock(self.stack, STANDS)
        stage.figure(f"{len(outcomes):,} user requests, {failed} failed; {written:,} predictions in the lake")
        session.write_mark(
            self.layout, champion=self.serving.champion(self.champion.model.name).model_dump(mode="json")
        )

    def report(self, stage: Stage) -> None:
        """The page with the table and the evidence."""
        from flightdeck.lab.report import write_faults

        stage.figure(str(write_faults(self.layout, self.board, self.rollouts, self.outcomes)))

    def _stage(self, name: str, work: Callable[[Stage], None]) -> None:
        with self.board.stage(name) as stage:
            work(stage)
