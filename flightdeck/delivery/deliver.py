"""One delivery: a commit to the users of one environment, stage by stage. Every stage is safe to repeat.

What falls short before anything was applied changes nothing; what falls short from then until the training ended is
rolled back to the last recorded delivery that stands. From there on the rollout operator decides what users meet.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from collections.abc import Mapping
from pathlib import Path

import httpx

from flightdeck.cluster import champion, deploy, images, overlays
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.deploy import DeployRefused
from flightdeck.cluster.failures import EXPECTED
from flightdeck.cluster.forward import forward
from flightdeck.cluster.manifests import Document, ManifestError
from flightdeck.cluster.names import ENVIRONMENT, PLATFORM
from flightdeck.cluster.target import How
from flightdeck.cluster.up import Up
from flightdeck.contracts.ledger import DeliveryRecord, Serving, StageTime, TrainingInputs, Verdict
from flightdeck.delivery import cards, decisions, ledger, provenance, restore, rollout, there, training, users
from flightdeck.delivery.ledger import LedgerError
from flightdeck.delivery.rollout import Result
from flightdeck.delivery.users import FellShort
from flightdeck.load import verdict as load_verdict
from flightdeck.load.here import requests_around
from flightdeck.progress import Board, Stage
from pipelines.training.lineage import git_commit

STAGES = (
    "images", "cluster", "registry", "gateway", "deploy", "ready", "smoke", "load", "training", "rollout", "card",
    "ledger",
)  # fmt: skip
COPIES = "deliveries"  # under the state folder
GUARDED = ("deploy", "ready", "smoke", "load", "training")  # what falls short here is rolled back
LEASE = "flightdeck-delivery"  # one delivery at a time per environment; an apply has another one, shared with `deploy`
FAILURES = (*EXPECTED, FellShort, LedgerError, httpx.HTTPError)


class Stopped(RuntimeError):
    """The delivery did not come to its end; the words say what serves now, and how to go on."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a person or a workflow asks for.

    Args:
        digests: images by name in the manifests; None: built here, or those of the environment it promotes from.
        cluster: kind or minikube, to be made where none answers. overlay: instead of the environment's.
        allow_older: also a commit older than what was delivered last.
        wait_s: how long to wait for another delivery to end.
    """

    digests: Mapping[str, str] | None = None
    cluster: str | None = None
    overlay: str | None = None
    allow_older: bool = False
    sure: bool = False
    wait_s: float = 3600.0


class Delivery:
    """One run of all stages."""

    def __init__(self, state: Path, board: Board, asked: Asked) -> None:
        self.state, self.board, self.asked = state, board, asked
        self.commit, self.who = git_commit(), provenance.who()
        # An environment that names its cluster is meant when it is named.
        sure = asked.sure or bool(ENVIRONMENT.context)
        overlay = asked.overlay or ENVIRONMENT.overlay or None
        self.up = Up(state, board, wanted=asked.cluster, sure=sure, overlay=overlay)
        self.digests = dict(asked.digests) if asked.digests else {}
        self.records: list[DeliveryRecord] = []
        self.documents: list[Document] = []
        self.models: dict[str, Serving] = {}
        self.refusals: list[str] = []
        self.unfinished = ""
        self.applied = self.smoked = False
        self.began: dict[str, str] = {}
        self.bodies: list[bytes] = []

    @property
    def kubectl(self) -> Kubectl:
        """Of the environment's cluster."""
        return self.up.kubectl

    def run(self) -> DeliveryRecord:
        """All of it; returns what was recorded.

        Raises:
            Stopped: it did not come to its end; what it had deployed was rolled back where that could be done.
            KeyboardInterrupt: in the middle; the next run goes on.
        """
        stage = ""
        try:
            self.up.aim()
            if self.up.target.how is not How.EXISTING and not self.asked.cluster:
                raise FellShort(
                    f"no cluster answers for {ENVIRONMENT.name}: what serves there was left alone. Start it or choose "
                    "its context and run this again; CLUSTER=kind makes a new one"
                )
            self.up.kubectl = Kubectl(self.up.target.context)
            if self.kubectl.answers():
                self._look()
            for stage in ("images", "cluster", "registry", "gateway"):
                self._stage(stage)
            with contextlib.ExitStack() as held:
                fresh = self.kubectl.find("namespace", PLATFORM) is None
                if not fresh:
                    self._enter(held)
                for stage in STAGES[4:]:
                    self._note(stage)
                    self._guarded(stage) if stage in GUARDED else self._stage(stage)
                    if fresh and stage == "deploy":  # now there is a place for the Lease
                        self._enter(held)
                return self.records[-1]
        except FAILURES as error:
            raise Stopped(self._words(stage, error)) from error

    def _enter(self, held: contextlib.ExitStack) -> None:
        """Alone from here on; what another delivery did meanwhile counts."""
        held.enter_context(deploy.alone(self.kubectl, self._say, self.asked.wait_s, lease=LEASE))
        self._look()
        self.began = ledger.noted(self.kubectl, PLATFORM)
        if self.began:
            self._say(
                f"goes on after the delivery of {self.began.get('commit', '?')[:12]} by {self.began.get('who', '?')}, "
                f"which did not end; it was at: {self.began.get('stage', '?')}"
            )

    def _look(self) -> None:
        """What was delivered before, and whether this commit may follow it."""
        self.records = ledger.read(self.kubectl, PLATFORM)
        for words in ledger.gaps(self.records):
            self._say(f"WARNING: {words}")
        standing = decisions.last_standing(self.records)
        recorded = standing.commit if standing else ""
        relation = provenance.relation(self.commit, recorded)
        refusal = decisions.commit_refusal(relation, self.commit, recorded, allow_older=self.asked.allow_older)
        if refusal:
            raise FellShort(refusal)
        if words := decisions.commit_words(relation, self.commit, recorded):
            self._say(words)

    def _stage(self, name: str) -> None:
        with self.board.stage(name) as stage:
            getattr(self, name)(stage)

    def _guarded(self, name: str) -> None:
        try:
            self._stage(name)
        except DeployRefused:  # nothing was changed
            raise
        except FAILURES as error:
            if self.applied and self.kubectl.answers():
                self._roll_back(name, error)
            raise

    def images(self, stage: Stage) -> None:
        """Build what changed, or take the given digests; an environment that promotes never builds."""
        if not self.digests and ENVIRONMENT.promotes_from:
            self.digests = restore.promoted(ENVIRONMENT.promotes_from, self.up.target.context, self.commit)
            stage.figure(f"those of {ENVIRONMENT.promotes_from}")
        if self.digests:
            stage.figure(f"{len(self.digests)} by digest, not built")
        else:
            self.up.images(stage)

    def cluster(self, stage: Stage) -> None:
        """The environment's cluster, made where none answers and one was asked for."""
        self.up.cluster(stage)

    def registry(self, stage: Stage) -> None:
        """Push what was built; look whether what was given is there."""
        if not self.digests:
            self.up.registry(stage)
            self.digests = {f"flightdeck/{it}": images.pushed(self.state)[f"flightdeck/{it}"] for it in self.up.tags}
            return
        self.up.models_registry(stage)
        if gone := there.missing(self.digests.values()):
            raise ManifestError("; ".join(f"{it}: {why}" for it, why in gone.items()) + "; nothing was changed")
        stage.figure("all there")

    def gateway(self, stage: Stage) -> None:
        """Gateway API and Envoy Gateway."""
        self.up.gateway(stage)

    def deploy(self, stage: Stage) -> None:
        """The overlay under the environment's names, refused as a whole when the API server would not take it."""
        if not self.kubectl.find("namespace", PLATFORM):
            self.up.note_made("made_namespaces")
        self.documents = overlays.documents(self.up.overlay, self.state, digests=self.digests)
        self.applied = True  # from here on something may be other than before
        tell = self.up.teller(stage)
        changed = overlays.apply(self.kubectl, self.up.overlay, self.documents, tell=tell)
        stage.figure(f"overlay {self.up.overlay}: {len(changed) or 'nothing'} changed")

    def ready(self, stage: Stage) -> None:
        """Every part of it."""
        self.up.ready(stage)

    def smoke(self, stage: Stage) -> None:
        """The pipelines load, and the champion answers through the Gateway with the version that is recorded."""
        if lacking := training.jobs_load(self.kubectl, overlays.models()):
            raise FellShort(f"smoke: Dagster has no {', '.join(lacking)}")
        stage.figure("pipelines load")
        for model in overlays.models():
            release = champion.serving(self.kubectl, model)
            if release is None:
                stage.figure(f"{model} has no champion yet: asked when it has")
                continue
            with users.way(self.kubectl) as url:
                stage.figure(*users.smoke(url, self._host(model), release, self._bodies()[0]))
            self.smoked = True

    def load(self, stage: Stage) -> None:
        """Short, bounded, to this machine only."""
        if not self.smoked:
            stage.figure("nothing serves yet")
            return
        with users.way(self.kubectl) as url:
            found = users.load(url, ENVIRONMENT.load, requests_around(users.clock(self.kubectl)))
        stage.figure(*(f"{it.name} {it.found}" for it in found.findings))
        if not found.ok:
            raise FellShort(f"load: the users met less than they should:\n{load_verdict.words(found)}")

    def training(self, stage: Stage) -> None:
        """Where what a model is made from changed since the last recorded training."""
        for model in overlays.models():
            now, found = provenance.training_inputs(model), training.versions(self.kubectl, model)
            before = decisions.trained_from(self.records, model) or training.told_by_card(self.kubectl, model, now)
            because = decisions.retrain_because(before, now, serves=any(it.serves for it in found))
            self.models[model] = Serving(trained_from=now if because else before)
            if not because:
                stage.figure(f"{model}: nothing that it is made from changed")
                continue
            stage.figure(f"{model}: {because}")
            if not found and model == self.up.run.model:
                self.up.pipeline(stage)
                continue
            self._train(stage, model, now, rebuild=decisions.features_rebuilt(before, now))

    def _train(self, stage: Stage, model: str, now: TrainingInputs, *, rebuild: bool) -> None:
        inputs = now.model_dump_json()
        known = self.began.get("run", "") if self.began.get("inputs") == inputs else ""
        if known:
            stage.figure(f"goes on with run {known[:8]}")
        done = training.train(
            self.kubectl, model, rebuild=rebuild, run_id=known, tell=self.up.teller(stage),
            started=lambda run: self._note("training", run=run, inputs=inputs),
        )  # fmt: skip
        stage.figure(f"trained in {done.seconds:.0f} s")
        if done.refused:
            stage.figure(done.refused)
            self.refusals.append(done.refused)

    def rollout(self, stage: Stage) -> None:
        """Hand the candidate over and follow it; promotion is the operator's."""

        def say(words: str) -> None:
            stage.tell(words)
            self._say(words)

        for model in overlays.models():
            found = training.versions(self.kubectl, model)
            result = rollout.hand_over(
                self.kubectl, model, found, host=self._host(model), bodies=self._bodies, say=say,
                rate_per_s=ENVIRONMENT.requests_per_s, timeout_s=ENVIRONMENT.rollout_timeout_s,
                count=self.up.counter(stage),
            )  # fmt: skip
            self._follow_up(stage, model, result)
            with forward(self.kubectl, PLATFORM, "mlflow", 5000) as tracking:
                of = training.made_from(tracking, model, result.release.model.version)
            if of is None:
                stage.figure(
                    f"the card of v{result.release.model.version} cannot be read: its digests are not recorded"
                )
            kept = self.models[model].trained_from
            self.models[model] = Serving(release=result.release, made_from=of, trained_from=kept)

    def _follow_up(self, stage: Stage, model: str, result: Result) -> None:
        """What a rollout came to, and whether what serves after it answers."""
        stage.figure(result.words)
        self.refusals += [result.refused] if result.refused else []
        self.unfinished = self.unfinished or result.open
        with users.way(self.kubectl) as url:
            stage.figure(*users.smoke(url, self._host(model), result.release, self._bodies()[0]))

    def card(self, stage: Stage) -> None:
        """What serves, for CI to compare with; skipped with words where nobody asked for one."""
        try:
            stage.figure(cards.publish_card(self.models, self.kubectl, self.state))
        except FAILURES as error:  # what was delivered serves, and is recorded
            stage.expect(False, str(error))

    def ledger(self, stage: Stage) -> None:
        """One record more."""
        verdict, reason = Verdict.DELIVERED, "all of it serves"
        if self.unfinished:
            verdict, reason = Verdict.UNDER_WAY, self.unfinished
        if self.refusals:
            verdict, reason = Verdict.CANDIDATE_REFUSED, "; ".join(self.refusals)
        stage.figure(f"delivery {self._record(verdict, reason, self.documents).number}: {verdict}")
        stage.expect(verdict is Verdict.DELIVERED, reason)

    def _record(
        self, verdict: Verdict, reason: str, documents: list[Document], *, undoes: int | None = None
    ) -> DeliveryRecord:
        before = self.records[-1] if self.records else None
        took = [
            StageTime(name=it.name, seconds=round(it.seconds, 1)) for it in self.board.stages.values() if it.started
        ]
        record = DeliveryRecord(
            number=(before.number if before else 0) + 1, at=dt.datetime.now(dt.UTC).replace(microsecond=0),
            environment=ENVIRONMENT.name, overlay=self.up.overlay, commit=self.commit, who=self.who, verdict=verdict,
            reason=reason, images=self.digests, manifests=ledger.digest(documents),
            lock_sha256=provenance.lock_sha256(), models=self.models or (before.models if before else {}),
            stages=tuple(took), undoes=undoes, previous=before.sha256 if before else "",
        )  # fmt: skip
        ledger.append(self.kubectl, PLATFORM, record, documents)
        ledger.clear(self.kubectl, PLATFORM)
        self.records.append(record)
        copy = self.state / COPIES / f"{ENVIRONMENT.name}.json"  # of the newest one, for whoever started this
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(record.text + "\n")
        return record

    def _roll_back(self, stage: str, error: Exception) -> None:
        """Deploy the last recorded delivery that stands again, and record that.

        Raises:
            Stopped: there is none, or that fell short as well.
        """
        why = f"{stage}: {error}"
        target = decisions.last_standing(self.records)
        if target is None:
            self.models = {}
            self._record(Verdict.FAILED, f"{why}; nothing was recorded before to go back to", self.documents)
            raise Stopped(
                f"{why}\nno delivery was recorded before, so there is nothing to roll back to; what serves was left "
                "alone. Mend it and deliver again, or `make down`."
            ) from error
        self._say(f"{stage} fell short: rolls back to delivery {target.number} ({target.commit[:12]})")
        self._note(f"rolling back to delivery {target.number}")
        try:
            restore.restore(self.kubectl, target, applied=self.documents, say=self._say)
        except FAILURES as second:
            if self.kubectl.answers():
                self._record(Verdict.FAILED, f"{why}; rolling back to {target.number}: {second}", self.documents)
            raise Stopped(
                f"{why}\nrolling back to delivery {target.number} fell short, too: {second}\n"
                "What served before is left alone. See docs/runbooks/delivery-failed.md"
            ) from second
        self.models = {}
        self._record(Verdict.ROLLED_BACK, f"{why}; delivery {target.number} was deployed again", self.documents)
        raise Stopped(
            f"{why}\nrolled back: delivery {target.number} ({target.commit[:12]}) is deployed again"
        ) from error

    def _words(self, stage: str, error: BaseException) -> str:
        """What a failure outside of a roll-back means for what serves."""
        if stage not in ("", "images") and not self.kubectl.answers():
            return (
                f"{stage}: {self.up.target.context} does not answer: {error}\n"
                "The release that served before keeps serving there, and nothing was rolled back. Once the cluster "
                "answers, run the same again: it goes on from what is there "
                f"(make deliver ENVIRONMENT={ENVIRONMENT.name})."
            )
        return f"{stage}: {error}" if stage else str(error)

    def _note(self, stage: str, **more: str) -> None:
        """For whoever looks meanwhile, and for the run after a kill."""
        if self.kubectl.find("namespace", PLATFORM) is None:
            return
        kept: dict[str, str] = {key: self.began[key] for key in ("run", "inputs") if key in self.began}
        self.began = {"commit": self.commit, "who": self.who, "stage": stage, **kept, **more}
        ledger.note(self.kubectl, PLATFORM, self.began)

    def _bodies(self) -> list[bytes]:
        """Real requests around the environment's clock."""
        if not self.bodies:
            self.bodies = [it.body for it in requests_around(users.clock(self.kubectl))]
        return self.bodies

    @staticmethod
    def _host(model: str) -> str:
        return "" if len(overlays.models()) == 1 else f"{model}.localhost"

    def _say(self, words: str) -> None:
        self.board.say(words)
