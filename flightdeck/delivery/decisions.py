"""Decisions of a delivery. Pure: what is to be done, from what is recorded and what is there."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from flightdeck.cluster.manifests import FOUNDATIONS, Document
from flightdeck.contracts.card import Digests
from flightdeck.contracts.ledger import DeliveryRecord, StageTime, TrainingInputs
from flightdeck.contracts.release import Release

KEPT = frozenset({*FOUNDATIONS, "PersistentVolumeClaim", "StatefulSet", "ModelRollout", "HTTPRoute", "Secret"})
# What would shorten a stage, for the three longest at the end.
SHORTER = {
    "images": "keep the builder's cache, or deliver the digests of an earlier build with --digests",
    "cluster": "keep the cluster, or set DEPLOY_RUNNER to a runner beside one",
    "registry": "a registry nearer to the builder; only changed layers travel",
    "gateway": "it is installed once per cluster",
    "deploy": "nothing to gain: the API server checks every object before any is applied",
    "ready": "pull images to the nodes beforehand; more cores for the pods that start",
    "smoke": "nothing to gain",
    "load": "a shorter load test in k8s/environments.yaml",
    "training": "fewer trials in the model's spec, more cores, or a change that touches no training input",
    "rollout": "more requests a second (each step waits for evidence), a plan with fewer steps, wider margins",
    "card": "nothing to gain",
    "ledger": "nothing to gain",
}


class Relation(enum.StrEnum):
    """How the commit to deliver stands to the one that was delivered last."""

    FIRST = "first"
    SAME = "same"
    NEWER = "newer"
    OLDER = "older"
    BESIDE = "beside"  # neither comes from the other: a force-push, or another branch
    UNKNOWN = "unknown"  # the clone is too shallow to tell


def commit_refusal(relation: Relation, commit: str, recorded: str, *, allow_older: bool) -> str:
    """Why this commit is not delivered; empty when it is."""
    if allow_older:
        return ""
    if relation is Relation.OLDER:
        return (
            f"{commit[:12]} is older than {recorded[:12]}, which was delivered last: add --allow-older if that is "
            "meant, or go back to a recorded delivery with `flightdeck release undo`"
        )
    if relation is Relation.UNKNOWN:
        return (
            f"this clone is too shallow to tell whether {commit[:12]} is older than {recorded[:12]}, which was "
            "delivered last: fetch its history (git fetch --unshallow; fetch-depth: 0 on GitHub), or --allow-older"
        )
    return ""


def commit_words(relation: Relation, commit: str, recorded: str) -> str:
    """What a reader of the log should know of it; empty when nothing is unusual."""
    if relation is Relation.BESIDE:
        return f"{commit[:12]} does not come from {recorded[:12]}, which was delivered last: a force-push or a branch"
    if relation is Relation.OLDER:
        return f"{commit[:12]} is older than {recorded[:12]}, which was delivered last"
    return ""


def last_standing(records: Sequence[DeliveryRecord]) -> DeliveryRecord | None:
    """The newest record that one can go back to."""
    return next((it for it in reversed(records) if it.stands), None)


def to_undo(records: Sequence[DeliveryRecord], number: int | None) -> DeliveryRecord:
    """The record to deploy again: the named one, else the last that stands and was something else than the newest.

    Raises:
        ValueError: there is none, or it never stood.
    """
    if number is None:
        standing = [it for it in records if it.stands]
        for it in reversed(standing[:-1]):
            if (it.manifests, releases_of(it)) != (standing[-1].manifests, releases_of(standing[-1])):
                return it
        raise ValueError("there is no earlier delivery of something else to go back to; `flightdeck release list`")
    for it in records:
        if it.number == number:
            if not it.stands:
                raise ValueError(f"delivery {number} was {it.verdict}: {it.reason}; it never stood, choose another")
            return it
    there = ", ".join(str(it.number) for it in records) or "none"
    raise ValueError(f"no delivery {number}; there are: {there}")


def releases_of(record: DeliveryRecord) -> dict[str, str]:
    """Model -> id of what served at the end of it."""
    return {name: it.release.id for name, it in record.models.items() if it.release}


def trained_from(records: Sequence[DeliveryRecord], model: str) -> TrainingInputs | None:
    """The inputs of the last training of a model that a delivery recorded."""
    found = (it.models[model].trained_from for it in reversed(records) if model in it.models)
    return next((it for it in found if it is not None), None)


def retrain_because(before: TrainingInputs | None, now: TrainingInputs, *, serves: bool) -> str:
    """Why a model is trained; empty when what it would be made from is what it was made from.

    Args:
        serves: a version is registered that may serve.
    """
    if not serves:
        return "no version may serve yet"
    if before is None:
        return "no delivery recorded what the served version was made from"
    changed = [name for name in TrainingInputs.model_fields if getattr(before, name) != getattr(now, name)]
    return f"{', '.join(changed)} changed since the last training" if changed else ""


def trained_by_image(made_from: Digests | None, revision: str, now: TrainingInputs) -> TrainingInputs | None:
    """What the version that serves was made from, where no delivery recorded it: it was made by this very image.

    Args:
        made_from: as the version's card says. revision: the last commit that changed anything in the pipelines' image,
            which holds all training inputs.
    """
    same = made_from is not None and made_from.git_commit == revision and revision and not revision.endswith("-dirty")
    return now if same else None


def features_rebuilt(before: TrainingInputs | None, now: TrainingInputs) -> bool:
    """Whether a training needs its features built again first."""
    return before is not None and (before.features, before.code) != (now.features, now.code)


def rollout_needed(asked: Release, champion: Release | None, refused: Release | None) -> str:
    """`first`, `rollout`, `refused` (it was sent home before and is not tried again by itself), or empty: it serves."""
    if champion is None:
        return "first"
    if asked.id == champion.id:
        return ""
    return "refused" if refused is not None and refused.id == asked.id else "rollout"


def surplus(applied: Sequence[Document], back_to: Sequence[Document]) -> list[Document]:
    """What a failed delivery brought that the one before did not have; never what holds data or serves users."""
    wanted = {_place(it) for it in back_to}
    return [it for it in applied if it["kind"] not in KEPT and _place(it) not in wanted]


def _place(document: Document) -> tuple[str, str, str]:
    meta = document["metadata"]
    return document["kind"], meta.get("namespace", ""), meta["name"]


def promotable(records: Sequence[DeliveryRecord], commit: str, source: str) -> DeliveryRecord:
    """The good delivery of the environment before, whose digests this one gets.

    Raises:
        ValueError: its newest record is not a delivery of this commit that all serves.
    """
    newest = records[-1] if records else None
    hint = f"deliver there first (make deliver ENVIRONMENT={source}), or give --digests"
    if newest is None:
        raise ValueError(f"nothing was ever delivered to {source}: {hint}")
    if newest.verdict != "delivered":
        raise ValueError(f"the newest delivery to {source} ({newest.number}) was {newest.verdict}: {hint}")
    if newest.commit != commit:
        raise ValueError(f"{source} has {newest.commit[:12]}, this is {commit[:12]}: {hint}")
    return newest


def timetable(stages: Sequence[StageTime]) -> list[str]:
    """Each stage with its seconds, then the three longest with what would shorten them."""
    width = max((len(it.name) for it in stages), default=0)
    whole = sum(it.seconds for it in stages)
    lines = [f"  {it.name:<{width}}  {it.seconds:7.1f} s" for it in stages]
    lines.append(f"  {'all':<{width}}  {whole:7.1f} s ({whole / 60:.1f} minutes)")
    longest = sorted(stages, key=lambda it: -it.seconds)[:3]
    lines.append("The longest, and what would shorten them:")
    lines += [f"  {it.name} ({it.seconds:.0f} s): {SHORTER.get(it.name, 'unknown')}" for it in longest]
    return lines


def digests_in(content: Mapping[str, object], names: Sequence[str]) -> dict[str, str]:
    """Images by digest from a file as `make images` leaves it: `{"digests": {"flightdeck/x": "registry/x@sha256:…"}}`.

    Raises:
        ValueError: one of `names` is missing, or is not named by digest.
    """
    found = content.get("digests")
    if not isinstance(found, Mapping):
        raise ValueError("no `digests` in it; `make images REGISTRY=…` writes such a file (images.json)")
    wanted = [f"flightdeck/{name}" for name in names]
    if missing := [name for name in wanted if "@sha256:" not in str(found.get(name, ""))]:
        raise ValueError(f"no digest of {', '.join(missing)} in it")
    return {name: str(found[name]) for name in wanted}


def asked_release(champion: Release | None, newest: Release, were_champion: Sequence[Release], code: str) -> Release:
    """What a delivery asks for: the newest version that may serve, with the code of this deploy.

    A version that was champion before and is not now was undone by a person: the one that serves stays, under new code.

    Args:
        newest: a release of the newest version that may serve, with the new code.
        were_champion: releases that were champion, newest first. code: image of the predictor by digest.
    """
    if champion is None or int(newest.model.version) > max(
        [int(champion.model.version), *(int(it.model.version) for it in were_champion)]
    ):
        return newest
    return champion.model_copy(update={"image": code})
