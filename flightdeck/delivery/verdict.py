"""Decision: may this change go in? The one check that a branch's protection requires; it always reports.

Only the standard library: it runs where nothing is installed. `python -m flightdeck.delivery.verdict` reads the
workflow's `needs` from FLIGHTDECK_NEEDS.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

NEEDS_ENV = "FLIGHTDECK_NEEDS"
ALWAYS = ("changes", "check")  # no change may go without them
INFORMS = ("report",)  # a comment that could not be written stops nobody


def refusals(needs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why not, a sentence for each job; empty: it may.

    A job that was skipped is fine when `changes` said that it is not needed, and a refusal when it was needed (what
    it waits for failed) or when `changes` said nothing.

    Args:
        needs: the workflow's context `needs`: job -> its `result` and `outputs`.
    """
    asked = needs.get("changes", {}).get("outputs", {})
    found = []
    for job in sorted({*needs, *ALWAYS}):
        result = needs.get(job, {}).get("result", "absent")
        wanted = job in ALWAYS or asked.get(job) != "false"
        if job in INFORMS or result == "success" or (result == "skipped" and not wanted):
            continue
        found.append(f"{job}: {result}{', though this change needs it' if result == 'skipped' else ''}")
    return found


def main() -> int:
    """Exit code 1 with the reasons when this change may not go in."""
    try:
        needs = json.loads(os.environ.get(NEEDS_ENV, ""))
    except json.JSONDecodeError:
        print(
            f"ci: {NEEDS_ENV} holds no results; only the job `ci` of .github/workflows/ci.yml can tell", file=sys.stderr
        )
        return 1
    if why := refusals(needs):
        print("ci: refused; look at these jobs, each says what to do:\n  " + "\n  ".join(why), file=sys.stderr)
        return 1
    skipped = [job for job, it in needs.items() if it.get("result") == "skipped"]
    print("ci: passed" + (f"; not needed by this change: {', '.join(skipped)}" if skipped else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
