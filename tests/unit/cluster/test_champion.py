"""A champion that no operator looked at passes the same gate; what the operator would refuse is not asked for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from flightdeck.cli.kubectl import app
from flightdeck.cluster import champion
from flightdeck.cluster.champion import NoChampion, Version, may_serve, release_of, serve_first
from flightdeck.contracts import approval
from flightdeck.contracts.release import Approval
from services.rollout_operator import workloads
from services.rollout_operator.kube import gatekeeper

GATE = Ed25519PrivateKey.from_private_bytes(b"g" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"s" * 32)
CODE = f"r/predictor@sha256:{'c' * 64}"
TEMPLATE = {
    "metadata": {"name": "predictor"},
    "template": {"spec": {"containers": [{"name": "predictor", "image": CODE}]}},
}


def tags(number: int, key: Ed25519PrivateKey | None = GATE, verdict: str = "PROMOTE", **more: str) -> dict[str, str]:
    """Of a version as the gate leaves it."""
    sha256, card = f"{number:064x}", "c" * 64
    found = {
        "sha256": sha256, "feature_service": "late_v1", "verdict": verdict, "reason": "r",
        "image": f"r/late@sha256:{'d' * 64}",
    }  # fmt: skip
    if key:
        said = approval.statement("late", str(number), sha256, "late_v1", card)
        word = Approval.model_validate({"cardSha256": card, "signature": key.sign(said).hex()})
        found["approval"] = word.model_dump_json(by_alias=True)
    return found | more


def version(number: int, key: Ed25519PrivateKey | None = GATE, verdict: str = "PROMOTE", **more: str) -> Version:
    return champion._version(str(number), tags(number, key, verdict, **more))


class Kubectl:
    """A cluster with a rollout that nothing serves yet."""

    context = "kind-x"

    def __init__(self, trusted: str | None) -> None:
        self.rollout: dict[str, Any] = {
            "apiVersion": "flightdeck.dev/v1alpha1", "kind": "ModelRollout",
            "metadata": {"name": "late", "namespace": "flightdeck-serving", "uid": "u"}, "spec": {"replicas": 1},
        }  # fmt: skip
        self.trusted = trusted
        self.applied: list[dict[str, Any]] = []
        self.patched: list[str] = []

    def find(self, kind: str, name: str, namespace: str) -> Any:
        if kind == "configmap":
            assert (name, namespace) == ("signing-public", "flightdeck-serving")
            return None if self.trusted is None else {"data": {"signing.pub": self.trusted}}
        return TEMPLATE if kind == "podtemplate" else self.rollout

    def get(self, kind: str, *args: str) -> dict[str, Any]:
        if kind == "podtemplate":
            return TEMPLATE
        done = {
            "replicas": 1,
            "readyReplicas": 1,
            "updatedReplicas": 1,
            "availableReplicas": 1,
            "observedGeneration": 1,
        }
        return {
            "kind": "Deployment", "metadata": {"name": "x", "namespace": "n", "generation": 1}, "spec": {"replicas": 1},
            "status": done,
        }  # fmt: skip

    def __call__(self, *args: str, stdin: str = "") -> str:
        if args[0] == "apply":
            self.applied += json.loads(stdin)["items"]
        else:
            self.patched.append(args[-1])
        return ""


def public(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes_raw().hex() + "\n"


def test_the_first_champion_carries_the_gates_word():
    kubectl = Kubectl(public(STRANGER) + public(GATE))
    made = serve_first(kubectl, "late", version(3), lambda *_: None)  # type: ignore[arg-type]
    (asked,) = [it for it in kubectl.applied if it["kind"] == "ModelRollout"]
    assert asked["spec"]["release"]["model"]["approval"] == json.loads(tags(3)["approval"])
    assert json.loads(kubectl.patched[0])["status"]["champion"]["model"]["approval"]
    assert made == release_of("late", version(3), CODE)


@pytest.mark.parametrize(
    ("trusted", "found", "words"),
    [
        (public(GATE), version(3, STRANGER), "another key"), (public(GATE), version(3, None), "no approval"),
        (public(GATE), version(3, approval=tags(4)["approval"]), "another version"),
        (public(GATE), version(3, approval="{}"), "no approval"), (None, version(3), "is not there"),
        ("no key", version(3), "64 hex digits"), ("", version(3), "no public key"),
    ],
)  # fmt: skip
def test_without_a_trusted_approval_no_first_champion_is_made(trusted: str | None, found: Version, words: str):
    kubectl = Kubectl(trusted)
    with pytest.raises(NoChampion, match=words):
        serve_first(kubectl, "late", found, lambda *_: None)  # type: ignore[arg-type]
    assert not kubectl.applied and not kubectl.patched


def test_the_newest_that_the_gate_approved_may_serve():
    found = [version(5, verdict="HOLD"), version(4, None), version(3, image=""), version(2), version(1)]
    assert may_serve(found).number == 2
    for only, why in ((found[0], "HOLD: r"), (found[1], "no approval"), (found[2], "not pushed")):
        with pytest.raises(NoChampion, match=why):
            may_serve([only])


# -- kubectl flightdeck release ---------------------------------------------------------------------------------------


@pytest.fixture
def kubectl(monkeypatch: pytest.MonkeyPatch) -> Kubectl:
    found = Kubectl(public(GATE))

    @contextlib.contextmanager
    def forward(*_: Any) -> Iterator[str]:
        yield "http://mlflow"

    registered = [version(5, None, "REJECT", image=""), version(4, STRANGER), version(3, None, "HOLD"), version(2)]
    monkeypatch.setattr("flightdeck.cli.kubectl._kubectl", lambda context: found)
    monkeypatch.setattr("flightdeck.cluster.forward.forward", forward)
    monkeypatch.setattr(champion, "versions", lambda tracking, name: registered)
    return found


def release(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["release", "late", *args])
    return done.exit_code, done.output


def test_an_approved_version_is_asked_for_with_its_approval(kubectl: Kubectl):
    code, text = release("--version", "2")
    assert code == 0, text
    (asked,) = kubectl.applied
    assert asked["spec"]["release"]["model"]["approval"] and "annotations" not in asked["metadata"]


@pytest.mark.parametrize(
    ("number", "words"), [("5", "REJECT"), ("4", "another key"), ("3", "HOLD"), ("9", "no version 9")]
)
def test_what_the_operator_would_refuse_is_not_asked_for(kubectl: Kubectl, number: str, words: str):
    code, text = release("--version", number)
    assert code == 1 and words in text and not kubectl.applied


def test_a_broken_glass_is_one_write_of_release_and_reason(kubectl: Kubectl):
    code, text = release("--version", "3", "--break-glass", " the gate's cluster burns ")
    assert code == 0, text
    (asked,) = kubectl.applied
    said = gatekeeper.said(asked)
    assert said and said.why == "the gate's cluster burns" and "@" in said.who
    assert asked["spec"]["release"]["model"]["version"] == "3"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--version", "3", "--break-glass", ""), "needs a reason"), (("--break-glass", "haste"), "--version"),
        (("--version", "5", "--break-glass", "haste"), "pushes none"),
    ],
)  # fmt: skip
def test_a_broken_glass_needs_a_reason_a_version_and_an_image(kubectl: Kubectl, args: tuple[str, ...], words: str):
    code, text = release(*args)
    assert code == 1 and words in text and not kubectl.applied


def test_a_status_of_the_first_champion_carries_the_approval():
    made = release_of("late", version(3), CODE)
    status = workloads.first_champion_status(made, replicas=1, at="2026-01-01T00:00:00Z")
    assert status["champion"]["model"]["approval"]["signature"]
