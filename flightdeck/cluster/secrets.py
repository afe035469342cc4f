"""Secrets of a cluster of one's own: generated once, kept only in the cluster, never overwritten.

Staging and production reference Secrets that an operator of the platform made; see docs/kubernetes.md.
"""

from __future__ import annotations

import base64
import json
import secrets as randomness
from typing import Any

from flightdeck.cluster.commands import CommandFailed, Kubectl
from flightdeck.cluster.names import MANAGER, PLATFORM, SERVING

DATABASES = ("postgres", "mlflow", "dagster", "feast", "optuna")


def ensure_secrets(kubectl: Kubectl) -> list[str]:
    """Make the Secrets that are missing; returns their names. Both namespaces must be there.

    Raises:
        CommandFailed: the API server refuses.
    """
    made = []
    if kubectl.find("secret", "postgres", PLATFORM) is None:
        _create(kubectl, PLATFORM, "postgres", {f"{name}-password": _password() for name in DATABASES})
        made.append("postgres")
    if kubectl.find("secret", "object-store", PLATFORM) is None:
        content = {"access-key": f"flightdeck{randomness.token_hex(4)}", "secret-key": _password()}
        _create(kubectl, PLATFORM, "object-store", content)
        made.append("object-store")
    found = kubectl.find("secret", "valkey", PLATFORM)
    password = base64.b64decode(found["data"]["password"]).decode() if found else _password()
    for namespace in (PLATFORM, SERVING):
        if kubectl.find("secret", "valkey", namespace) is None:
            _create(kubectl, namespace, "valkey", {"password": password})
            made.append(f"{namespace}/valkey")
    made += _signing(kubectl)
    return made


def _signing(kubectl: Kubectl) -> list[str]:
    """The gate's private key, and its public half for whoever checks; a key of before stays until it is taken out."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from pipelines.registry.signing import private_pem, public_hex

    made, found = [], kubectl.find("secret", "signing-key", PLATFORM)
    if found:
        key = serialization.load_pem_private_key(base64.b64decode(found["data"]["signing.pem"]), password=None)
        assert isinstance(key, Ed25519PrivateKey)
    else:
        key = Ed25519PrivateKey.generate()
        _create(kubectl, PLATFORM, "signing-key", {"signing.pem": private_pem(key).decode()})
        made.append("signing-key")
    for namespace in (PLATFORM, SERVING):
        there = kubectl.find("configmap", "signing-public", namespace) or {}
        trusted = str(there.get("data", {}).get("signing.pub", ""))
        if public_hex(key) in trusted:
            continue
        body = _object(
            "ConfigMap", namespace, "signing-public", {"data": {"signing.pub": f"{public_hex(key)}\n{trusted}"}}
        )
        kubectl("apply", "--server-side", "--force-conflicts", f"--field-manager={MANAGER}", "-f", "-", stdin=body)
    return made


def _password() -> str:
    """URL-safe: it becomes a part of connection strings."""
    return randomness.token_hex(20)


def _create(kubectl: Kubectl, namespace: str, name: str, content: dict[str, str]) -> None:
    """Through stdin: what is in an argument list, every process of the machine can read."""
    try:
        kubectl("create", "-f", "-", stdin=_object("Secret", namespace, name, {"stringData": content}))
    except CommandFailed as error:
        if "AlreadyExists" not in error.stderr:
            raise


def _object(kind: str, namespace: str, name: str, content: dict[str, Any]) -> str:
    labels = {"app.kubernetes.io/part-of": "flightdeck"}
    meta = {"name": name, "namespace": namespace, "labels": labels}
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": meta, **content})
