"""From whatever is there to a stack that answers: the stages of `flightdeck cluster up`, each safe to repeat."""

from __future__ import annotations

import dataclasses
import datetime as dt
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import yaml

from flightdeck.cluster import champion, gateway, images, kind, overlays, record, registry
from flightdeck.cluster.commands import Kubectl, current_context
from flightdeck.cluster.dagster_client import DagsterClient, Outcome
from flightdeck.cluster.dagster_deployed import deployed
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import CHECKOUT, IMAGES, PLATFORM, SERVING
from flightdeck.cluster.readiness import wait_ready
from flightdeck.cluster.target import KIND_NAME, How, Refused, Target, choose
from flightdeck.contracts.release import Release
from flightdeck.progress import Board, Stage

STAGES = ("images", "cluster", "registry", "gateway", "deploy", "ready", "pipeline", "champion", "answer")
READY_S = 480.0


@dataclasses.dataclass(frozen=True)
class FirstRun:
    """What an empty cluster is given: specs/first_run.yaml."""

    model: str
    first: dt.date
    until: dt.datetime


def first_run(path: Path = CHECKOUT / "specs" / "first_run.yaml") -> FirstRun:
    """Read it.

    Raises:
        ValueError: a field is missing or of another kind.
    """
    content = yaml.safe_load(path.read_text())
    try:
        return FirstRun(content["model"], content["from"], content["until"].astimezone(dt.UTC))
    except (KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: needs model, from (a day) and until (a time with zone); found {content}") from error


class Up:
    """One run of all stages; what was made is written down as it is made."""

    def __init__(self, state: Path, board: Board, *, wanted: str | None, sure: bool, overlay: str | None) -> None:
        self.state, self.board, self.wanted, self.sure = state, board, wanted, sure
        self.overlay_name = overlay
        self.target: Target
        self.kubectl: Kubectl
        self.run, self.tags = first_run(), dict[str, str]()

    def all(self) -> Release:
        """Every stage; returns what serves."""
        self.aim()
        for name in STAGES:
            with self.board.stage(name) as stage:
                getattr(self, name)(stage)
        return self.release

    def aim(self) -> None:
        """Which cluster, and with which overlay; nothing is touched.

        Raises:
            Refused: it looks like production, or no overlay is known to fit.
        """
        current = current_context()
        answers = current is not None and Kubectl(current).answers()
        self.target = choose(current, answers=answers, wanted=self.wanted, sure=self.sure)
        self.overlay = self.overlay_name or self.target.overlay
        if not self.overlay:
            raise Refused(
                f"{self.target.context} is neither kind nor minikube: which overlay fits? make up OVERLAY=staging, "
                "or one of yours that names its registry for models (docs/kubernetes.md); nothing was touched"
            )
        self.record = record.read(self.state, self.target.context)

    def images(self, stage: Stage) -> None:
        """Build what changed."""
        for name in IMAGES:
            built = images.build(name, tell=self.teller(stage, name))
            self.tags[name] = built.tag
            stage.figure(f"{name} {built.words}")

    def cluster(self, stage: Stage) -> None:
        """The current context, or a cluster of our own."""
        self.kubectl, name = Kubectl(self.target.context), self.target.kind_name or KIND_NAME
        minikube = self.target.how is How.MINIKUBE
        if self.target.how is How.EXISTING:
            stage.figure(f"{self.target.context} answers")
            return
        if not (kind.minikube_is_there() if minikube else name in kind.clusters()):
            self.note_made("made_cluster")  # before it is: half a cluster has to go, too
            stage.figure(f"made {self.target.context}")
        if minikube:
            kind.start_minikube(self.teller(stage))
        else:
            kind.ensure_kind(name, self.teller(stage))

    def registry(self, stage: Stage) -> None:
        """A registry that host, nodes and pods reach, with our images in it."""
        chosen = registry.ensure(self.target, tell=self.teller(stage))
        if chosen.made:
            self.note_made("made_registry")
        for name in IMAGES:
            reference = images.push(
                name, chosen.pull, state=self.state, tag=self.tags[name], tell=self.teller(stage, name)
            )
            stage.figure(f"{name}@{reference.rpartition('@')[2][7:19]}")

    def models_registry(self, stage: Stage) -> None:
        """Where the gate of a kind cluster pushes models, also when images come from elsewhere."""
        name = self.target.kind_name
        if self.overlay == "kind" and name and registry.beside_kind(name, tell=self.teller(stage)):
            self.note_made("made_registry")

    def gateway(self, stage: Stage) -> None:
        """Gateway API and Envoy Gateway."""
        made = gateway.ensure_gateway(self.kubectl, self.teller(stage))
        if made:
            self.note_made("made_gateway")
        stage.figure("installed Envoy Gateway" if made else "Envoy Gateway is there")

    def deploy(self, stage: Stage) -> None:
        """The overlay, refused as a whole when the API server would not take it."""
        if not self.kubectl.find("namespace", PLATFORM):
            self.note_made("made_namespaces")
        changed = overlays.bring(self.kubectl, self.overlay, self.state, tell=self.teller(stage))
        stage.figure(f"overlay {self.overlay}: {len(changed) or 'nothing'} changed")

    def ready(self, stage: Stage) -> None:
        """Every part of it."""
        parts = wait_ready(self.kubectl, (PLATFORM, SERVING), timeout_s=READY_S, tell=self.counter(stage))
        stage.figure(f"{len(parts)} parts ready")

    def pipeline(self, stage: Stage) -> None:
        """Data, features and a version that may serve; nothing when one is registered."""
        run = self.run
        with forward(self.kubectl, PLATFORM, "mlflow", 5000) as tracking:
            self.versions = champion.versions(tracking, run.model)
        if any(it.serves for it in self.versions):
            stage.figure(f"{run.model} has {len(self.versions)} versions")
            return
        stand_clock(self.kubectl, run.until)
        with deployed(self.kubectl) as client:
            tell = self.teller(stage)
            outcomes = [backfill(client, run, run.until, tell)]
            outcomes.append(client.run(f"train_{run.model}", {"until": run.until.isoformat()}, tell=tell))
        for outcome in (*outcomes, outcomes[-1].then):
            if outcome:
                stage.figure(f"{outcome.job} {outcome.seconds:.0f} s")
        with forward(self.kubectl, PLATFORM, "mlflow", 5000) as tracking:
            self.versions = champion.versions(tracking, run.model)

    def champion(self, stage: Stage) -> None:
        """The first release, when nothing serves yet; whatever comes later is for the rollout."""
        serves = champion.serving(self.kubectl, self.run.model)
        if serves:
            self.release = serves
            stage.figure(f"{serves.short} serves")
            return
        version = champion.may_serve(self.versions)
        self.release = champion.serve_first(self.kubectl, self.run.model, version, self.counter(stage))
        stage.figure(self.release.short)

    def answer(self, stage: Stage) -> None:
        """Through the Gateway, as a user."""
        url = gateway.url(self.kubectl)
        deadline = time.monotonic() + 90
        while True:
            try:
                answer = httpx.get(f"{url}/v1/model", timeout=5)
                if answer.status_code == 200:
                    break
                words = f"{answer.status_code} {answer.text[:100]}"
            except httpx.HTTPError as error:
                words = str(error)
            if not stage.expect(time.monotonic() < deadline, f"{url}/v1/model: {words}"):
                return
            stage.tell(words)
            self.board.tick(stage)
            time.sleep(0.5)
        stage.figure(f"{url} answers")

    def addresses(self) -> dict[str, str]:
        """Where to go from here."""
        url = gateway.url(self.kubectl)
        page = f"kubectl -n {PLATFORM} port-forward service/"
        return {
            "API": f"{url}/v1/predict",
            "API docs": f"{url}/docs",
            "MLflow": f"{page}mlflow 5000, then http://localhost:5000",
            "Dagster": f"{page}dagster-webserver 3000, then http://localhost:3000",
            "Prometheus": f"{page}prometheus 9090, then http://localhost:9090",
            "Rollouts": f"kubectl -n {SERVING} get modelrollouts",
        }

    def note_made(self, what: str) -> None:
        """Write down at once that it is ours to take away."""
        setattr(self.record, what, True)
        record.write(self.state, self.record)

    def teller(self, stage: Stage, about: str = "") -> Callable[[str], None]:
        """For what works: its words become those of the stage."""

        def tell(words: str) -> None:
            stage.tell(f"{about}: {words}" if about else words)
            self.board.tick(stage)

        return tell

    def counter(self, stage: Stage) -> Callable[[str, int, int], None]:
        """The same, for work that can be counted."""

        def tell(doing: str, done: int, total: int) -> None:
            stage.tell(doing, done, total)
            self.board.tick(stage)

        return tell


def backfill(client: DagsterClient, run: FirstRun, now: dt.datetime, tell: Callable[[str], None]) -> Outcome:
    """Data and features of every day that is whole by `now`; a day that is there already changes nothing.

    Raises:
        DagsterError: it fails, or Dagster does not answer.
    """
    last = now.date() - dt.timedelta(days=1)
    return client.run("backfill", {"go_on_without_bad_days": True}, first=run.first, last=last, tell=tell)


def stand_clock(kubectl: Kubectl, at: dt.datetime) -> None:
    """Everybody's now is `at`: the data end there."""
    text = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    kubectl("-n", PLATFORM, "exec", "deployment/dagster-code", "--", "flightdeck", "clock", "set", text)
