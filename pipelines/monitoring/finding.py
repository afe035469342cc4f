"""What a check found, before it is known of which model and release."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable

from flightdeck.contracts.alarm import Alarm, Cause, Check, Kind, Remedy, Status, page_path


@dataclasses.dataclass(frozen=True)
class Finding:
    """An alarm without its model; fields as in `contracts.alarm.Alarm`."""

    kind: Kind
    subject: str
    since: dt.date
    rows: int
    value: float
    threshold: float
    sentence: str
    how_sure: str
    what_to_do: str
    remedy: Remedy
    features: tuple[str, ...] = ()
    cause: Cause | None = None
    false_per_month: float = 0.0
    also: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Found:
    """Checks and findings of one part of the monitor."""

    checks: list[Check] = dataclasses.field(default_factory=list)
    findings: list[Finding] = dataclasses.field(default_factory=list)

    def add(self, other: Found) -> Found:
        """Both together."""
        return Found([*self.checks, *other.checks], [*self.findings, *other.findings])


def no_data(kind: Kind, subject: str, reason: str) -> Found:
    """The answer of a check that cannot be computed."""
    return Found([Check(kind=kind, subject=subject, status=Status.NO_DATA, value=None, threshold=None, reason=reason)])


def told(finding: Finding, *, model: str, version: str, release: str, day: dt.date) -> Alarm:
    """The alarm of a finding."""
    return Alarm(
        model=model, version=version, release=release, day=day, page=page_path(model, version, day),
        **dataclasses.asdict(finding),
    )  # fmt: skip


# What stands in an earlier kind explains what a later kind sees in the same features.
_EXPLAINS = (Kind.SKEW, Kind.UNSEEN, Kind.CONSTANT, Kind.OUTLIERS, Kind.DRIFT)


def explained(findings: Iterable[Finding]) -> list[Finding]:
    """Findings without those that an earlier one of the same features explains; what was dropped is told in `also`.

    A unit that changes in serving is seen as skew, and of course as drift of the very feature: one alarm, one cause.
    Answers that move while an input does are its consequence. The others stand for themselves.
    """
    kept: list[Finding] = []
    for finding in sorted(findings, key=lambda item: _EXPLAINS.index(item.kind) if item.kind in _EXPLAINS else 99):
        if finding.kind not in _EXPLAINS:
            kept.append(finding)
            continue
        cause = next((at for at, item in enumerate(kept) if _covers(item, finding)), None)
        if cause is None:
            kept.append(finding)
            continue
        words = f"{finding.kind.value} of {', '.join(finding.features or (finding.subject,))}"
        kept[cause] = dataclasses.replace(kept[cause], also=(*kept[cause].also, words))
    return kept


ANSWERS = "answers"  # the model's score, watched beside its features


def _covers(cause: Finding, finding: Finding) -> bool:
    if cause.kind not in _EXPLAINS or not cause.features:
        return False
    if finding.features == (ANSWERS,):
        return True
    return bool(finding.features) and set(finding.features) & set(cause.features) == set(finding.features)
