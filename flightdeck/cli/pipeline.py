"""`flightdeck pipeline`: start a Dagster run and follow it."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flightdeck.cli.options import State, layout_of, show_table

if TYPE_CHECKING:
    from flightdeck.cluster.dagster_client import DagsterClient, Outcome

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Pipelines, as Dagster runs them.\n\n"
    "Example: flightdeck pipeline run daily --from 2013-07-01 && flightdeck pipeline run train_late --month 2013-06",
)

DAY = "%Y-%m-%d"
INTERRUPTED = 130
DEV_INSTANCE = """# Written by `flightdeck pipeline dev`.
telemetry: {enabled: false}
nux: {enabled: false}
concurrency:
  runs:
    max_concurrent_runs: 2
    tag_concurrency_limits:
      - {key: flightdeck/model, limit: 1, value: {applyLimitPerUniqueValue: true}}
      - {key: flightdeck/writes, limit: 1, value: {applyLimitPerUniqueValue: true}}
"""
Address = Annotated[
    str | None,
    typer.Option(
        "--dagster",
        envvar="FLIGHTDECK_DAGSTER_URL",
        help="Dagster's page, e.g. http://127.0.0.1:3000; else that of the current kubectl context.",
    ),
]
Context = Annotated[str | None, typer.Option("--context", help="kubectl context; else the current one.")]
RunId = Annotated[str, typer.Argument(help="Id of a run, or how it begins.")]


@contextlib.contextmanager
def _client(address: str | None, context: str | None = None, *, starts: bool = False) -> Iterator[DagsterClient]:
    """Dagster at an address, or through a port-forward; expected failures end the command with their words.

    Args:
        starts: a run is to be started: in a cluster, with the image that is deployed.
    """
    from flightdeck.cluster.commands import CommandFailed, Kubectl, current_context
    from flightdeck.cluster.dagster_client import DagsterClient, DagsterError
    from flightdeck.cluster.dagster_deployed import deployed
    from flightdeck.cluster.forward import forward
    from flightdeck.cluster.names import PLATFORM

    try:
        if address:
            yield DagsterClient(address)
            return
        chosen = context or current_context()
        if not chosen:
            raise CommandFailed("no kubectl context; `make up` makes a cluster, or give --dagster")
        if starts:
            with deployed(Kubectl(chosen)) as client:
                yield client
            return
        with forward(Kubectl(chosen), PLATFORM, "dagster-webserver", 3000) as url:
            yield DagsterClient(url)
    except (DagsterError, CommandFailed) as error:
        print(f"flightdeck pipeline: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


@app.command("list")
def list_(address: Address = None, context: Context = None) -> None:
    """Every job, what it does and what can be set. Example: flightdeck pipeline list"""
    from flightdeck.cluster.dagster_client import DagsterError

    with _client(address, context) as client:
        rows = []
        for job in client.jobs():
            settings = sorted({name for names in job.settings.values() for name in names})
            takes = {"days": "--from --to --month", "until": "--month"}.get(job.takes, "")
            rows.append((job.name, job.description, takes, ", ".join(settings)))
        if not rows:
            raise DagsterError(f"no jobs: {client.trouble() or 'the code location does not answer yet'}")
        show_table(("job", "what it does", "takes", "--set"), rows)


@app.command()
def run(  # noqa: PLR0917  Typer reads the signature
    name: Annotated[str, typer.Argument(help="Job; `flightdeck pipeline list` names them.")],
    month: Annotated[
        str | None, typer.Option("--month", help="All days of a month; of a training: it ends with that month.")
    ] = None,
    first: Annotated[dt.datetime | None, typer.Option("--from", formats=[DAY], help="First day.")] = None,
    last: Annotated[
        dt.datetime | None, typer.Option("--to", formats=[DAY], help="Last day, inclusive; default: the first.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting as key=value; may be repeated.")
    ] = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Only start it, and print its id.")] = False,
    address: Address = None,
    context: Context = None,
) -> None:
    """Start a run and follow it, and what follows it, to the end.

    Exit code 1 when it fails or a check fails (a quarantined day, a rejected model), with the reasons and last lines.

    Example: flightdeck pipeline run train_late --set until=2013-07-01T12:00Z --set trials=0
    """
    from flightdeck.cluster.dagster_client import UNTIL, DagsterError, month_days

    with _client(address, context, starts=True) as client:
        given: dict[str, Any] = dict(_setting(item) for item in settings or ())
        from_day, to_day = (value.date() if value else None for value in (first, last))
        job = client.job(name)
        if month:
            if from_day or to_day:
                raise DagsterError("--month and --from/--to exclude each other")
            from_day, to_day = month_days(month)
            if job.takes == UNTIL:
                given = {"until": f"{to_day + dt.timedelta(days=1)}T12:00Z", "note": month} | given
                from_day = to_day = None
        run_id = client.start(job, given, first=from_day, last=to_day)
        if no_wait:
            print(run_id)
            return
        print(f"{job.name}: run {run_id}")
        started = time.monotonic()

        def tell(line: str) -> None:
            print(f"[{time.monotonic() - started:6.1f} s] {line}", flush=True)

        try:
            outcome = client.follow(run_id, tell=tell)
        except KeyboardInterrupt:
            print(f"\nno longer following; the run goes on: flightdeck pipeline logs {run_id}", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None
        _show(outcome)


@app.command()
def runs(
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many.")] = 20,
    address: Address = None,
    context: Context = None,
) -> None:
    """The newest runs. Example: flightdeck pipeline runs --limit 5"""
    with _client(address, context) as client:
        rows = []
        for item in client.runs(limit=limit):
            begun, ended = item["startTime"], item["endTime"]
            seconds = f"{ended - begun:.0f} s" if begun and ended else ""
            rows.append((item["runId"], item["jobName"], item["status"].lower(), _at(begun), seconds, _days(item)))
        show_table(("run", "job", "status", "started (UTC)", "took", "days"), rows)


@app.command()
def logs(run_id: RunId, address: Address = None, context: Context = None) -> None:
    """Everything a run has said, also when its pod is gone. Example: flightdeck pipeline logs 3f2c81aa"""
    from flightdeck.cluster.dagster_client import DagsterError

    with _client(address, context) as client:
        full = [it["runId"] for it in client.runs(limit=500) if it["runId"].startswith(run_id)]
        if len(full) > 1:
            raise DagsterError(f"{len(full)} runs begin with {run_id}; give more of it")
        for step in client.log(full[0] if full else run_id):
            print(f"{_at(step.at_s)[11:]}  {step.line}")


@app.command()
def dev(
    port: Annotated[int, typer.Option(help="Of the page, on 127.0.0.1.")] = 3000,
    state: State = None,
) -> None:
    """Show the same definitions over this machine's state folder: Dagster's page, until ctrl-C. SQLite, no cluster.

    A lab that runs (`make lab-up`) lends its Redis and MLflow; else the environment says where they are.

    Example: flightdeck pipeline dev, then http://127.0.0.1:3000
    """
    import os
    import subprocess
    from pathlib import Path

    from flightdeck.lab.environment import QUIET, addresses
    from flightdeck.lab.session import read_mark

    layout = layout_of(state)
    home = layout.root / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text(DEV_INSTANCE)
    ports = read_mark(layout).get("ports")
    environment = os.environ | QUIET | {"DAGSTER_HOME": str(home), "DAGSTER_DISABLE_TELEMETRY": "1"}
    environment = (addresses(ports) if ports else {}) | environment
    program = Path(sys.executable).parent / "dagster"
    if not program.exists():
        print(
            "flightdeck pipeline: needs the dependency group `orchestration`; `make setup-dev` has it", file=sys.stderr
        )
        raise typer.Exit(3)
    argv = [str(program), "dev", "-m", "pipelines.orchestration.definitions", "-h", "127.0.0.1", "-p", str(port)]
    with contextlib.suppress(KeyboardInterrupt):
        raise typer.Exit(subprocess.run(argv, env=environment, check=False).returncode)


def _setting(text: str) -> tuple[str, Any]:
    """`trials=0` -> a number, `promote=true` -> a truth value, everything else as text."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise typer.BadParameter(f"--set {text!r} is not key=value")
    try:
        found = json.loads(value)
    except ValueError:
        return name, value
    return name, found if isinstance(found, (bool, int, float)) else value


def _show(outcome: Outcome) -> None:
    print(f"{outcome.job}: success in {outcome.seconds:.1f} s" + (f" (run {outcome.run_id})" if outcome.run_id else ""))
    for asset, values in outcome.metadata.items():
        if asset.startswith("version/"):
            print(f"  {asset}: v{values.get('version')} {values.get('verdict')}: {values.get('reason')}")
    for line in outcome.warnings:
        print(f"  {line}")
    if outcome.then:
        _show(outcome.then)


def _days(item: Any) -> str:
    tags = {it["key"]: it["value"] for it in item["tags"]}
    first, last = (tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
    return tags.get("dagster/partition") or (f"{first} to {last}" if first else "")


def _at(at_s: float | None) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S") if at_s else ""
