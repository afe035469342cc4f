"""Entry point of the Job: run the plan of the environment, print the verdict, then the outcomes for whoever reads."""

from __future__ import annotations

import base64
import sys
import zlib
from pathlib import Path

from flightdeck.load.plan import Refused, read_plan
from flightdeck.load.runner import run_users
from flightdeck.load.verdict import judge, words

OUTCOMES = "outcomes: "  # begins the line that carries them


def main() -> int:
    """Exit code: 0 the limits were met, 1 they were not, 2 the test was not run."""
    try:
        plan = read_plan()
        folder = Path(plan.outcomes).parent
        print(f"{plan.rate_per_s:g}/s for {plan.seconds:g} s to {plan.url}", flush=True)
        outcomes = run_users(plan, folder)
    except Refused as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    verdict = judge(plan, outcomes)
    print(words(verdict))
    print(OUTCOMES + base64.b64encode(zlib.compress(Path(plan.outcomes).read_bytes(), 9)).decode(), flush=True)
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
