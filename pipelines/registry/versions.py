"""Entry point: register a judged candidate, promote a version, find the champion, fetch and verify."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Collection
from pathlib import Path

from flightdeck.contracts import approval
from flightdeck.contracts.artefact import ArtefactError
from flightdeck.contracts.card import ModelCard, SignedCard
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import ModelRef, Release
from pipelines.gates.gate import REASON_CHARACTERS, GateReport, tell
from pipelines.registry.artefacts import adopt, opened
from pipelines.registry.card_page import page
from pipelines.registry.mlflow_adapter import (
    CHAMPION,
    MlflowRegistry,
    RegistryRefused,
    tracking_uri_or_env,
)
from pipelines.registry.signing import approve, card_sha256, sign, signing_key, trusted_keys, verify
from pipelines.training.candidate import ARTEFACT_PATH, Candidate

CARD_FILE = "card.json"
ALIAS_WRITER_ENV = "FLIGHTDECK_CHAMPION_ALIAS"  # names who writes the alias of an installation, when it is not us


class NotPromotable(RuntimeError):
    """The version's own records do not allow it to serve."""


def register(candidate: Candidate, report: GateReport) -> ModelRef:
    """Make the candidate a version, whatever its verdict: refused ones stay visible, and only `promote` lets one serve.

    The card gets the version, is signed, and goes with the page into the run and beside the candidate. With the verdict
    PROMOTE the version gets an approval as well, without which no release of it is let in. The tag `verdict` is set
    last: a version without it was not finished.

    Raises:
        ValueError: the report is about another candidate, or there is no usable signing key.
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or refuses.
    """
    if report.card.sha256 != candidate.sha256:
        raise ValueError(f"the report is about {report.card.sha256}, the candidate is {candidate.sha256}")
    key = signing_key(candidate.layout.keys)
    opened(candidate.layout.artefacts, candidate.sha256)
    registry = MlflowRegistry(candidate.tracking_uri)
    facts = candidate.facts
    version = registry.create_version(
        candidate.spec.name,
        candidate.run_id,
        ARTEFACT_PATH,
        {
            "sha256": candidate.sha256,
            "feature_service": candidate.spec.feature_service,
            "horizon_min": str(candidate.spec.horizon_min),
            "until_utc": facts.until_utc.isoformat(),
            "note": facts.note,
        },
        f"{report.verdict.value}: {report.reason}"[:REASON_CHARACTERS],
    )
    card = report.card.model_copy(update={"version": version})
    signed = sign(card, key)
    report.page.write_text(page(card, report.pictures, candidate.spec))
    folder = candidate.layout.candidates / candidate.run_id
    (folder / CARD_FILE).write_text(signed.model_dump_json(indent=2))
    with tempfile.TemporaryDirectory() as draft:
        (Path(draft) / CARD_FILE).write_text(signed.model_dump_json(indent=2))
        registry.upload(candidate.run_id, Path(draft))
    tell(registry, candidate.run_id, report)
    word = approve(card, key) if report.verdict is Verdict.PROMOTE else None
    tags = {"reason": report.reason[:REASON_CHARACTERS]}
    if word:
        tags[approval.TAG] = word.model_dump_json(by_alias=True)
    registry.tag_version(candidate.spec.name, version, {**tags, "verdict": report.verdict.value})
    return ModelRef(name=candidate.spec.name, version=version, sha256=candidate.sha256, approval=word)


def promote(ref: ModelRef, *, layout: StateLayout | None = None, tracking_uri: str | None = None) -> None:
    """Point the alias `champion` to a version that the gates let pass.

    The alias is a copy for people and tools; what serves is told by the rollout. In the lab only this function sets it,
    in a cluster only the rollout operator.

    Raises:
        NotPromotable: no PROMOTE verdict, another digest, a card that a trusted key did not sign for this version, or
            another writer of the alias.
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or knows no such version.
    """
    may_write_alias(ref.name)
    layout = layout or StateLayout.from_env()
    registry = MlflowRegistry(tracking_uri_or_env(tracking_uri))
    tags = dict(registry.version(ref.name, ref.version).tags)
    if tags.get("verdict") != Verdict.PROMOTE.value:
        raise NotPromotable(
            f"{ref.name} v{ref.version} has verdict {tags.get('verdict', 'none')}: {tags.get('reason', 'never gated')}"
        )
    if tags.get("sha256") != ref.sha256:
        raise NotPromotable(f"{ref.name} v{ref.version} is {tags.get('sha256')}, asked for {ref.sha256}")
    try:
        card = checked_card(registry, ref.name, ref.version, trusted_keys(layout.keys))
    except (ValueError, RegistryRefused) as error:
        raise NotPromotable(f"{ref.name} v{ref.version}: no card to trust: {error}") from error
    if (card.verdict, card.sha256, card.version) != (Verdict.PROMOTE, ref.sha256, ref.version):
        raise NotPromotable(
            f"{ref.name} v{ref.version}: its signed card says {card.verdict.value} "
            f"for version {card.version}, {card.sha256}"
        )
    registry.set_alias(ref.name, CHAMPION, ref.version)


def may_write_alias(name: str) -> None:
    """One writer per installation.

    Raises:
        NotPromotable: it is somebody else.
    """
    if writer := os.environ.get(ALIAS_WRITER_ENV):
        raise NotPromotable(
            f"the alias {CHAMPION} of {name} is written by the {writer} here, as a copy of what serves; ask for the "
            f"release instead: kubectl flightdeck release {name}"
        )


def load_champion(name: str, *, tracking_uri: str | None = None) -> ModelRef | None:
    """The version the alias `champion` points to, None when nothing was promoted yet.

    Raises:
        RegistryUnavailable: MLflow does not answer: that is not the same as no champion.
        RegistryRefused: the version carries no digest.
    """
    found = MlflowRegistry(tracking_uri_or_env(tracking_uri)).alias(name, CHAMPION)
    return None if found is None else _ref(found)


def find_version(name: str, version: str, *, tracking_uri: str | None = None) -> ModelRef:
    """One version by number, or by the alias `champion`.

    Raises:
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or knows no such version.
    """
    registry = MlflowRegistry(tracking_uri_or_env(tracking_uri))
    if version == CHAMPION:
        found = registry.alias(name, CHAMPION)
        if found is None:
            raise RegistryRefused(f"{name} has no champion yet")
        return _ref(found)
    return _ref(registry.version(name, version))


def promoted_version(name: str, version: str, *, tracking_uri: str | None = None) -> tuple[ModelRef, str]:
    """A version that may be rolled out, and its feature service.

    Raises:
        RegistryRefused: MLflow knows no such version, or its verdict is not PROMOTE. RegistryUnavailable: no answer.
    """
    ref = find_version(name, version, tracking_uri=tracking_uri)
    tags = dict(MlflowRegistry(tracking_uri_or_env(tracking_uri)).version(name, ref.version).tags)
    if tags.get("verdict") != Verdict.PROMOTE.value:
        raise RegistryRefused(
            f"{name} v{ref.version} may not be rolled out: {tags.get('verdict', 'no verdict')}: "
            f"{tags.get('reason', 'never gated')}"
        )
    return ref, tags["feature_service"]


def _ref(found: object) -> ModelRef:
    tags = dict(getattr(found, "tags", {}))
    name, version = str(getattr(found, "name", "?")), str(getattr(found, "version", "?"))
    if "sha256" not in tags:
        raise RegistryRefused(f"{name} v{version} has no tag sha256; it was not registered by `flightdeck gate`")
    return ModelRef(
        name=name, version=version, sha256=tags["sha256"], image=tags.get("image"), approval=approval.in_tags(tags)
    )


def fetch(ref: ModelRef, layout: StateLayout, *, tracking_uri: str | None = None) -> Path:
    """The artefact's folder in the local store, downloaded when absent, checked to the last byte.

    Raises:
        ArtefactError: what MLflow holds is not what was registered.
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or holds no such artefact.
    """
    folder = layout.artefacts / ref.sha256
    if not folder.is_dir():
        registry = MlflowRegistry(tracking_uri_or_env(tracking_uri))
        run_id = str(registry.version(ref.name, ref.version).run_id)
        with tempfile.TemporaryDirectory() as draft:
            adopt(layout.artefacts, registry.download(run_id, ARTEFACT_PATH, Path(draft)), ref.sha256)
    opened(layout.artefacts, ref.sha256)
    return folder


def checked_card(registry: MlflowRegistry, name: str, version: str, trusted: Collection[str]) -> ModelCard:
    """The version's card, when a trusted key signed it.

    Raises:
        SignatureRefused: another key or altered content.
        RegistryUnavailable, RegistryRefused: it cannot be read.
    """
    return verify(signed_card(registry, name, version), trusted)


def signed_card(registry: MlflowRegistry, name: str, version: str) -> SignedCard:
    """The version's card as it was kept; whoever relies on it checks its signature.

    Raises:
        RegistryUnavailable, RegistryRefused: it cannot be read.
    """
    run_id = str(registry.version(name, version).run_id)
    with tempfile.TemporaryDirectory() as draft:
        return SignedCard.model_validate(json.loads(registry.download(run_id, CARD_FILE, Path(draft)).read_text()))


@dataclasses.dataclass(frozen=True)
class Verified:
    """A version whose card and artefact were both checked.

    Args:
        unapproved: why no release of it would be let in; empty when the gate approved exactly this version and card.
    """

    ref: ModelRef
    card: ModelCard
    folder: Path
    unapproved: str


def verify_version(
    name: str, version: str, layout: StateLayout, *, tracking_uri: str | None = None, public_key: str | None = None
) -> Verified:
    """Check signature, digest and version of one registered model, and its approval.

    Args:
        public_key: hex of the trusted key (default: this installation's own).
    Raises:
        SignatureRefused, ArtefactError: something does not fit; the message says what.
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or knows no such version.
    """
    registry = MlflowRegistry(tracking_uri_or_env(tracking_uri))
    ref = find_version(name, version, tracking_uri=tracking_uri)
    trusted = (public_key,) if public_key else trusted_keys(layout.keys)
    card = checked_card(registry, ref.name, ref.version, trusted)
    if (card.model, card.version, card.sha256) != (ref.name, ref.version, ref.sha256):
        raise ArtefactError(
            f"{ref.name} v{ref.version} is {ref.sha256}; its card is about {card.model} v{card.version}, {card.sha256}"
        )
    return Verified(ref, card, fetch(ref, layout, tracking_uri=tracking_uri), _unapproved(ref, card, trusted))


def _unapproved(ref: ModelRef, card: ModelCard, trusted: Collection[str]) -> str:
    found = card_sha256(card)
    if ref.approval is not None and ref.approval.card_sha256 != found:
        return f"its approval is of the card {ref.approval.card_sha256[:12]}, this one is {found[:12]}"
    asked = Release(image="any", model=ref, feature_service=card.feature_service)  # type: ignore[call-arg]
    return approval.refusal(asked, trusted)
