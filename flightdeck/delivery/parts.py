"""Gates that are commands: run them in order, let people see their output as it comes, keep one outcome."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import time
from collections.abc import Callable, Sequence

from flightdeck.delivery.outcome import Finding, Outcome

Run = Callable[[Sequence[str]], tuple[int, str]]
CLOSING = re.compile(
    r"^=*\s*((?:\d+ (?:passed|failed|error|errors|skipped|deselected|xfailed|warnings?)(?:, )?)+) in .*$"
)


@dataclasses.dataclass(frozen=True)
class Part:
    """One command of a gate.

    Args:
        name: what it checks.
        argv: the command.
        do: what to do when it fails.
        hold: nothing behind it runs when it failed; else the next ones run, so that one push shows all that is wrong.
        costly: it does not begin when anything before it failed: minutes after the first red tell nobody more.
    """

    name: str
    argv: tuple[str, ...]
    do: str
    hold: bool = False
    costly: bool = False


def run_parts(
    gate: str, parts: Sequence[Part], *, run: Run, last: Part | None = None, tell: Callable[[str], None] = print
) -> Outcome:
    """One outcome of all parts.

    Args:
        gate: its name.
        parts: in order; what is left out after a failed part that holds is named as not run.
        run: runs a command with its output shown; returns exit code and output.
        last: runs in any case, after an interruption as well.
        tell: shows a line.
    """
    findings: list[Finding] = []
    says: list[str] = []
    rows: list[tuple[str, ...]] = [("part", "seconds", "")]
    left: list[str] = []

    def one(part: Part) -> bool:
        started = time.monotonic()
        tell(f"== {gate}: {part.name}")
        code, output = run(part.argv)
        rows.append((part.name, f"{time.monotonic() - started:.0f}", "✗" if code else "✓"))
        says.extend(f"{part.name}: {line}" for line in closing(output))
        if code:
            findings.append(Finding(what=f"{part.name}: `{' '.join(part.argv)}` ended with {code}", do=part.do))
        return not code

    try:
        held = ""
        for part in parts:
            if held or (part.costly and findings):
                left.append(f"{part.name}, since {held or 'what is before it'} failed")
            elif not one(part) and part.hold:
                held = part.name
    finally:
        if last:
            one(last)
    return Outcome(
        gate=gate, findings=tuple(findings), says=tuple(says), tables={f"{gate}, part by part": tuple(rows)},
        not_run=tuple(left),
    )  # fmt: skip


def closing(output: str) -> list[str]:
    """The last words of each pytest run in an output: `12 passed, 1 skipped`."""
    return [found[1].strip(", ") for line in output.splitlines() if (found := CLOSING.match(line.strip()))]


def shown(argv: Sequence[str]) -> tuple[int, str]:
    """Adapter: run a command with its output shown line by line; exit code and what it printed."""
    lines = []
    with subprocess.Popen(
        list(argv), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode, "".join(lines)
