"""What the gate reads on a cluster: the keys that are mounted, and the annotation."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flightdeck.contracts import approval
from services.rollout_operator.gate import Trust
from services.rollout_operator.kube import gatekeeper
from tests.unit.rollout.kube_cluster import GATE, key_of

STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)


def test_keys_are_read_at_each_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(approval.PUBLIC_KEY_ENV, raising=False)
    assert not gatekeeper.key_file().keys and approval.PUBLIC_KEY_ENV in gatekeeper.key_file().problem
    path = tmp_path / "signing.pub"
    monkeypatch.setenv(approval.PUBLIC_KEY_ENV, str(path))
    assert not gatekeeper.key_file().keys and "signing.pub" in gatekeeper.key_file().problem
    for content in ("", "no key", f"{key_of(GATE)}\nno key", "\xff" * 64):
        path.write_text(content)
        assert not gatekeeper.key_file().keys and gatekeeper.key_file().problem, content
    path.write_bytes(b"\xff\xfe")
    assert not gatekeeper.key_file().keys
    path.write_text(f"{key_of(STRANGER)}\n{key_of(GATE)}  # from June on\n")
    assert gatekeeper.key_file() == Trust((key_of(STRANGER), key_of(GATE)))


def test_the_annotation_says_who_and_why():
    there = {"metadata": {"annotations": {gatekeeper.ANNOTATION: gatekeeper.text("ann@desk", "in haste")}}}
    found = gatekeeper.said(there)
    assert found and (found.who, found.why) == ("ann@desk", "in haste")
    assert gatekeeper.said({"metadata": {}}) is None
