"""What of the known vulnerabilities blocks a push: images/vulnerabilities.yaml, and what it makes of a scan. Pure."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import pydantic
import yaml

from flightdeck.delivery.images.advisories import Severity, Vulnerability, order
from flightdeck.delivery.images.packages import Kind
from flightdeck.delivery.outcome import Finding

_Words = Annotated[str, pydantic.StringConstraints(min_length=1, strip_whitespace=True)]


class PolicyError(ValueError):
    """The policy file cannot be read as one."""


class Waiver(pydantic.BaseModel):
    """One vulnerability that may stay for a while.

    Args:
        id: any name it goes by.
        package: only there; empty: wherever it is found.
        expires: the last day it holds.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    id: _Words
    package: str = ""
    reason: _Words
    owner: _Words
    expires: dt.date

    def covers(self, found: Vulnerability) -> bool:
        """Whether it speaks of this one."""
        return self.id in found.names and self.package in ("", found.package)


class Policy(pydantic.BaseModel):
    """images/vulnerabilities.yaml.

    Args:
        blocks_from: least severity that is refused; one that nobody rated is refused always.
        blocks_unfixed_base: whether a vulnerability of a Debian package for which Debian has no fix yet is refused too.
        required: a scan that a scanner was named for and that could not run is refused as well.
        longest_days: an exception may reach no further.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    blocks_from: str
    blocks_unfixed_base: bool
    required: bool
    longest_days: int = pydantic.Field(gt=0, le=366)
    exceptions: tuple[Waiver, ...] = ()

    @pydantic.field_validator("blocks_from")
    @classmethod
    def _is_a_severity(cls, word: str) -> str:
        if Severity.of(word) is Severity.UNKNOWN:
            raise ValueError("is low, medium, high or critical")
        return word


def load(path: Path) -> Policy:
    """Read the policy.

    Raises:
        PolicyError: absent or not understood; the message says where.
    """
    try:
        return Policy.model_validate(yaml.safe_load(path.read_text()))
    except (OSError, yaml.YAMLError, pydantic.ValidationError) as error:
        raise PolicyError(f"{path}: {error}") from error


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a scan comes to: refused, tolerated until its exception ends, waiting for Debian's fix, below the bar."""

    refused: tuple[Vulnerability, ...]
    excepted: tuple[tuple[Vulnerability, Waiver], ...]
    waiting: tuple[Vulnerability, ...]
    below: tuple[Vulnerability, ...]


def judge(found: Iterable[Vulnerability], policy: Policy, today: dt.date) -> Judged:
    """Sort what was found; an exception that expired excuses nothing."""
    bar = Severity.of(policy.blocks_from)
    refused, excepted, waiting, below = [], [], [], []
    for it in sorted(set(found)):
        held = next((x for x in policy.exceptions if x.covers(it) and x.expires >= today), None)
        if it.severity < bar:
            below.append(it)
        elif held:
            excepted.append((it, held))
        elif it.kind is Kind.DEB and not it.fixed_in and not policy.blocks_unfixed_base:
            waiting.append(it)
        else:
            refused.append(it)
    return Judged(tuple(refused), tuple(excepted), tuple(waiting), tuple(below))


def of_exceptions(policy: Policy, today: dt.date) -> list[Finding]:
    """What is wrong with the exceptions themselves, whatever a scan finds."""
    findings = []
    for it in policy.exceptions:
        if it.expires < today:
            findings.append(Finding(
                what=f"the exception for {it.id} expired on {it.expires} (owner {it.owner}: {it.reason})",
                do="take the fixed version and remove the exception from images/vulnerabilities.yaml, or let its "
                "owner give a new reason and date",
            ))  # fmt: skip
        elif (it.expires - today).days > policy.longest_days:
            findings.append(Finding(
                what=f"the exception for {it.id} lasts until {it.expires}, longer than {policy.longest_days} days",
                do=f"set `expires` to {today + dt.timedelta(days=policy.longest_days)} or earlier",
            ))  # fmt: skip
    return findings


def unused(policy: Policy, found: Iterable[Vulnerability]) -> list[Finding]:
    """Exceptions that excuse nothing any more; only to be asked when everything was scanned."""
    seen = list(found)
    return [
        Finding(
            what=f"the exception for {it.id} excuses nothing: no lock and no image has it any more",
            do="remove it from images/vulnerabilities.yaml",
        )
        for it in policy.exceptions
        if not any(it.covers(vulnerability) for vulnerability in seen)
    ]


def refusals(refused: Sequence[Vulnerability]) -> list[Finding]:
    """One finding per vulnerable package: what to raise, and where."""
    grouped: dict[tuple[str, str], list[Vulnerability]] = {}
    for it in refused:
        grouped.setdefault((it.package, it.version), []).append(it)
    return [_refusal(package, version, ones) for (package, version), ones in sorted(grouped.items())]


def _refusal(package: str, version: str, ones: Sequence[Vulnerability]) -> Finding:
    ids = sorted({f"{it.id} ({it.severity.name.lower()}{': ' + it.title if it.title else ''})" for it in ones})
    places = ", ".join(sorted({it.where for it in ones if it.where}))
    kind, fixes = ones[0].kind, {it.fixed_in for it in ones if it.fixed_in}
    fixed = max(fixes, key=lambda it: order(kind, it), default="")
    if not fixed:
        way = f"no fixed version is known: replace {package}"
    elif kind is Kind.PYPI:
        way = f"require {package}>={fixed} in pyproject.toml and run `make lock`"
    else:
        way = f"take a base image that has {package} {fixed} (images/pins/base.Dockerfile)"
    return Finding(
        what=f"{package} {version} in {places or 'the scan'}: {', '.join(ids)}",
        do=f"{way}; or except it for a while in images/vulnerabilities.yaml with reason, owner and expiry date",
    )
