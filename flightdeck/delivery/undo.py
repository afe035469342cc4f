"""Deploy again what a recorded delivery deployed: the same manifests, images and models. Needs no Git and no build."""

from __future__ import annotations

import contextlib
from pathlib import Path

from flightdeck.cluster import champion, overlays
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.manifests import Document
from flightdeck.cluster.names import ENVIRONMENT, PLATFORM
from flightdeck.contracts.ledger import DeliveryRecord, Serving, Verdict
from flightdeck.delivery import decisions, ledger, restore, rollout, there
from flightdeck.delivery.deliver import FAILURES, Asked, Delivery, Stopped
from flightdeck.delivery.users import FellShort
from flightdeck.progress import Board, Stage

STAGES = ("there", "deploy", "ready", "smoke", "rollout", "ledger")


class Undo(Delivery):
    """One run of all stages; what falls short is rolled back to what was there before, as in a delivery."""

    GUARDED = ("deploy", "ready", "smoke")

    def __init__(self, state: Path, board: Board, asked: Asked, *, number: int | None) -> None:
        super().__init__(state, board, asked)
        self.number = number
        self.target: DeliveryRecord

    def run(self) -> DeliveryRecord:
        """All of it; returns what was recorded.

        Raises:
            Stopped: something of the record is not there any more, or it fell short.
            KeyboardInterrupt: in the middle; the next run goes on.
        """
        stage = "look"
        try:
            self.up.aim()
            self.up.kubectl = Kubectl(self.up.target.context)
            if self.kubectl.find("namespace", PLATFORM) is None:
                raise FellShort(f"nothing was delivered to {ENVIRONMENT.name}: there is no namespace {PLATFORM}")
            with contextlib.ExitStack() as held:
                self._enter(held)
                for stage in STAGES:
                    if stage != "there":
                        self._note(stage)
                    self._guarded(stage) if stage in self.GUARDED else self._stage(stage)
                return self.records[-1]
        except (*FAILURES, ValueError) as error:
            raise Stopped(self._words(stage, error)) from error

    def _look(self) -> None:
        """Any commit may be gone back to."""
        self.records = ledger.read(self.kubectl, PLATFORM)
        self.target = decisions.to_undo(self.records, self.number)
        self.digests, self.commit = dict(self.target.images), self.target.commit
        self.up.overlay = self.target.overlay

    def there(self, stage: Stage) -> None:
        """All of it is still there, else nothing is touched."""
        self.documents = ledger.documents_of(self.kubectl, PLATFORM, self.target)
        models = [it.release.model.image for it in self.target.models.values() if it.release]
        wanted = [*self.target.images.values(), *(it for it in models if it)]
        if gone := there.missing(wanted):
            lines = "".join(f"\n  {it}: {why}" for it, why in gone.items())
            raise FellShort(f"delivery {self.target.number} cannot be deployed again; nothing was changed:{lines}")
        stage.figure(f"delivery {self.target.number} ({self.target.commit[:12]}): {len(wanted)} images, all there")

    def deploy(self, stage: Stage) -> None:
        """The very manifests of that time; what only later deliveries brought goes."""
        newest = decisions.last_standing(self.records)
        self.applied = True
        changed = overlays.apply(self.kubectl, self.up.overlay, self.documents, tell=self.up.teller(stage))
        if newest:
            with contextlib.suppress(ledger.LedgerError):
                restore.take_away(self.kubectl, ledger.documents_of(self.kubectl, PLATFORM, newest), self.documents)
        stage.figure(f"{len(changed) or 'nothing'} changed")

    def rollout(self, stage: Stage) -> None:
        """What served then is asked for again, and goes through the plan like any candidate."""

        def say(words: str) -> None:
            stage.tell(words)
            self._say(words)

        for model, then in self.target.models.items():
            serves = champion.serving(self.kubectl, model)
            self.models[model] = Serving(release=serves, trained_from=then.trained_from, made_from=then.made_from)
            if then.release is None or serves is None or then.release.id == serves.id:
                stage.figure(f"{model}: {serves.short if serves else 'nothing'} serves, as then")
                continue
            result = rollout.ask_for(
                self.kubectl, model, then.release, host=self._host(model), bodies=self._bodies, say=say,
                rate_per_s=ENVIRONMENT.requests_per_s, timeout_s=ENVIRONMENT.rollout_timeout_s,
            )  # fmt: skip
            self._follow_up(stage, model, result)
            self.models[model] = Serving(
                release=result.release, trained_from=then.trained_from,
                made_from=then.made_from if result.release.id == then.release.id else None,
            )  # fmt: skip

    def _record(
        self, verdict: Verdict, reason: str, documents: list[Document], *, undoes: int | None = None
    ) -> DeliveryRecord:
        return super()._record(verdict, reason, documents, undoes=undoes or self.target.number)
