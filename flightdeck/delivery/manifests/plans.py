"""Every rollout plan of the checkout: whether it can decide in time, with each number of replicas, in a sentence."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from flightdeck.cli.lint import stand_in
from flightdeck.cluster.manifests import Document
from flightdeck.contracts.rollout import InvalidRollout, ModelRollout, RolloutSpec, parse_rollout
from flightdeck.delivery.outcome import Finding
from services.rollout_operator.forecast import Traffic, forecast
from services.rollout_operator.lint import Level, lint

KIND = "ModelRollout"
RATES_PER_S = (50.0, 100.0)  # what the cluster's figures are for, and what the lab's users send
_NOT_LOOKED_AT = {"tests"}  # plans that are wrong on purpose


def in_checkout(root: Path) -> Iterator[tuple[str, Document]]:
    """(file, ModelRollout) of every YAML file, and of every example in a page."""
    for path in _texts(root):
        text = path.read_text(errors="replace")
        if KIND not in text:
            continue
        parts = re.findall(r"```ya?ml\n(.*?)```", text, re.DOTALL) if path.suffix == ".md" else [text]
        for part in parts:
            for found in _parsed(part):
                if isinstance(found, dict) and found.get("kind") == KIND:
                    yield str(path.relative_to(root)), found


def _texts(root: Path) -> Iterator[Path]:
    """What could hold one; hidden folders are other programs' own."""
    for folder, below, names in os.walk(root):
        below[:] = sorted(it for it in below if not it.startswith(".") and it not in _NOT_LOOKED_AT)
        yield from (Path(folder) / it for it in sorted(names) if Path(it).suffix in (".yaml", ".yml", ".md"))


def _parsed(text: str) -> Iterable[Any]:
    try:
        return list(yaml.safe_load_all(text))
    except (yaml.YAMLError, ValueError):  # a template, or no manifest; `unreadable` tells those that must be one
        return ()


def unreadable(root: Path) -> list[Finding]:
    """The files of specs/ and k8s/ that are no YAML: what is in them cannot be judged."""
    findings = []
    for path in sorted(it for folder in ("k8s", "specs") for it in (root / folder).rglob("*.y*ml")):
        try:
            list(yaml.safe_load_all(path.read_text()))
        except (yaml.YAMLError, ValueError) as error:  # a value like 2026-13-45 is a ValueError
            name = path.relative_to(root)
            findings.append(
                Finding(what=f"{name} is no YAML: {error}", do=f"mend its syntax: {name} must be read whole")
            )
    return findings


def read(found: Document, replicas: int | None = None) -> ModelRollout:
    """As the operator reads it; a plan is judged without its release.

    Raises:
        InvalidRollout: the schema refuses it.
    """
    spec, meta = found.get("spec"), found.get("metadata")
    if not isinstance(spec, dict) or not isinstance(meta, dict) or not meta.get("name"):
        raise InvalidRollout("a ModelRollout without `metadata.name` or `spec`")
    spec = {key: value for key, value in spec.items() if key != "release"}
    if replicas is not None:
        spec["replicas"] = replicas
    return parse_rollout(yaml.safe_dump({**found, "spec": spec}), str(meta["name"]), release=stand_in())


def replica_counts(found: Document, overlay: Sequence[Document]) -> list[int]:
    """How many replicas an overlay may give it: its own figure, and the ends of its autoscaler."""
    try:
        name, own = read(found).metadata.name, found["spec"].get("replicas")
    except InvalidRollout:  # `hopeless` tells
        return []
    counts = {own}
    for it in overlay:
        spec = it.get("spec") or {}
        target = spec.get("scaleTargetRef") or {}
        if it["kind"] == "HorizontalPodAutoscaler" and (target.get("kind"), target.get("name")) == (KIND, name):
            counts |= {spec.get("minReplicas"), spec.get("maxReplicas")}
    return sorted(it for it in counts if isinstance(it, int))


def hopeless(name: str, found: Document, rates_per_s: Sequence[float], counts: Iterable[int] = ()) -> list[Finding]:
    """Why a candidate as good as the champion would not become one, at each of these rates, and what to write.

    Args:
        counts: of replicas, beside its own.
    """
    findings: dict[str, Finding] = {}
    try:
        given = [read(found), *(read(found, it) for it in counts)]
    except InvalidRollout as error:
        return [Finding(what=f"{name}: {error}", do="write it as docs/rollout.md shows")]
    for spec in {it.spec.model_dump_json(): it.spec for it in given}.values():
        for rate in rates_per_s:
            for it in lint(spec, Traffic(rate)):
                if it.level is not Level.ERROR or it.path in findings:
                    continue
                findings[it.path] = Finding(
                    what=f"{name}: {it.path} with {spec.replicas} replicas at {rate:g} requests per second: "
                    f"{it.sentence}",
                    do=f"write {it.proposal or 'another figure'} there; `flightdeck rollout lint FILE --rate {rate:g}` "
                    "shows what the plan can find out, and one that passes",
                )
    return list(findings.values())


def doubts(name: str, found: Document, rates_per_s: Sequence[float]) -> list[str]:
    """What is no error and decides less than it seems to."""
    spec = read(found).spec
    return sorted(
        {
            f"{name}: {it.path}: {it.sentence}"
            for rate in rates_per_s for it in lint(spec, Traffic(rate)) if it.level is Level.WARNING
        }
    )  # fmt: skip


def ahead(name: str, spec: RolloutSpec, rate_per_s: float) -> str:
    """As in "10 % of 3 replicas at 20 requests per second decides in about 9 minutes, the whole plan in about ..."."""
    found = forecast(spec, Traffic(rate_per_s), faults=False)
    first = next((it for it in found.steps if it.step.canary), found.steps[0])
    share = f"{first.share:.0%}".replace("%", " %") if first.step.canary else "a shadow"
    return (
        f"{name}: {share} of {spec.replicas} replicas at {rate_per_s:g} requests per second decides "
        f"{about(first.seconds)}, the whole plan {about(found.seconds)}"
    )


def row(name: str, spec: RolloutSpec, rate_per_s: float) -> tuple[str, ...]:
    """The same as cells: plan, replicas, rate, first weight, whole plan, chance to pass before each deadline."""
    found = forecast(spec, Traffic(rate_per_s), faults=False)
    first = next((it for it in found.steps if it.step.canary), found.steps[0])
    times = (f"{first.share:.0%} {about(first.seconds)}", about(found.seconds))
    return (name, str(spec.replicas), f"{rate_per_s:g}", *times, f"{found.in_time:.0%}")


def about(seconds: float) -> str:
    """Rounded as a person would say it."""
    if not math.isfinite(seconds):
        return "never"
    if seconds < 90:
        return f"in about {max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"in about {round(seconds / 60)} minutes"
    return f"in about {round(seconds / 3600)} hours"
