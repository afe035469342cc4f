"""The gate's key is made once; whoever checks trusts its public half, beside one that it replaces."""

from __future__ import annotations

import base64
import json
from typing import Any

from flightdeck.cluster.names import PLATFORM, SERVING
from flightdeck.cluster.secrets import ensure_secrets
from flightdeck.contracts.approval import keys_in


class Kubectl:
    """Secrets and ConfigMaps by kind, namespace and name."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}

    def find(self, kind: str, name: str, namespace: str) -> dict[str, Any] | None:
        return self.objects.get((kind, namespace, name))

    def __call__(self, *args: str, stdin: str = "") -> str:
        made = json.loads(stdin)
        text = made.pop("stringData", None)
        if text is not None:
            made["data"] = {key: base64.b64encode(value.encode()).decode() for key, value in text.items()}
        self.objects[made["kind"].lower(), made["metadata"]["namespace"], made["metadata"]["name"]] = made
        return ""

    def trusted(self, namespace: str) -> tuple[str, ...]:
        return keys_in(self.objects["configmap", namespace, "signing-public"]["data"]["signing.pub"])


def test_the_private_key_is_in_the_platforms_namespace_only_and_never_made_twice():
    kubectl = Kubectl()
    ensure_secrets(kubectl)  # type: ignore[arg-type]
    holders = [key for key, it in kubectl.objects.items() if "signing.pem" in it.get("data", {})]
    assert holders == [("secret", PLATFORM, "signing-key")]
    before = json.dumps([kubectl.objects[key] for key in sorted(kubectl.objects)])
    assert ensure_secrets(kubectl) == []  # type: ignore[arg-type]
    assert json.dumps([kubectl.objects[key] for key in sorted(kubectl.objects)]) == before
    assert kubectl.trusted(SERVING) == kubectl.trusted(PLATFORM) and len(kubectl.trusted(SERVING)) == 1


def test_a_new_key_is_trusted_beside_the_old_one():
    kubectl = Kubectl()
    ensure_secrets(kubectl)  # type: ignore[arg-type]
    (old,) = kubectl.trusted(SERVING)
    del kubectl.objects["secret", PLATFORM, "signing-key"]
    ensure_secrets(kubectl)  # type: ignore[arg-type]
    assert len(kubectl.trusted(SERVING)) == 2 and kubectl.trusted(SERVING)[1] == old
