"""What runs in an export: the pushed commit's own workflows and targets. The only place that names them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flightdeck.delivery.remote.leadtime import Stage
from flightdeck.delivery.remote.place import read

WORKFLOW = Path(".github") / "workflows" / "ci.yml"
ACT = Path("flightdeck") / "delivery" / "act.py"  # of the pushed commit: it knows what its own workflows need
ACT_HOME, ACT_KEPT = "act", "venv"  # in the state folder: artefacts of act's jobs, and packages, which are kept
E2E_LEFT_OUT = "FLIGHTDECK_E2E_LEFT_OUT"  # why `make ci-e2e` must not run here
KIND_CLUSTER = "flightdeck"  # flightdeck/cluster/target.py
CARD_ENV = "FLIGHTDECK_CHAMPION_CARD"


def ci(tree: Path, *, base: str | None, told: dict[str, str], labels: Sequence[str]) -> tuple[list[str], str]:
    """The command of CI and how people call it: the workflow itself under `act`, else its targets in the same order.

    Args:
        base: what main was before the push.
        told: variables for the command; what only targets can be told is added.
        labels: act knows no pull request, so a push with labels runs the targets.
    """
    if base:
        told["FLIGHTDECK_BASE"] = base
    if not labels and shutil.which("act") and (tree / WORKFLOW).is_file() and (tree / ACT).is_file():
        card = told.get(CARD_ENV) or os.environ.get(CARD_ENV)
        argv = [sys.executable, "-B", "-m", "flightdeck.delivery.act", WORKFLOW.name]
        argv += ["--before", base] if base else []
        argv += ["--", "--var", f"CHAMPION_CARD={card}"] if card else []
        return argv, "act push (ci.yml)"
    if labels:
        told["FLIGHTDECK_LABELS"] = ",".join(labels)
    return ["make", "ci"], "make ci" + (f" with the labels {', '.join(labels)}" if labels else "")


def first_look(tree: Path, state: Path, env: dict[str, str], *, act: bool) -> list[str] | None:
    """`make lint` with the packages that CI itself uses: a slip is turned back before anything slow begins.

    Returns:
        None where the commit has no such target.
    """
    packages = [f"VENV={state / ACT_HOME / ACT_KEPT}"] if act else []
    try:
        there = subprocess.run(
            ["make", "--dry-run", *packages, "lint"], cwd=tree, env=env, capture_output=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return ["make", *packages, "lint"] if there.returncode == 0 else None


def apart(slot: Path) -> dict[str, str]:
    """Variables that keep CI away from the user's clusters: a kubeconfig of its own, and no second kind cluster.

    `make ci-e2e` makes a kind cluster by the name of the one that `make up` makes, on the same ports.
    """
    told = {"KUBECONFIG": str(slot / "kubeconfig")}
    if shutil.which("kind") is None:
        return told
    try:
        found = subprocess.run(
            ["kind", "get", "clusters"], capture_output=True, text=True, check=False, timeout=30
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    if KIND_CLUSTER in found.split():
        told[E2E_LEFT_OUT] = f"the kind cluster {KIND_CLUSTER} is on this machine already, and CI must not touch it"
    return told


def deliver(environment: str) -> list[str]:
    """The command of CD."""
    return ["make", "deliver", f"ENVIRONMENT={environment}"]


def variables(card: Path, state: Path, *, publishes: bool) -> dict[str, str]:
    """What the commands are told: their state folder, a Python for `make setup`, and where the champion card is.

    Args:
        publishes: the command may write the card, so its place is told also when nothing is there yet.
    """
    told = {"FLIGHTDECK_STATE": str(state), "PYTHON": sys.executable}
    if CARD_ENV not in os.environ and (publishes or card.is_file()):
        told[CARD_ENV] = str(card)
    return told


def outcomes(state: Path) -> Iterator[dict[str, Any]]:
    """What the gates left so far (flightdeck/delivery/outcome.py), in the order in which they ended.

    Under act they come to the state folder at the end; until then they lie with the jobs' artefacts.
    """
    files = {path.name: path for path in (state / ACT_HOME / "artefacts").glob("outcome-*/*.json")}
    files |= {path.name: path for path in (state / "ci").glob("*.json")}
    for path in sorted(files.values(), key=lambda item: (item.stat().st_mtime if item.exists() else 0.0, item.name)):
        found = read(path)
        if isinstance(found.get("gate"), str):
            yield found


def deliver_stages(state: Path, environment: str, commit: str, since: float) -> list[Stage]:
    """The stages that CD timed, from the copy of its record (flightdeck/contracts/ledger.py); none when it left none.

    Args:
        since: when it began, Unix seconds: an older copy is of an earlier deploy.
    """
    file = state / "deliveries" / f"{environment}.json"
    record: Mapping[str, Any] = read(file)
    if not str(record.get("commit", "")).startswith(commit) or file.stat().st_mtime < since:
        return []
    stages = record.get("stages")
    named = [item for item in stages if isinstance(item, dict)] if isinstance(stages, list) else []
    return [Stage(f"CD: {item.get('name', '?')}", float(item.get("seconds") or 0.0)) for item in named]
