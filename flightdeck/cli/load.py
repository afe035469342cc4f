"""`flightdeck load`: real requests at a constant rate, and a verdict on what the users met."""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flightdeck.cli.options import State, layout_of

if TYPE_CHECKING:
    from flightdeck.lab.users import Arrival, Outcome
    from flightdeck.load.plan import LoadPlan

app = typer.Typer(help="Send real requests at a constant rate; exit code 0 when the users met what they should.")


@app.command()
def load(
    *,
    url: Annotated[str | None, typer.Option("--url", help="http://HOST:PORT; default: the Gateway.")] = None,
    rate: Annotated[float, typer.Option("--rate", help="Requests a second.")] = 50.0,
    seconds: Annotated[float, typer.Option("--seconds", help="How long; at most 900.")] = 60.0,
    job: Annotated[bool, typer.Option("--job", help="As a Job in the current cluster instead of from here.")] = False,
    registry: Annotated[
        str, typer.Option("--registry", envvar="REGISTRY", help="Where the Job's image is pushed.")
    ] = "localhost:5001/flightdeck",
    at: Annotated[
        dt.datetime | None,
        typer.Option("--at", help="Requests of this time, UTC; default: the coming day's, as of the first run's end."),
    ] = None,
    requests: Annotated[
        Path | None, typer.Option("--requests", help="A file with one JSON body a line instead.", exists=True)
    ] = None,
    p50: Annotated[float, typer.Option("--p50", help="Milliseconds, at most.")] = 50.0,
    p99: Annotated[float, typer.Option("--p99", help="Milliseconds, at most.")] = 500.0,
    failed: Annotated[int, typer.Option("--failed", help="Requests without a 2xx answer, at most.")] = 0,
    state: State = None,
) -> None:
    """Replay real requests; latency counts from the intended start. Writes reports/load.html.

    Exit code 0: all limits were met, 1: one was missed, 2: the test was not run.

    Example: flightdeck load --rate 50 --seconds 60
    """
    from flightdeck.cluster.commands import CommandFailed
    from flightdeck.load.here import real_requests
    from flightdeck.load.page import render
    from flightdeck.load.plan import Limits, LoadPlan, Refused, checked
    from flightdeck.load.verdict import judge, words

    layout = layout_of(state)
    try:
        target = url or _gateway(inside=job)
        plan = checked(LoadPlan(target, rate, seconds, "", "", Limits(p50, p99, failed)))
        bodies = _from_file(requests) if requests else real_requests(at)
        outcomes = _job(plan, bodies, registry, layout.root) if job else _here(plan, bodies)
    except (Refused, CommandFailed, ValueError) as error:
        print(f"flightdeck load: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    verdict = judge(plan, outcomes)
    print(words(verdict))
    title = "a Job in the cluster" if job else "from this machine"
    page = layout.reports / "load.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(render(plan, outcomes, verdict, title=title), encoding="utf-8")
    print(page)
    raise typer.Exit(0 if verdict.ok else 1)


def _gateway(*, inside: bool) -> str:
    from flightdeck.cluster import gateway
    from flightdeck.cluster.commands import Kubectl, current_context

    context = current_context()
    if context is None:
        raise ValueError("no current kubectl context; name the target with --url")
    kubectl = Kubectl(context)
    return gateway.inside_url(kubectl) if inside else gateway.url(kubectl)


def _here(plan: LoadPlan, bodies: list[Arrival]) -> list[Outcome]:
    from flightdeck.load.here import send

    print(f"... {plan.total:,} requests in {plan.seconds:g} s to {plan.url}", flush=True)
    return send(plan, bodies)


def _job(plan: LoadPlan, bodies: list[Arrival], registry: str, root: Path) -> list[Outcome]:
    from flightdeck.cluster.commands import Kubectl, current_context
    from flightdeck.load.incluster import run_job

    context = current_context()
    if context is None:
        raise ValueError("no current kubectl context to run a Job in")
    return run_job(
        Kubectl(context), plan, bodies, registry=registry, state=root, tell=lambda it: print(f"... {it}", flush=True)
    )


def _from_file(path: Path) -> list[Arrival]:
    from flightdeck.lab.users import Arrival

    lines = path.read_bytes().splitlines()
    return [Arrival(0, str(number), line) for number, line in enumerate(lines) if line.strip()]
