"""The gate of manifests, wired: each overlay as a deploy would apply it, the plans, the alert rules."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import yaml

from flightdeck.cluster import images, manifests, overlays
from flightdeck.cluster.commands import CommandFailed
from flightdeck.cluster.gateway import CHART_ENV
from flightdeck.cluster.manifests import Document
from flightdeck.cluster.names import IMAGES
from flightdeck.delivery.manifests import alerts, plans, rules, schemas
from flightdeck.delivery.outcome import Finding, Outcome

GATE = "manifests"
RATES_PER_S = plans.RATES_PER_S
BY_DIGEST = ("production",)
BESIDE = ("load", "backup")  # what a command of ours applies by itself
_STAND_IN = "registry.example.internal/flightdeck"
_ODD = (LookupError, TypeError, AttributeError, ValueError)  # what reading an object of another shape raises


def judge(*, root: Path, rates_per_s: Sequence[float] = RATES_PER_S) -> Outcome:
    """Hold every manifest and every plan of the checkout to what a cluster and its users need."""
    findings: list[Finding] = []
    rendered: dict[str, list[Document]] = {}
    for name in sorted(path.parent.name for path in (root / "k8s" / "overlays").glob("*/kustomization.yaml")):
        try:
            rendered[name] = _as_deployed(name)
        except (CommandFailed, manifests.ManifestError, yaml.YAMLError) as error:
            findings.append(_unrendered(f"overlay {name}", f"k8s/overlays/{name}", error))
        except _ODD as error:  # as it is in Git, so that schema and rules name the object
            words = f"an object lacks what a deploy reads: {error!r}"
            findings.append(_unrendered(f"overlay {name}", f"k8s/overlays/{name}", CommandFailed(words)))
            with contextlib.suppress(CommandFailed, yaml.YAMLError):
                rendered[name] = manifests.kustomize(root / "k8s" / "overlays" / name)
    for name in BESIDE:
        try:
            rendered[name] = manifests.kustomize(root / "k8s" / name)
        except (CommandFailed, yaml.YAMLError) as error:
            findings.append(_unrendered(f"k8s/{name}", f"k8s/{name}", error))
    wrong, blind = _fitting(rendered)
    findings += wrong + _ruled(rendered) + plans.unreadable(root)
    told, says, rows = _planned(root, {name: rendered[name] for name in rendered if name not in BESIDE}, rates_per_s)
    findings += told
    not_run = [schemas.unknown_kinds(blind)] if blind else []
    try:
        findings += _alerted(root)
    except alerts.NoPromtool as error:
        not_run.append(f"the alert rules were not checked: {error}")
    count = sum(len(it) for it in rendered.values())
    says.insert(
        0, f"{len(rendered)} sets of manifests with {count} objects rendered for Kubernetes {schemas.KUBERNETES}"
    )
    head = ("plan", "replicas", "requests per second", "first weight", "whole plan", "pass in time")
    tables = {"Rollout plans": (head, *rows)} if rows else {}
    return Outcome(gate=GATE, findings=tuple(findings), says=tuple(says), not_run=tuple(not_run), tables=tables)


def _as_deployed(name: str) -> list[Document]:
    """An overlay with what a deploy adds, our images by a digest that stands in."""
    digests = {f"{manifests.OURS}{it}": f"{_STAND_IN}/{it}@sha256:{'0' * 64}" for it in IMAGES}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / images.PUSHED).write_text(json.dumps({"digests": digests}))
        return overlays.documents(name, Path(folder))


@contextlib.contextmanager
def _kept(what: str, findings: list[Finding]) -> Iterator[None]:
    """What cannot be looked at is refused, not met with a traceback."""
    try:
        yield
    except _ODD as error:
        do = "mend the object of another shape; `kubectl explain` its kind tells which fields it has"
        findings.append(Finding(what=f"{what}: {error!r}", do=do))


def _unrendered(what: str, where: str, error: Exception) -> Finding:
    return Finding(
        what=f"{what} does not render: {str(error)[:1500]}",
        do=f"mend it until `kubectl kustomize {where}` prints it" if "not on the PATH" not in str(error)
        else "install kubectl 1.35 or newer: without it no manifest can be judged",
    )  # fmt: skip


def _fitting(rendered: dict[str, list[Document]]) -> tuple[list[Finding], list[str]]:
    """Each distinct object against its schema."""
    findings, blind = list[Finding](), set[str]()
    crds: schemas.Schemas = {}
    known = [it for documents in rendered.values() for it in documents]
    chart = os.environ.get(CHART_ENV, "")
    with _kept("a CustomResourceDefinition cannot be read", findings):
        crds = schemas.of_crds([*known, *(schemas.in_folder(Path(chart)) if chart and Path(chart).is_dir() else ())])
    places: dict[str, tuple[Document, list[str]]] = {}
    for name, documents in rendered.items():
        for it in documents:
            places.setdefault(json.dumps(it, sort_keys=True), (it, []))[1].append(name)
    for it, names in places.values():
        wrong, unknown = list[tuple[str, str]](), list[str]()
        with _kept(f"{', '.join(names)}: {manifests.name_of(it)} could not be held to its schema", findings):
            wrong, unknown = schemas.checked([it], crds)
        blind.update(unknown)
        findings += [
            Finding(
                what=f"{', '.join(names)}: {name} does not fit its schema at {said}",
                do="mend the field where it is written: `grep -rn` its name in k8s/ and specs/",
            )
            for name, said in wrong
        ]
    return findings, sorted(blind)


def _ruled(rendered: dict[str, list[Document]]) -> list[Finding]:
    """One finding per broken rule, with all the overlays that break it."""
    findings = list[Finding]()
    places: dict[rules.Broken, list[str]] = {}
    for name, documents in rendered.items():
        with _kept(f"the rules could not be applied to {name}", findings):
            for it in _broken(name, documents):
                places.setdefault(it, []).append(name)
    said = [Finding(what=f"{', '.join(names)}: {it.where}: {it.what}", do=it.do) for it, names in places.items()]
    return findings + said


def _broken(name: str, documents: Sequence[Document]) -> Iterable[rules.Broken]:
    return rules.broken(documents, by_digest=name in BY_DIGEST, whole=name not in BESIDE)


def _planned(
    root: Path, rendered: dict[str, list[Document]], rates_per_s: Sequence[float]
) -> tuple[list[Finding], list[str], list[tuple[str, ...]]]:
    findings, says, rows = [], [], []
    for name, found in plans.in_checkout(root):
        counts = {
            count for documents in rendered.values() for count in plans.replica_counts(found, documents)
        } if name.startswith("specs/") else set()  # fmt: skip
        wrong = plans.hopeless(name, found, rates_per_s, sorted(counts))
        findings += wrong
        if wrong:
            continue
        says += plans.doubts(name, found, rates_per_s)
        spec = plans.read(found).spec
        if name.startswith("specs/"):
            says.append(plans.ahead(found["metadata"]["name"], spec, min(rates_per_s)))
            rows += [plans.row(found["metadata"]["name"], spec, rate) for rate in rates_per_s]
    return findings, says, rows


def _alerted(root: Path) -> list[Finding]:
    try:
        said = alerts.check(root)
    except CommandFailed as error:
        return [Finding(what=f"the alert rules could not be checked: {error}",
                        do=f"make promtool run, or leave {alerts.PULL_ENV} empty")]  # fmt: skip
    if not said:
        return []
    return [Finding(what=f"promtool refuses the rules of {alerts.MONITORING}: {said[:1500]}",
                    do="mend the expression; `promtool check rules` prints where")]  # fmt: skip
