"""Signs model cards and approvals with Ed25519 (RFC 8032), checks cards against keys that are trusted beforehand."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flightdeck.contracts.approval import PUBLIC_KEY_ENV, keys_in, signed_by, statement
from flightdeck.contracts.card import ModelCard, SignedCard
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.release import Approval

__all__ = [
    "KEY_ENV", "PUBLIC_FILE", "PUBLIC_KEY_ENV", "SignatureRefused", "approve", "card_bytes", "card_sha256",
    "private_pem", "public_hex", "sign", "signing_key", "trusted_keys", "verify",
]  # fmt: skip

KEY_ENV = "FLIGHTDECK_SIGNING_KEY_FILE"
KEY_FILE = "signing.pem"
PUBLIC_FILE = "signing.pub"  # hex of the 32 raw bytes; several while a key is replaced, one a line


class SignatureRefused(ValueError):
    """A card that was altered, or signed by a key that is not trusted."""


def card_bytes(card: ModelCard) -> bytes:
    """Canonical JSON of a card: what is signed."""
    return json.dumps(card.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def card_sha256(card: ModelCard) -> str:
    """Names exactly this card; an approval carries it."""
    return hashlib.sha256(card_bytes(card)).hexdigest()


def public_hex(key: Ed25519PrivateKey) -> str:
    """The public key, 32 bytes as hex."""
    return key.public_key().public_bytes_raw().hex()


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """The private key as PKCS #8 PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def signing_key(keys: Path) -> Ed25519PrivateKey:
    """The key in the file that $FLIGHTDECK_SIGNING_KEY_FILE names (PKCS #8 PEM), else the lab's own, made at first use.

    Raises:
        ValueError: the file is not an Ed25519 private key, or is absent.
    """
    given = os.environ.get(KEY_ENV)
    path = Path(given) if given else keys / KEY_FILE
    if not given and not path.exists():
        _make(path)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: no readable private key ({error}); {KEY_ENV} names a PKCS #8 PEM file") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path}: a {type(key).__name__}; model cards are signed with an Ed25519 key")
    return key


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = Ed25519PrivateKey.generate()
    draft = path.with_suffix(f".{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(private_pem(key))
    try:
        os.link(draft, path)  # fails when another process was first: its key counts
        (path.parent / PUBLIC_FILE).write_text(public_hex(key) + "\n")
    except FileExistsError:
        pass
    finally:
        draft.unlink()


def trusted_keys(keys: Path) -> tuple[str, ...]:
    """The public keys, hex, of which one must have signed what counts in this installation.

    The file that $FLIGHTDECK_PUBLIC_KEY_FILE names, else the public half of a private key that is given, else the
    lab's own. Only who signs needs the private one.

    Raises:
        SignatureRefused: there is none to trust, or the file holds no public key.
    """
    given = os.environ.get(PUBLIC_KEY_ENV)
    if not given and os.environ.get(KEY_ENV):
        return (public_hex(signing_key(keys)),)
    path = Path(given) if given else keys / PUBLIC_FILE
    try:
        found = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SignatureRefused(f"{path} cannot be read: no key is trusted here; give --public-key") from error
    try:
        return keys_in(found)
    except ValueError as error:
        raise SignatureRefused(f"{path}: {error}") from error


def sign(card: ModelCard, key: Ed25519PrivateKey) -> SignedCard:
    """The card with its signature."""
    return SignedCard(card=card, public_key=public_hex(key), signature=key.sign(card_bytes(card)).hex())


def approve(card: ModelCard, key: Ed25519PrivateKey) -> Approval:
    """The gate's word on a registered version, for the releases that will ask for it.

    Raises:
        ValueError: the card does not say PROMOTE: nothing else is ever approved.
    """
    if card.verdict is not Verdict.PROMOTE:
        raise ValueError(f"{card.model} v{card.version}: its card says {card.verdict.value}, no approval is signed")
    digest = card_sha256(card)
    said = statement(card.model, card.version, card.sha256, card.feature_service, digest)
    return Approval(cardSha256=digest, signature=key.sign(said).hex())


def verify(signed: SignedCard, trusted: Collection[str]) -> ModelCard:
    """The card, when one of the `trusted` keys (hex) signed exactly this content.

    The key inside the signed card proves nothing by itself: anyone can put one there.

    Raises:
        SignatureRefused: another key, or altered content.
    """
    if signed.public_key not in trusted:
        ours = ", ".join(f"{key[:16]}..." for key in trusted)
        raise SignatureRefused(f"card is signed by {signed.public_key[:16]}..., trusted is {ours}")
    if signed_by((signed.public_key,), signed.signature, card_bytes(signed.card)) is None:
        raise SignatureRefused(
            f"signature of {signed.card.model} {signed.card.version} does not fit its content: the card was altered"
        )
    return signed.card
