"""Rollouts under live traffic in the lab: apply a release, follow it to its end, and say what it cost the users."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import Step, load_rollout
from flightdeck.lab.faults import Fault, with_fault
from flightdeck.lab.replaying import Replay
from flightdeck.lab.rollout import replicas
from flightdeck.lab.rollout.store import Look, Status, Store
from flightdeck.lab.users import Outcome
from flightdeck.progress import Board, Stage
from services.rollout_operator.plan import Phase, Transition
from services.rollout_operator.verdict import Verdict

WHO = "flightdeck lab"
WORDS = {"restarts": "died"}  # how a reason tells of it, where not by the metric's name
LONGEST_S = 420.0  # the sum of the plan's deadlines is longer; a rollout of the lab should not need them


@dataclasses.dataclass(frozen=True)
class Case:
    """One rollout and what must become of it.

    Args:
        title: for tables.
        ends: DONE or ABORTED. caught_in: the phase in which a fault must show; None for a good release.
        metrics: the reason must name one of these; empty when any reason will do.
    """

    title: str
    release: Release
    ends: Phase
    caught_in: Phase | None = None
    metrics: tuple[str, ...] = ()


def case_of(fault: Fault, honest: Release) -> Case:
    """The release `honest` with a fault of the catalogue in its code."""
    release = honest.model_copy(update={"image": with_fault(honest.image, fault.name)})
    if fault.caught_in == "never":
        return Case(fault.name, release, Phase.DONE)
    return Case(fault.name, release, Phase.ABORTED, Phase(fault.caught_in), fault.metrics)


@dataclasses.dataclass
class Result:
    """What became of a case.

    Args:
        where: the step in which it ended, in words.
        needed: observations of the failing metric (pairs, attempts, answers) at the verdict; 0: no metric failed.
        answers: of the candidate, that users got while it was no champion. failed: of the users' requests meanwhile.
    """

    case: Case
    began_s: float
    ended_s: float = 0.0
    phase: Phase = Phase.PENDING
    where: str = ""
    reason: str = ""
    needed: int = 0
    looks: list[Look] = dataclasses.field(default_factory=list)
    history: list[Transition] = dataclasses.field(default_factory=list)
    requests: int = 0
    answers: int = 0
    failed: int = 0

    @property
    def ok(self) -> bool:
        """It ended as it must, where it must, for the reason that it must."""
        case = self.case
        caught = case.caught_in is None or any(
            item.source is case.caught_in and item.target is Phase.ABORTING for item in self.history
        )
        named = not case.metrics or any(WORDS.get(metric, metric) in self.reason for metric in case.metrics)
        return self.phase is case.ends and caught and named

    def count(self, outcomes: Sequence[Outcome], owners: Owners) -> None:
        """What users got between its beginning and its end."""
        during = [item for item in outcomes if self.began_s <= item.sent_s < self.ended_s]
        self.requests = len(during)
        self.answers = sum(item.ok and owners.of(item.port, item.done_s) == self.case.release.id for item in during)
        self.failed = sum(not item.ok for item in during)

    def line(self) -> str:
        """For the table."""
        after = f"{self.needed:,} {'observations' if self.needed != 1 else 'observation'}, " if self.needed else ""
        return (
            f"{self.case.title}: {self.phase} in {self.where or '-'} after {after}{self.ended_s - self.began_s:.0f} s"
        )


class Owners:
    """Whose replica listened on a port at a time: a port that a retired replica left is taken by a later one."""

    def __init__(self) -> None:
        self._since: dict[int, list[tuple[float, str]]] = {}

    def note(self, layout: StateLayout, now_s: float) -> None:
        """Look at what runs now."""
        for release_id, seen in replicas.observed(layout).items():
            for replica in seen.replicas:
                known = self._since.setdefault(replica.port, [])
                if not known or known[-1][1] != release_id:
                    known.append((now_s, release_id))

    def of(self, port: int, at_s: float) -> str:
        """The release's id; empty when nobody was seen there. A new owner answers some seconds after it was seen."""
        owner = ""
        for since_s, release_id in self._since.get(port, []):
            if since_s <= at_s or not owner:
                owner = release_id
        return owner


class Rollouts:
    """Applies releases to one ModelRollout while a replay runs."""

    def __init__(self, layout: StateLayout, template: Path, board: Board, replay: Replay) -> None:
        self.layout, self.template, self.board, self.replay = layout, template, board, replay
        self.store = Store(layout.rollouts)
        self.results: list[Result] = []
        self.owners = Owners()

    def count(self, outcomes: Sequence[Outcome]) -> None:
        """Add to each result what the users got meanwhile."""
        for result in self.results:
            result.count(outcomes, self.owners)

    def run(self, stage: Stage, case: Case) -> Result:
        """Apply and follow; returns when the candidate is champion or gone."""
        rollout = load_rollout(self.template, release=case.release)
        name = rollout.metadata.name
        result = Result(case, time.time())
        self.results.append(result)
        self.store.apply(rollout, WHO)
        while time.time() - result.began_s < LONGEST_S:
            status = self.store.read_status(name)
            self.owners.note(self.layout, time.time())
            if status and status.state and status.state.started_s >= result.began_s - 1:
                stage.tell(f"{case.title}: {words(status)}  |  {self.replay.words()}")
                if status.state.phase in (Phase.DONE, Phase.ABORTED):
                    self._end(result, status, rollout.spec.plan)
                    break
            self.board.tick(stage)
            time.sleep(0.2)
        else:
            result.ended_s, result.reason = time.time(), f"not at its end after {LONGEST_S:.0f} s"
        stage.figure(result.line())
        stage.expect(
            result.ok,
            f"{case.title}: expected {case.ends}"
            + (f" out of {case.caught_in} for {' or '.join(case.metrics)}" if case.caught_in else "")
            + f", found {result.phase}: {result.reason}",
        )
        return result

    def _end(self, result: Result, status: Status, plan: Sequence[Step]) -> None:
        state = status.state
        assert state is not None
        name, began_s = status.name, state.started_s
        result.phase, result.reason, result.ended_s = state.phase, state.reason, time.time()
        result.history = [item for item in self.store.history(name) if item.at_s >= began_s]
        result.looks = [look for look in self.store.looks(name) if look.started_s == began_s]
        steps = [item.step for item in result.history if item.step is not None]
        result.where = plan[steps[-1]].words if steps else str(Phase.PENDING)
        if status.judgement and state.phase is Phase.ABORTED and status.judgement.verdict is Verdict.FAIL:
            failed = [item for item in status.judgement.metrics if item.verdict is Verdict.FAIL]
            result.needed = failed[0].observations if failed else 0


def words(status: Status) -> str:
    """Phase, weight and verdict of a running rollout, short."""
    state = status.state
    assert state is not None
    weight = f" {status.weight} %" if status.weight else ""
    verdict = f", {status.judgement.verdict}" if status.judgement and state.step is not None else ""
    return f"{state.phase}{weight}{verdict}, {status.candidate_ready} candidate replicas ready"
