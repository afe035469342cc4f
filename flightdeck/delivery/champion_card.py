"""Adapter: the champion card as an OCI artefact or a file; and how it is made from what the registries tell."""

from __future__ import annotations

import datetime as dt
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pydantic

from flightdeck.contracts.approval import PUBLIC_KEY_ENV, keys_in
from flightdeck.contracts.card import SignedCard
from flightdeck.contracts.champion_card import ChampionCard, ChampionModel, RegisteredObject
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import Release
from pipelines.features.registry_changes import Described
from pipelines.registry import distribution
from pipelines.registry.signing import SignatureRefused, trusted_keys, verify

REFERENCE_ENV = "FLIGHTDECK_CHAMPION_CARD"
CARD_FILE = "champion-card.json"  # in the artefact
LATEST = "latest"
UNSET = (
    f"comparison with what serves: {REFERENCE_ENV} is not set, so there is no champion to compare with; set it to what "
    "`flightdeck ci champion-card publish` wrote, e.g. ghcr.io/OWNER/flightdeck/champion-card:dev"
)
DO_WHEN_UNREADABLE = (
    f"see that {REFERENCE_ENV} names what CD published and that this job may read it (packages: read; "
    f"{distribution.USER_ENV}, {distribution.PASSWORD_ENV}); where nothing serves yet, unset it"
)


class CardUnreadable(RuntimeError):
    """There should be a champion card and it cannot be read: nothing may be judged without it."""


class CardRefused(RuntimeError):
    """A card that would not tell the truth is not written."""


def publish(card: ChampionCard, reference: str) -> str:
    """Write the card to a file or push it as an OCI artefact; returns where it is, by digest in a registry.

    Raises:
        RegistryFailed: the registry does not answer, or refuses. OSError: the file cannot be written.
    """
    content = (card.model_dump_json(indent=1) + "\n").encode()
    if path := _path_of(reference):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.new")
        fresh.write_bytes(content)
        fresh.replace(path)
        return str(path)
    base, repository, tag = _place(reference)
    models = ", ".join(f"{name} v{it.version}" for name, it in sorted(card.models.items()))
    image = distribution.image_with(
        {CARD_FILE: content}, {"org.opencontainers.image.title": f"what serves in {card.environment}: {models}"}
    )
    distribution.push(image, base, repository, tag)
    shown = base if "://" in reference else base.partition("://")[2]
    return f"{shown}/{repository}@{image.digest}"


def fetch(reference: str) -> ChampionCard:
    """Read it.

    Raises:
        CardUnreadable: it is not there, or is none.
    """
    try:
        if path := _path_of(reference):
            content = path.read_bytes()
        else:
            content = distribution.pull(*_place(reference))[CARD_FILE]
        return ChampionCard.model_validate_json(content)
    except (OSError, KeyError, ValueError, distribution.RegistryFailed) as error:
        raise CardUnreadable(
            f"the champion card {reference} cannot be read: {type(error).__name__}: {error}"
        ) from error


def wanted(given: str | None = None) -> ChampionCard | None:
    """The card that `given`, else the environment, names; None when neither names one.

    Raises:
        CardUnreadable: it is named and cannot be read.
    """
    reference = given or os.environ.get(REFERENCE_ENV)
    return fetch(reference) if reference else None


def unverified(card: ChampionCard) -> str:
    """Checks each model card's signature with the keys of `FLIGHTDECK_PUBLIC_KEY_FILE`; what was not checked, in words.

    Raises:
        SignatureRefused: a card was altered, or is signed by another key.
    """
    named = os.environ.get(PUBLIC_KEY_ENV)
    if not named:
        return f"signatures in the champion card: {PUBLIC_KEY_ENV} names no key, so it is trusted as the registry is"
    try:
        trusted = keys_in(Path(named).read_text())
    except (OSError, ValueError) as error:
        raise SignatureRefused(f"{named}: {error}") from error
    for it in card.models.values():
        verify(it.card, trusted)
    return ""


def described(card: ChampionCard) -> dict[tuple[str, str], Described]:
    """The card's registry as the comparison of registries takes it."""
    return {(it.kind, it.name): Described(it.kind, it.name, dict(it.facts)) for it in card.registry}


def registry_of(found: Iterable[Described]) -> tuple[RegisteredObject, ...]:
    """Described objects as the card holds them, in a fixed order; where a writer has its files is no definition."""
    facts = {(it.kind, it.name): {k: v for k, v in it.facts.items() if k != "source path"} for it in found}
    objects = (RegisteredObject(kind=kind, name=name, facts=kept) for (kind, name), kept in facts.items())
    return tuple(sorted(objects, key=lambda it: (it.kind, it.name)))


def collect(
    cards: Sequence[SignedCard],
    registry: tuple[RegisteredObject, ...],
    *,
    environment: str,
    trusted: Collection[str],
    releases: Mapping[str, Release] | None = None,
    still_read: Sequence[str] = (),
    now_utc: dt.datetime,
) -> ChampionCard:
    """The card of what serves.

    Args:
        cards: one signed model card per serving model.
        releases: model -> its serving release, where one is known.
        trusted: public keys, hex; a card of another key is refused.
    Raises:
        CardRefused: a signature is not trusted, two cards are about one model, or a release reads what the registry
            does not hold.
    """
    models: dict[str, ChampionModel] = {}
    try:
        for signed in cards:
            card = verify(signed, trusted)
            if card.model in models:
                raise CardRefused(f"two cards of {card.model}: v{models[card.model].version} and v{card.version}")
            models[card.model] = ChampionModel(card=signed, release=(releases or {}).get(card.model))
        return ChampionCard(
            environment=environment, written_at=now_utc, models=models, still_read=tuple(still_read), registry=registry
        )
    except (pydantic.ValidationError, SignatureRefused) as error:
        raise CardRefused(str(error)) from error


def trusted_here(layout: StateLayout) -> tuple[str, ...]:
    """The keys that this installation trusts.

    Raises:
        SignatureRefused: none can be read.
    """
    return tuple(trusted_keys(layout.keys))


def read_signed(path: Path) -> SignedCard:
    """A signed model card's file (`card.json` of a candidate).

    Raises:
        CardRefused: it is none.
    """
    try:
        return SignedCard.model_validate_json(path.read_text())
    except (OSError, ValueError) as error:
        raise CardRefused(f"{path} is no signed model card: {error}") from error


def registered_cards(
    names: Sequence[str], tracking_uri: str, trusted: Collection[str], releases: Mapping[str, Release] | None = None
) -> list[SignedCard]:
    """The signed cards of what serves: of the release where one is known, else of what the registry calls champion.

    Raises:
        CardRefused: a model has no champion, or its card is not to be trusted.
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or refuses.
    """
    from pipelines.registry.mlflow_adapter import MlflowRegistry
    from pipelines.registry.versions import load_champion, signed_card

    found = []
    for name in names:
        release = (releases or {}).get(name)  # the alias is a copy that is repaired later
        ref = release.model if release else load_champion(name, tracking_uri=tracking_uri)
        if ref is None:
            raise CardRefused(f"{name} has no champion yet in {tracking_uri}; promote one, or name others with --model")
        signed = signed_card(MlflowRegistry(tracking_uri), name, ref.version)
        try:
            card = verify(signed, trusted)
        except SignatureRefused as error:
            raise CardRefused(str(error)) from error
        if (card.version, card.sha256) != (ref.version, ref.sha256):
            raise CardRefused(
                f"{name} v{ref.version} is {ref.sha256[:12]}; its card is about v{card.version}, {card.sha256[:12]}"
            )
        found.append(signed)
    return found


def registered_here(layout: StateLayout, *, definitions: bool) -> tuple[RegisteredObject, ...]:
    """The feature registry: the state folder's (or the one its settings name), or what the checkout defines.

    Raises:
        RegistryError: it cannot be opened.
    """
    from pipelines.features import registry

    if definitions:
        return registry_of(map(registry.describe, registry.defined_objects(layout)))
    return registry_of(registry.registered(registry.open_store(layout)).values())


def releases_in(text: str) -> tuple[dict[str, Release], tuple[str, ...]]:
    """What ModelRollouts (JSON of `kubectl get modelrollouts -o json`) say: serving releases, and every service read.

    A release that waits, is being rolled out or can be undone to reads its feature service as much as the champion.

    Raises:
        CardRefused: it is no such document.
    """
    try:
        document: Any = json.loads(text)
        items = document["items"] if document.get("kind", "").endswith("List") else [document]
        serving: dict[str, Release] = {}
        services: set[str] = set()
        for item in items:
            if champion := item.get("status", {}).get("champion"):
                release = Release.model_validate(champion)
                serving[release.model.name] = release
            services |= set(_services(item))
        return serving, tuple(sorted(services))
    except (ValueError, KeyError, AttributeError) as error:
        raise CardRefused(f"no ModelRollouts as `kubectl get modelrollouts -o json` prints them: {error}") from error


def _services(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        if isinstance(name := value.get("featureService"), str) and "model" in value:
            yield name
        for part in value.values():
            yield from _services(part)
    elif isinstance(value, list):
        for part in value:
            yield from _services(part)


def _path_of(reference: str) -> Path | None:
    if reference.startswith("file://"):
        return Path(reference.removeprefix("file://"))
    return Path(reference) if reference.startswith(("/", ".")) or reference.endswith(".json") else None


def _place(reference: str) -> tuple[str, str, str]:
    """Scheme and host, repository, and tag or digest.

    Raises:
        ValueError: it names no repository.
    """
    base, path = distribution.address(reference)
    if "@" in path:
        repository, _, tag = path.partition("@")
    else:
        repository, colon, tag = path.rpartition(":")
        repository, tag = (repository, tag) if colon else (path, LATEST)
    if not repository:
        raise ValueError(
            f"{reference} names no repository; it should be like ghcr.io/owner/flightdeck/champion-card:dev"
        )
    return base, repository, tag
