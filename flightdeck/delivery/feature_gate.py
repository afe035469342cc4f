"""Decision: may these feature definitions follow those that are registered where releases serve?

What a serving release reads is never taken away, whatever anybody approves; another destructive change needs a label of
the pull request, which a reviewer sets; what is added is only told.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from flightdeck.contracts.champion_card import FEATURES_OF
from flightdeck.contracts.model_spec import ModelSpec
from flightdeck.delivery.outcome import Finding, Outcome
from pipelines.features import guard
from pipelines.features.registry_changes import Change, Described, Effect

GATE = "features"
LABEL = "features:destructive"
LABELS_ENV = "FLIGHTDECK_LABELS"
HEAD = ("effect", "kind", "name", "what", "before", "after")
CELL = 120  # characters of a cell; a transformation is a whole function

Registry = Mapping[tuple[str, str], Described]


def labels_of(given: Sequence[str], environment: str) -> frozenset[str]:
    """Labels of the pull request: those given, and those in a text with commas between."""
    return frozenset(name.strip() for name in (*given, *environment.split(",")) if name.strip())


def judge(
    changes: Sequence[Change], before: Registry, protected: Sequence[str], labels: Collection[str], against: str
) -> Outcome:
    """The word on a plan.

    Args:
        changes: between what is registered and the checkout's definitions.
        before: what is registered.
        protected: feature services of releases that serve, wait or can be undone to.
        against: where it is registered, in words.
    """
    refused = guard.refused(changes, before, protected)
    left = [it for it in changes if it.effect is Effect.DESTROYS and it not in {change for change, _ in refused}]
    findings = [
        Finding(what=f"{_named(change)}: a release reads it through {service}, no label helps", do=guard.ADVICE)
        for change, service in refused
    ]
    approved = LABEL in labels
    if left and not approved:
        findings += [
            Finding(
                what=f"{_named(change)}: whoever reads it breaks; no release known here does",
                do=f"make a new version beside the old one; or, when nobody reads it any more, let a reviewer set the "
                f"label {LABEL} on the pull request (by hand: --label {LABEL})",
            )
            for change in left
        ]
    says = [f"the definitions equal what is registered in {against}"] if not changes else []
    says += _told("adds", [it for it in changes if it.effect is Effect.ADDS])
    says += _told("changes", [it for it in changes if it.effect is Effect.CHANGES])
    if left and approved:
        says += _told(f"takes away, approved by the label {LABEL},", left)
    rows = tuple(tuple(_short(cell) for cell in row) for row in _rows(changes))
    tables = {f"Features, against {against}": (HEAD, *rows)} if rows else {}
    return Outcome(gate=GATE, findings=tuple(findings), says=tuple(says), tables=tables)


def broken_specs(specs: Iterable[ModelSpec], wanted: Registry) -> list[Finding]:
    """Specs that name a feature service or views which the definitions do not have."""
    services = sorted(name for kind, name in wanted if kind == "feature service")
    findings = []
    for spec in specs:
        service = wanted.get(("feature service", spec.feature_service))
        if service is None:
            findings.append(
                Finding(
                    what=f"the spec {spec.name} reads {spec.feature_service}, which is not defined",
                    do=f"define it in feature_repo/feature_services.py, or let the spec name one of "
                    f"{', '.join(services)}",
                )
            )
            continue
        views = {fact.removeprefix(FEATURES_OF) for fact in service.facts if fact.startswith(FEATURES_OF)}
        stored = {name for name in views if ("feature view", name) in wanted}
        if stored != set(spec.features):
            findings.append(
                Finding(
                    what=f"{spec.feature_service} has the stored views {', '.join(sorted(stored))}; the spec "
                    f"{spec.name} has policies for {', '.join(sorted(spec.features))}",
                    do="name exactly the service's stored views under `features` of the spec",
                )
            )
    return findings


def _named(change: Change) -> str:
    what = f"{change.kind} {change.name}: {change.what}"
    if change.what in {"removed", "added"}:
        return what
    return f"{what} {_short(change.before) or 'nothing'} -> {_short(change.after) or 'removed'}"


def _told(verb: str, changes: Sequence[Change]) -> list[str]:
    if not changes:
        return []
    return [f"{verb} {'; '.join(_named(it) for it in changes)}"]


def _rows(changes: Sequence[Change]) -> Iterable[tuple[str, ...]]:
    return ((it.effect.value, it.kind, it.name, it.what, it.before, it.after) for it in changes)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= CELL else f"{line[: CELL - 4].rstrip()} ..."
