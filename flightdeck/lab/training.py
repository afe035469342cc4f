"""Stages of the story around training: jobs for the workers, what came of them, the first promotion."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flightdeck.contracts.release import ModelRef, Release
from flightdeck.lab.findings import Findings
from flightdeck.lab.requests import Job, ModelSeen, TrainBatch, Trained, TrainOne, TrainRequest
from flightdeck.lab.stack import CHECKOUT, Stack
from flightdeck.progress import Board, Stage

if TYPE_CHECKING:
    from flightdeck.contracts.card import ModelCard

SPECS = CHECKOUT / "specs"
LATE, DELAY = "late", "delay"
ROLLOUT = SPECS / f"{LATE}.rollout.yaml"


class StoryEnds(RuntimeError):
    """The story cannot go on; the reason is for people."""


class Training:
    """Asks the workers for candidates and collects them into the findings."""

    def __init__(self, stack: Stack, findings: Findings, board: Board) -> None:
        self.stack, self.findings, self.board, self.layout = stack, findings, board, stack.layout
        self.tracking_uri = f"http://127.0.0.1:{stack.ports['mlflow']}"
        self.workers: tuple[str, ...] = ()

    def start(
        self, name: str, until: dt.datetime, jobs: list[list[tuple[str, list[TrainOne]]]],
        champions: dict[str, ModelSeen | None], *, months: bool = False,
    ) -> list[Job]:  # fmt: skip
        """A job per worker, side by side; the first one makes the join that all share."""
        frame = self.layout.run / "jobs" / f"{name}.parquet"
        for path in (frame, frame.with_suffix(".json")):
            path.unlink(missing_ok=True)
        submitted = []
        for worker, parts in zip(self.workers, jobs, strict=True):
            requests = [
                TrainRequest(
                    spec=str(SPECS / f"{model}.yaml"), until_utc=until, tracking_uri=self.tracking_uri,
                    candidates=candidates, frame=str(frame), joins=worker == self.workers[0],
                    champion=champions.get(model), months=months,
                )
                for model, candidates in parts
            ]  # fmt: skip
            submitted.append(Job(self.stack.worker_folder(worker), name))
            submitted[-1].submit(TrainBatch(requests))
        return submitted

    def wait(self, stage: Stage, jobs: list[Job]) -> None:
        """Until all are done; then their candidates are collected."""
        while not self.all_done(jobs):
            stage.tell("  |  ".join(job.train_result().step for job in jobs))
            self.board.tick(stage)
            time.sleep(0.2)
        results = [job.train_result() for job in jobs]
        for result in results:
            for point in result.months:
                self.findings.months.setdefault(point.model, []).append(point)
        for trained in sorted((item for result in results for item in result.trained), key=_honest_first):
            self._collect(stage, trained)

    def all_done(self, jobs: Sequence[Job]) -> bool:
        """Whether every job is done.

        Raises:
            StoryEnds: one failed, or its worker is gone.
        """
        for job in jobs:
            if job.failed.exists():
                words = job.failed.read_text().strip().splitlines()
                raise StoryEnds(f"{job.name}: {words[-1]} (in full: {job.failed})")
        for worker in self.workers:
            if not self.stack.supervisor.running(worker):
                raise StoryEnds(f"{worker} is gone; last lines of its log:\n{self.stack.supervisor.log_tail(worker)}")
        return all(job.done.exists() for job in jobs)

    def _collect(self, stage: Stage, trained: Trained) -> None:
        from flightdeck.contracts.card import SignedCard

        path = self.layout.candidates / trained.run_id / "card.json"
        card = SignedCard.model_validate_json(path.read_text()).card
        self.findings.trained.append((trained, card))
        shown = ", ".join(
            f"{name} {item.value:.3f}" for name, item in card.metrics.items()
            if item.value is not None and name in {"auc", "rmse"}
        )  # fmt: skip
        stage.figure(
            f"{card.model} v{trained.version} ({trained.note}): {trained.verdict}, {shown}, trained in "
            f"{trained.train_s:.0f} s, gated in {trained.gate_s:.0f} s"
            + ("" if trained.verdict == "PROMOTE" else f": {shortened(trained.reason)}")
        )

    def promote(self, stage: Stage, trained: Trained, card: ModelCard) -> None:
        """The first champion of a model.

        Raises:
            StoryEnds: the gates did not let it pass.
        """
        from pipelines.registry.versions import promote

        model = card.model
        if not stage.expect(trained.verdict == "PROMOTE", f"{model}: {trained.verdict}: {trained.reason}"):
            raise StoryEnds(f"{model} v{trained.version} may not serve: {trained.verdict}: {trained.reason}")
        ref = ModelRef(name=model, version=trained.version, sha256=trained.sha256)
        promote(ref, layout=self.layout, tracking_uri=self.tracking_uri)
        self.findings.champion_versions[model] = ref.version
        if model == LATE:
            self.findings.champion = Release(
                image=self.findings.commit, model=ref, feature_service=card.feature_service
            )  # type: ignore[call-arg]

    def champion(self, model: str) -> ModelSeen | None:
        """What the registry calls champion; None when nothing was promoted yet."""
        from pipelines.registry.versions import load_champion

        found = load_champion(model, tracking_uri=self.tracking_uri)
        return ModelSeen(found.name, found.version, found.sha256) if found else None


def _honest_first(trained: Trained) -> tuple[bool, int]:
    return bool(trained.drill), int(trained.version)


def shortened(reason: str, characters: int = 240) -> str:
    """A reason for the table; the report and the card hold all of it."""
    return reason if len(reason) <= characters else reason[: characters - 4].rstrip() + " ..."
