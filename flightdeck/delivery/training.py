"""A delivery's training: only when what a model is made from changed; followed to the gate's word."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import httpx

from flightdeck.cluster import champion, images
from flightdeck.cluster.champion import Version
from flightdeck.cluster.commands import Kubectl
from flightdeck.cluster.dagster_client import DagsterClient, RunFailed, train_job
from flightdeck.cluster.dagster_deployed import deployed
from flightdeck.cluster.forward import forward
from flightdeck.cluster.names import PLATFORM
from flightdeck.cluster.up import backfill, first_run
from flightdeck.contracts.card import Digests, SignedCard
from flightdeck.contracts.ledger import TrainingInputs
from flightdeck.delivery import decisions, users

Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a training ended: in seconds of real time, with the gate's reason when it let the candidate not pass."""

    seconds: float
    refused: str = ""


def versions(kubectl: Kubectl, model: str) -> list[Version]:
    """Registered versions, newest first.

    Raises:
        NoChampion, CommandFailed: MLflow does not answer, or there is no way to it.
    """
    with forward(kubectl, PLATFORM, "mlflow", 5000) as tracking:
        return champion.versions(tracking, model)


def train(
    kubectl: Kubectl, model: str, *, rebuild: bool, run_id: str, started: Callable[[str], None], tell: Tell
) -> Trained:
    """Train as of the clock and follow the run, and its gate, to the end.

    Args:
        rebuild: build the features of all days again first: what builds them changed.
        run_id: of a training that an earlier delivery began from the same inputs; empty: begin one.
        started: gets the run's id at once, so that a delivery that is killed goes on with it.
    Raises:
        RunFailed: it did not get as far as a verdict.
        DagsterError, CommandFailed: Dagster does not answer.
    """
    seconds, before = 0.0, versions(kubectl, model)
    with deployed(kubectl) as client:
        if not run_id:
            now = users.clock(kubectl)
            if rebuild:
                seconds += backfill(client, first_run(), now, tell).seconds
            run_id = client.start(client.job(train_job(model)), {"until": now.isoformat()})
            started(run_id)
        try:
            outcome = client.follow(run_id, tell=tell)
        except RunFailed:
            if refused := judged_since(before, versions(kubectl, model)):
                return Trained(seconds, refused)
            raise
    seconds += outcome.seconds + (outcome.then.seconds if outcome.then else 0.0)
    return Trained(seconds, judged_since(before, versions(kubectl, model)))


def judged_since(before: list[Version], after: list[Version]) -> str:
    """Why the gate did not let the newest version pass that came since; empty when it did, or none came. Pure."""
    known = {it.number for it in before}
    fresh = [it for it in after if it.number not in known]
    if not fresh or fresh[0].serves or not fresh[0].verdict:
        return ""
    return f"the gate says {fresh[0].verdict} of v{fresh[0].number}: {fresh[0].reason}"


def jobs_load(kubectl: Kubectl, models: list[str]) -> list[str]:
    """The training jobs that Dagster does not have, though it should; empty when the code location loads whole.

    Raises:
        DagsterError, CommandFailed: it does not load, or there is no way to it.
    """
    with forward(kubectl, PLATFORM, "dagster-webserver", 3000) as url:
        client = DagsterClient(url)
        client.job("daily")  # waits for a code location that still starts
        there = {job.name for job in client.jobs()}
    return [train_job(it) for it in models if train_job(it) not in there]


def signed_card(tracking_uri: str, name: str, number: str) -> SignedCard:
    """The signed card of a version as MLflow has it; whoever relies on it checks its signature.

    Raises:
        httpx.HTTPError, ValueError, KeyError: it cannot be read, or is none.
    """
    query: Mapping[str, str] = {"name": name, "version": number}
    found = httpx.get(f"{tracking_uri}/api/2.0/mlflow/model-versions/get", params=query, timeout=30)
    found.raise_for_status()
    run_id = found.json()["model_version"]["run_id"]
    card = httpx.get(f"{tracking_uri}/get-artifact", params={"run_uuid": run_id, "path": "card.json"}, timeout=30)
    card.raise_for_status()
    return SignedCard.model_validate_json(card.text)


def made_from(tracking_uri: str, name: str, number: str) -> Digests | None:
    """Data, features, code and lock of a version, from its signed card; None when the card cannot be read."""
    try:
        return signed_card(tracking_uri, name, number).card.digests
    except (httpx.HTTPError, ValueError, KeyError):
        return None


def told_by_card(kubectl: Kubectl, model: str, now: TrainingInputs) -> TrainingInputs | None:
    """What the champion was made from where no delivery recorded it: `make up` may have made it, by this very image."""
    serves = champion.serving(kubectl, model)
    if serves is None:
        return None
    with forward(kubectl, PLATFORM, "mlflow", 5000) as tracking:
        made = made_from(tracking, model, serves.model.version)
    return decisions.trained_by_image(made, images.revision("pipelines"), now)
