"""Entry point of the command `flightdeck`.

Each sub-command is a module of this package with a Typer `app`, imported when it is called: `flightdeck lab --help`
does not load scikit-learn, and an image with one dependency group can run what that group allows.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import os
import sys
from pathlib import Path

USAGE = """Usage: flightdeck COMMAND [ARGS]...

From raw data to a served, watched model. `flightdeck COMMAND --help` shows an example of each.

Commands:
{commands}
Options:
  --version   Print the version.
  -h, --help  Show this page."""


@dataclasses.dataclass(frozen=True)
class Command:
    """A sub-command: where its Typer `app` is, what it does, which dependency group it needs."""

    module: str
    line: str
    group: str


COMMANDS = {
    "data": Command("flightdeck.cli.data", "Ingest days of the source, look at lake and quarantine.", "pipeline"),
    "features": Command("flightdeck.cli.features", "Plan, apply, materialize and check features.", "pipeline"),
    "train": Command("flightdeck.cli.train", "Train a candidate from a model spec.", "pipeline"),
    "gate": Command("flightdeck.cli.gate", "Decide on a candidate: PROMOTE, HOLD or REJECT.", "pipeline"),
    "models": Command("flightdeck.cli.models", "List, show, verify and fetch registered versions.", "pipeline"),
    "governor": Command("flightdeck.cli.governor", "When models are trained again: status, why, freeze.", "pipeline"),
    "monitor": Command("flightdeck.cli.monitor", "Watch a served model: skew, drift, outcomes.", "lab"),
    "rollout": Command("flightdeck.cli.rollout", "Take a release to the users step by step; step in.", "lab"),
    "clock": Command("flightdeck.cli.clock", "Everybody's clock: wall time or a replay's.", "pipeline"),
    "lab": Command("flightdeck.cli.lab", "Run the whole loop on this machine.", "lab"),
    "images": Command("flightdeck.cli.images", "Build, push and weigh the images.", "cluster"),
    "cluster": Command("flightdeck.cli.cluster", "Run the whole loop on Kubernetes: up, down, status.", "cluster"),
    "pipeline": Command("flightdeck.cli.pipeline", "Start Dagster runs and follow them.", "cluster"),
    "load": Command("flightdeck.cli.load", "Send real requests at a constant rate, with a verdict.", "lab"),
    "git-remote": Command("flightdeck.cli.git_remote", "Make a local remote that tests and deploys a push.", "cluster"),
    "ci": Command("flightdeck.cli.ci", "Run the gates that a push must pass.", "ci"),
    "deliver": Command("flightdeck.cli.deliver", "Carry a commit to the users of one environment.", "lab"),
    "release": Command("flightdeck.cli.release", "What was delivered: list, show, undo.", "lab"),
    "deploy": Command("flightdeck.cli.deploy", "Bring an overlay of k8s/ to the cluster.", "cluster"),
}


def usage() -> str:
    """The page that `--help` shows; imports no sub-command."""
    width = max(map(len, COMMANDS))
    return USAGE.format(commands="".join(f"  {name:<{width}}  {item.line}\n" for name, item in COMMANDS.items()))


def main(argv: list[str] | None = None) -> int:
    """Run one sub-command; returns or raises SystemExit with its exit code."""
    args = sys.argv[1:] if argv is None else argv
    if not args or args[0] in {"-h", "--help"}:
        print(usage())
        return 0
    if args[0] == "--version":
        print(f"flightdeck {importlib.metadata.version('flightdeck')}")
        return 0
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        print(f"flightdeck: no command {name!r}; there are: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = COMMANDS[name]
    if os.environ.get("FLIGHTDECK_ENVIRONMENT") and (wrong := _no_environment()):
        print(f"flightdeck: {wrong}", file=sys.stderr)
        return 2
    try:
        app = importlib.import_module(command.module).app
    except ModuleNotFoundError as error:
        missing = (error.name or "?").split(".")[0]
        if missing in {"flightdeck", "pipelines", "services", "feature_repo"}:
            raise
        print(
            f"flightdeck {name}: needs the dependency group `{command.group}` (the module {missing} is not installed); "
            f"install it with: uv pip sync --require-hashes requirements/{command.group}.txt",
            file=sys.stderr,
        )
        return 3
    app(args=rest, prog_name=f"flightdeck {name}")
    return 0


def _no_environment() -> str:
    """Why there is no such environment; empty when there is. Images hold no k8s/: there the variable says nothing."""
    from flightdeck.contracts import environments

    path = Path(__file__).resolve().parents[2] / "k8s" / "environments.yaml"
    try:
        if path.exists():
            environments.named(path, os.environ[environments.ENVIRONMENT_ENV])
    except environments.UnknownEnvironment as error:
        return str(error)
    return ""


if __name__ == "__main__":
    sys.exit(main())
