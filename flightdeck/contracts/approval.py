"""The gate's word on a model version, small enough to travel in a Release: what is signed, and how it is checked.

Here because both sides need the very same bytes: the gate job signs them, whoever lets a release serve checks them.
`cryptography` is imported only where a signature is checked: who merely reads a Release does not need it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping

import pydantic

from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.release import Approval, Release

DOMAIN = b"flightdeck.dev/approval/v1\n"  # so that no other signature of the same key can pass for an approval
TAG = "approval"  # of a registered version: an Approval as JSON
PUBLIC_KEY_ENV = "FLIGHTDECK_PUBLIC_KEY_FILE"


def statement(model: str, version: str, sha256: str, feature_service: str, card_sha256: str) -> bytes:
    """What is signed: that this version of a model, with this artefact and this card, got the verdict PROMOTE.

    Args:
        sha256: of the artefact's manifest. card_sha256: of the canonical JSON of the model card.
    """
    content = {
        "model": model, "version": version, "sha256": sha256, "featureService": feature_service,
        "cardSha256": card_sha256, "verdict": Verdict.PROMOTE.value,
    }  # fmt: skip
    return DOMAIN + json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def in_tags(tags: Mapping[str, str]) -> Approval | None:
    """What a registered version carries; None without one, and when it is none: then nothing is approved."""
    try:
        return Approval.model_validate_json(tags[TAG]) if TAG in tags else None
    except pydantic.ValidationError:
        return None


def keys_in(text: str) -> tuple[str, ...]:
    """The public keys of a key file: 64 hex digits (32 raw bytes of Ed25519) per line; `#` begins a comment.

    More than one while a key is replaced: what the old one signed counts until its line goes.

    Raises:
        ValueError: a line is no key, or there is none.
    """
    lines = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    found = tuple(line for line in lines if line)
    for line in found:
        if not re.fullmatch(r"[0-9a-f]{64}", line):
            raise ValueError(f"{line[:20]!r} is not the 64 hex digits of a public Ed25519 key")
    if not found:
        raise ValueError("no public key in it")
    return found


def signed_by(trusted: Collection[str], signature: str, content: bytes) -> str | None:
    """The trusted key (hex) that made a signature (hex) over exactly this content; None when none did."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    for key in trusted:
        try:
            Ed25519PublicKey.from_public_bytes(bytes.fromhex(key)).verify(bytes.fromhex(signature), content)
        except (InvalidSignature, ValueError):
            continue
        return key
    return None


def refusal(release: Release, trusted: Collection[str]) -> str:
    """Why the gate's word does not cover the release's model; empty when it does."""
    model = release.model
    if model.approval is None:
        return "it carries no approval of the gate, which signs one for each version with the verdict PROMOTE"
    said = statement(model.name, model.version, model.sha256, release.feature_service, model.approval.card_sha256)
    if signed_by(trusted, model.approval.signature, said) is None:
        return (
            f"its approval was signed by none of the {len(trusted)} trusted keys for {model.name} v{model.version} "
            f"({model.sha256[:8]}) with {release.feature_service}: another key, another version, or altered"
        )
    return ""
