"""Decision: why a CI was red, in the few lines that a pusher reads last."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flightdeck.delivery.remote.keeper import ASKER_GONE, NOT_STARTED, TOO_LONG

_MAKE = re.compile(
    r"make(?:\[\d+\])?: \*\*\* \[(?:[^\]]*: )?([a-z][a-z0-9-]*)\] "
)  # a target that people call, no file
_NO_TARGET = re.compile(r"make(?:\[\d+\])?: \*\*\* No rule to make target \W([\w./-]+)")
_LINES = 12


FIRST = "check"  # lint, types, tests: when it is red, what the other gates find waits for the next push


def enough(outcomes: Iterable[Mapping[str, Any]]) -> bool:
    """Whether CI may end here: its first gate is red, and a pusher waits for the word."""
    return any(item.get("gate") == FIRST and item.get("findings") for item in outcomes)


def why(*, code: int, took_s: float, outcomes: Sequence[Mapping[str, Any]], last: str, limit_s: float) -> list[str]:
    """What failed, what was found, what to do.

    Args:
        code: CI's exit code.
        outcomes: what the gates left, in order.
        last: the end of CI's output.
        limit_s: CI's time limit, seconds.
    """
    red = [item for item in outcomes if item.get("findings")]
    if red:
        lines = []
        for item in red:
            lines.append(f"gate {item['gate']} is red after {float(item.get('took_s') or 0):.0f} s")
            for finding in item["findings"]:
                lines += [f"  {finding.get('what', '?')}", f"    do: {finding.get('do', '?')}"]
            if code == ASKER_GONE and item["gate"] == FIRST:
                lines.append("what comes behind this gate did not run")
        return lines
    if code == TOO_LONG:
        return [
            f"CI did not end within {limit_s / 60:.0f} minutes and was ended; the log's last lines say where it stood",
            *_tail(last),
        ]
    if code == NOT_STARTED:
        return ["CI could not be started; install make (and git), then push again"]
    if missing := _NO_TARGET.search(last):
        return [
            f"this commit has no target `{missing.group(1)}` in its Makefile, so nothing can check it",
            "  do: push a commit that has it; a tag on such an old commit is not let in either",
        ]
    # The innermost target is told first: make names it, then each of those that called it.
    target = _MAKE.search(last)
    named = f"`make {target.group(1)}`" if target else "CI"
    do = f"  do: {named} in your checkout repeats it" if target else "  do: `make ci` in your checkout repeats it"
    return [f"{named} failed (exit code {code}) after {took_s:.0f} s of CI", *_tail(last), do]


def _tail(last: str) -> list[str]:
    lines = [line.rstrip() for line in last.splitlines() if line.strip() and not line.lstrip().startswith("make")]
    return [f"  {line[:300]}" for line in lines[-_LINES:]]
