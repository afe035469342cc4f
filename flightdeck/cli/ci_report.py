"""`flightdeck ci report`: the pull request's comment, from what the gates kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from flightdeck.cli.options import layout_of
from flightdeck.delivery import outcome
from flightdeck.delivery.verdict import NEEDS_ENV

if TYPE_CHECKING:
    from flightdeck.delivery.github import Run

PAGE, PICTURE = "report.md", "report.svg"


def report() -> None:
    """Write the comment of the pull request, updated in place; else the job's summary. Example: flightdeck ci report"""
    from flightdeck.delivery.comment import Context, comment
    from flightdeck.delivery.github import Run
    from flightdeck.delivery.picture import bars

    root = layout_of(None).root
    run = Run.from_env()
    outcomes = outcome.read(root)
    needs = json.loads(os.environ.get(NEEDS_ENV) or "{}")
    commit, at_s = _head()
    context = Context(
        commit=run.head or commit,
        results={job: it.get("result", "") for job, it in needs.items()},
        lead_time_s=max(0.0, time.time() - at_s) if at_s else None,
        run_url=run.run_url,
    )
    text = comment(outcomes, context)
    folder = root / outcome.FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PAGE).write_text(text)
    (folder / PICTURE).write_text(bars(outcomes, context))
    outcome.summarise(text)
    print(f"{folder / PAGE}\n{_publish(text, run)}")


def _publish(text: str, run: Run) -> str:
    """Where people find it. No write token (a fork's pull request, a push, no GitHub): the summary is the place."""
    from flightdeck.delivery.github import GitHub, GitHubRefused

    if not run.pull_request or not run.token:
        return "no pull request to comment on: the report is the job's summary"
    try:
        return GitHub(run).put_comment(text)
    except GitHubRefused as error:
        print(f"::warning::no comment: {str(error).splitlines()[0]}", file=sys.stderr)
        return "the report is the job's summary"


def _head() -> tuple[str, float]:
    """Name and time of the checked out commit; ("", 0) where there is none."""
    argv = ["git", "log", "-1", "--format=%H %ct"]
    found = subprocess.run(argv, capture_output=True, text=True, check=False).stdout.split()
    return (found[0], float(found[1])) if len(found) == 2 else ("", 0.0)
