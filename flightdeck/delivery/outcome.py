"""What one gate of CI found: the same for the log, the pull request's comment and the exit code."""

from __future__ import annotations

import enum
import json
import os
import re
from pathlib import Path

import pydantic

FOLDER = "ci"  # under the state folder; the comment's job collects the files of all gates there


_COMMAND = re.compile(r"((?:^|[\r\n])\s*:|##)([:\[])")  # what GitHub's runner takes for one, in any program's words


class Found(enum.StrEnum):
    """How a gate ended. What could not be judged is red as well: a gate fails closed."""

    PASSED = "passed"
    FAILED = "failed"


class Finding(pydantic.BaseModel):
    """One thing a gate refuses.

    Args:
        what: what was found, with its figures.
        do: what to do about it, as an order a person can follow.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    what: str
    do: str


class Outcome(pydantic.BaseModel):
    """One gate's word.

    Args:
        gate: its name, as in `make ci-<gate>`.
        findings: what it refuses; empty when it passed.
        says: plain sentences for the pull request's comment: what changes for users.
        tables: title -> rows of cells, the first row is the head; for the comment.
        not_run: steps that could not run here, each with its reason; printed loudly, never silent.
        took_s: real time, seconds.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    gate: str
    findings: tuple[Finding, ...] = ()
    says: tuple[str, ...] = ()
    tables: dict[str, tuple[tuple[str, ...], ...]] = pydantic.Field(default_factory=dict)
    not_run: tuple[str, ...] = ()
    took_s: float = 0.0

    @property
    def found(self) -> Found:
        """Passed only without findings."""
        return Found.FAILED if self.findings else Found.PASSED

    def text(self) -> str:
        """For the log: the verdict, then what is wrong with what to do, then what did not run."""
        lines = [f"{self.gate}: {self.found} in {self.took_s:.0f} s"]
        lines += [f"  {sentence}" for sentence in self.says]
        lines += [f"  REFUSED: {finding.what}\n    do: {finding.do}" for finding in self.findings]
        lines += [f"  NOT RUN: {reason}" for reason in self.not_run]
        return _COMMAND.sub("\\1\u200b\\2", "\n".join(lines))


def keep(outcome: Outcome, state: Path) -> Path:
    """Write it to `ci/<gate>.json` under the state folder, whole or not at all."""
    path = state / FOLDER / f"{outcome.gate}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(outcome.model_dump_json(indent=1) + "\n")
    fresh.replace(path)
    return path


def read(state: Path) -> list[Outcome]:
    """Every kept outcome, by name.

    Raises:
        ValueError: a file is none of ours; it names the file.
    """
    found = []
    for path in sorted((state / FOLDER).glob("*.json")):
        try:
            found.append(Outcome.model_validate_json(path.read_text()))
        except (pydantic.ValidationError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is no outcome of a gate; remove it and run the gate again: {error}") from error
    return found


def fenced(text: str) -> str:
    """As a block of Markdown that nothing in the text can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def summarise(text: str) -> None:
    """Add to the page GitHub shows of a job, where there is one (`GITHUB_STEP_SUMMARY`)."""
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if page:
        with Path(page).open("a") as out:
            out.write(text.rstrip() + "\n\n")
