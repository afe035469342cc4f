"""Each rule finds its breach, and says what to write instead."""

from __future__ import annotations

import copy

import pytest

from flightdeck.delivery.manifests import rules

RESOURCES = {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
DEPLOYMENT = {
    "kind": "Deployment",
    "metadata": {"name": "a", "namespace": "flightdeck-serving"},
    "spec": {"template": {"spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 10001, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "c", "image": "a/b:1.2", "securityContext": rules.SHUT, "resources": RESOURCES}],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }}},
}  # fmt: skip
DENY = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
FOUNDATIONS = [
    part
    for name in ("flightdeck-platform", "flightdeck-serving")
    for part in (
        {
            "kind": "Namespace",
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        },
        {"kind": "NetworkPolicy", "metadata": {"name": "default-deny", "namespace": name}, "spec": DENY},
    )
]


def pod(document):
    return document["spec"]["template"]["spec"]


def found(change, *, by_digest=False):
    document = copy.deepcopy(DEPLOYMENT)
    change(pod(document))
    return rules.broken([document, *FOUNDATIONS], by_digest=by_digest)


def test_a_pod_that_keeps_the_rules_breaks_none():
    assert found(lambda _: None) == []


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda it: it["securityContext"].pop("runAsUser"), "may be root"),
        (lambda it: it["securityContext"].update(runAsUser=0), "may be root"),
        (lambda it: it["securityContext"].update(runAsUser="app"), "may be root"),
        (lambda it: it["securityContext"].pop("seccompProfile"), "no seccomp profile"),
        (lambda it: it.update(hostNetwork=True), "hostNetwork is on"),
        (lambda it: it["volumes"].append({"name": "h", "hostPath": {"path": "/"}}), "volume h is a hostPath"),
        (lambda it: it["containers"][0].pop("securityContext"), "container c has securityContext None"),
        (
            lambda it: it["containers"][0].update(securityContext={**rules.SHUT, "readOnlyRootFilesystem": False}),
            "container c has securityContext",
        ),
        (lambda it: it.update(initContainers=[{"name": "i", "image": "a/b:1", "resources": RESOURCES}]), "container i"),
        (
            lambda it: it["containers"][0].update(resources={**RESOURCES, "limits": {"cpu": "1"}}),
            "container c has no limits of memory",
        ),
        (lambda it: it["containers"][0].update(image="a/b:latest"), "image a/b:latest floats"),
        (lambda it: it["containers"][0].update(image="a/b"), "image a/b floats"),
        (lambda it: it["containers"][0].update(image="a/b:main"), "image a/b:main floats"),
    ],
)
def test_each_breach_is_found_once_with_what_to_do(change, what):
    (broken,) = found(change)
    assert what in broken.what and broken.do


def test_only_production_wants_digests_of_others_images():
    assert found(lambda _: None, by_digest=True)[0].what == "image a/b:1.2 has no digest"
    assert not found(lambda it: it["containers"][0].update(image=f"a/b:1@sha256:{'0' * 64}"), by_digest=True)
    assert not found(lambda it: it["containers"][0].update(image="flightdeck/predictor"), by_digest=True)


def test_a_namespace_must_be_restricted_and_deny_all():
    open_policy = {"kind": "NetworkPolicy", "metadata": {"name": "x", "namespace": "flightdeck-serving"},
                   "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}  # fmt: skip
    whats = {(it.where, it.what) for it in rules.broken([*FOUNDATIONS[:2], open_policy])}
    assert whats == {
        ("Namespace/flightdeck-serving", "does not enforce Pod Security restricted"),
        ("Namespace/flightdeck-serving", "has no NetworkPolicy that denies everything"),
    }


def test_no_secret_in_git_and_no_role_for_everything():
    secret = {"kind": "Secret", "metadata": {"name": "s"}}
    role = {"kind": "Role", "metadata": {"name": "r"}, "rules": [{"resources": ["*"], "verbs": ["get"]}]}
    assert [it.where for it in rules.broken([*FOUNDATIONS, secret, role])] == ["Secret/s", "Role/r"]
