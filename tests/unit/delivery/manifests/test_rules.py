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
        (
            lambda it: it.update(initContainers=[{"name": "i", "image": "a/b:1.2", "resources": RESOURCES}]),
            "container i",
        ),
        (
            lambda it: it["containers"][0].update(resources={**RESOURCES, "limits": {"cpu": "1"}}),
            "container c has no limits of memory",
        ),
        (lambda it: it["containers"][0].update(image="a/b:latest"), "image a/b:latest floats"),
        (lambda it: it["containers"][0].update(image="a/b"), "image a/b floats"),
        (lambda it: it["containers"][0].update(image="a/b:main"), "image a/b:main floats"),
        (lambda it: it["containers"][0].update(image="a/python:3"), "image a/python:3 floats"),
        (lambda it: it["containers"][0].update(image="a/b:v3"), "image a/b:v3 floats"),
        (lambda it: it["containers"][0].update(image="a/b:17-alpine3.22"), "image a/b:17-alpine3.22 floats"),
        (lambda it: it["containers"][0].update(image="host:5000/b"), "image host:5000/b floats"),
        (lambda it: it["containers"][0].update(image="a/b:1.2@sha256:0"), "image a/b:1.2@sha256:0 floats"),
        (lambda it: it["containers"][0].pop("image"), "container c has no image"),
    ],
)
def test_each_breach_is_found_once_with_what_to_do(change, what):
    (broken,) = found(change)
    assert what in broken.what and broken.do


@pytest.mark.parametrize("image", ("a/b:1.2", "a/b:v1.2.3", "a/b:distroless-v1.39.1", f"a/b@sha256:{'0' * 64}"))
def test_two_numbers_or_a_digest_are_exact(image):
    assert not found(lambda it: it["containers"][0].update(image=image))


@pytest.mark.parametrize("kind", ("Pod", "ReplicaSet", "ReplicationController"))
def test_pods_without_a_deployment_are_held_to_the_rules_too(kind):
    document = {**copy.deepcopy(DEPLOYMENT), "kind": kind}
    pod(document)["securityContext"].pop("runAsUser")
    pod(document)["containers"][0]["image"] = "a/b:main"
    if kind == "Pod":
        document["spec"] = pod(document)
    broken = rules.broken([document, *FOUNDATIONS])
    assert [(it.where, it.what[:11]) for it in broken] == [(f"{kind}/a", "may be root"), (f"{kind}/a", "image a/b:m")]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("Deployment", {}), ("Deployment", {"spec": None}), ("Deployment", {"spec": {"replicas": 1}}),
        ("Deployment", {"spec": {"template": {"metadata": None}}}), ("CronJob", {"spec": {"schedule": "* * * * *"}}),
        ("PodTemplate", {}), ("Pod", {}), ("Job", {"spec": {"template": {"spec": {"containers": None}}}}),
    ],
)  # fmt: skip
def test_what_makes_pods_and_has_none_is_told_not_met_with_a_traceback(kind, content):
    document = {"kind": kind, "metadata": {"name": "a"}, **content}
    (broken,) = rules.broken([document, *FOUNDATIONS])
    assert (broken.where, broken.what) == (f"{kind}/a", "has no pod with containers") and broken.do


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "ClusterRole", "metadata": {"name": "a"}, "aggregationRule": {"clusterRoleSelectors": []}},
        {"kind": "ClusterRole", "metadata": {"name": "a"}, "rules": None},
        {"kind": "NetworkPolicy", "metadata": {"name": "a"}},
        {"kind": "Namespace", "metadata": {"name": "other", "labels": None}},
        {"kind": "EnvoyProxy", "metadata": {"name": "a"}, "spec": {}},
    ],
)
def test_what_says_little_breaks_nothing(document):
    assert rules.broken([document, *FOUNDATIONS]) == []


def test_what_a_command_of_ours_applies_needs_no_namespaces_but_keeps_the_rest():
    document = copy.deepcopy(DEPLOYMENT)
    pod(document)["containers"][0]["image"] = "a/b:main"
    secret = {"kind": "Secret", "metadata": {"name": "s"}}
    role = {"kind": "Role", "metadata": {"name": "r"}, "rules": [{"resources": ["*"], "verbs": ["get"]}]}
    assert [it.where for it in rules.broken([document, secret, role], whole=False)] == [
        "Deployment/a", "Secret/s", "Role/r",
    ]  # fmt: skip


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
