"""Signs model cards with Ed25519 (RFC 8032) and checks them against a key that is trusted beforehand."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from flightdeck.contracts.card import ModelCard, SignedCard

KEY_ENV = "FLIGHTDECK_SIGNING_KEY_FILE"
PUBLIC_KEY_ENV = "FLIGHTDECK_PUBLIC_KEY_FILE"
KEY_FILE = "signing.pem"
PUBLIC_FILE = "signing.pub"  # hex of the 32 raw bytes


class SignatureRefused(ValueError):
    """A card that was altered, or signed by a key that is not trusted."""


def card_bytes(card: ModelCard) -> bytes:
    """Canonical JSON of a card: what is signed."""
    return json.dumps(card.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


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


def trusted_key(keys: Path) -> str:
    """The public key, hex, that cards of this installation must carry.

    The file that $FLIGHTDECK_PUBLIC_KEY_FILE names, else the public half of a private key that is given, else the
    lab's own. Only who signs needs the private one.

    Raises:
        SignatureRefused: there is none to trust, or the file holds no public key.
    """
    given = os.environ.get(PUBLIC_KEY_ENV)
    if not given and os.environ.get(KEY_ENV):
        return public_hex(signing_key(keys))
    path = Path(given) if given else keys / PUBLIC_FILE
    try:
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SignatureRefused(f"{path} cannot be read: no key is trusted here; give --public-key") from error
    if not re.fullmatch(r"[0-9a-f]{64}", found):
        raise SignatureRefused(f"{path} holds {found[:20]!r}..., not the 64 hex digits of a public Ed25519 key")
    return found


def sign(card: ModelCard, key: Ed25519PrivateKey) -> SignedCard:
    """The card with its signature."""
    return SignedCard(card=card, public_key=public_hex(key), signature=key.sign(card_bytes(card)).hex())


def verify(signed: SignedCard, trusted: str) -> ModelCard:
    """The card, when `trusted` (hex) signed exactly this content.

    The key inside the signed card proves nothing by itself: anyone can put one there.

    Raises:
        SignatureRefused: another key, or altered content.
    """
    if signed.public_key != trusted:
        raise SignatureRefused(f"card is signed by {signed.public_key[:16]}..., trusted is {trusted[:16]}...")
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(trusted)).verify(
            bytes.fromhex(signed.signature), card_bytes(signed.card)
        )
    except (InvalidSignature, ValueError) as error:
        raise SignatureRefused(
            f"signature of {signed.card.model} {signed.card.version} does not fit its content: the card was altered"
        ) from error
    return signed.card
