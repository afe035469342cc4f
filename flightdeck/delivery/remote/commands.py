"""What runs in an export: the pushed commit's own workflows and targets. The only place that names them."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from flightdeck.delivery.remote.leadtime import Stage

WORKFLOW = Path(".github") / "workflows" / "ci.yml"
ACT = (
    Path("flightdeck") / "delivery" / "act.py"
)  # of the pushed commit: it knows its own workflows' actions and their stand-ins


def ci(tree: Path) -> tuple[list[str], str]:
    """The command of CI and how people call it: the workflow itself under `act`, else its targets in the same order."""
    if shutil.which("act") and (tree / WORKFLOW).is_file() and (tree / ACT).is_file():
        return [sys.executable, "-B", "-m", "flightdeck.delivery.act", WORKFLOW.name], "act push (ci.yml)"
    return ["make", "ci"], "make ci"


def deliver(environment: str) -> list[str]:
    """The command of CD."""
    return ["make", "deliver", f"ENVIRONMENT={environment}"]


def variables(card: Path, state: Path, *, publishes: bool) -> dict[str, str]:
    """What the commands are told: their state folder, a Python for `make setup`, and where the champion card is.

    Args:
        publishes: the command may write the card, so its place is told also when nothing is there yet.
    """
    told = {"FLIGHTDECK_STATE": str(state), "PYTHON": sys.executable}
    if "FLIGHTDECK_CHAMPION_CARD" not in os.environ and (publishes or card.is_file()):
        told["FLIGHTDECK_CHAMPION_CARD"] = str(card)
    return told


def deliver_stages(state: Path, since: float) -> list[Stage]:
    """The stages that CD itself timed, when it left them; `since` is when it began, Unix seconds."""
    return []
