"""`flightdeck clock`: what time it is for every part, and a replay's clock."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from flightdeck.cli.options import utc_time

app = typer.Typer(
    no_args_is_help=True,
    help="The one clock of all parts: wall time, or a replay's.\n\n"
    "Example: flightdeck clock set 2013-07-01 && flightdeck clock show",
)

Streams = Annotated[str, typer.Option("--redis", envvar="FLIGHTDECK_STREAMS_REDIS", help="The streams Redis.")]
DEFAULT = "redis://127.0.0.1:6379/0"


def _connected(url: str) -> Any:
    from redis import Redis, RedisError

    try:
        client: Any = Redis.from_url(url, socket_timeout=10)
        client.ping()
    except (RedisError, ValueError) as error:
        typer.echo(f"flightdeck clock: the streams server does not answer: {error}", err=True)
        raise typer.Exit(1) from error
    return client


@app.command()
def show(redis_url: Streams = DEFAULT) -> None:
    """Print the clock's now, UTC. Example: flightdeck clock show"""
    from flightdeck.contracts.clock import ReplayClock
    from pipelines.clock import read_clock

    try:
        clock = read_clock(_connected(redis_url))
    except ValueError as error:
        typer.echo(f"flightdeck clock: {error}", err=True)
        raise typer.Exit(1) from error
    kind = f"replay, {clock.speed:g} virtual seconds per second" if isinstance(clock, ReplayClock) else "wall time"
    typer.echo(f"{clock.now():%Y-%m-%dT%H:%M:%SZ} ({kind})")


@app.command("set")
def set_(
    at: Annotated[str, typer.Argument(help="The clock's now, UTC, e.g. 2013-07-01T06:00Z.")],
    speed: Annotated[float, typer.Option(min=0, help="Virtual seconds per second; 0 stands still.")] = 0.0,
    redis_url: Streams = DEFAULT,
) -> None:
    """Set everybody's clock for a replay. Example: flightdeck clock set 2013-07-01 --speed 60"""
    from flightdeck.contracts.clock import ReplayClock
    from pipelines.clock import set_clock

    clock = ReplayClock(utc_time(at), time.time(), speed)
    set_clock(_connected(redis_url), clock)
    typer.echo(f"{clock.now():%Y-%m-%dT%H:%M:%SZ}, {speed:g} virtual seconds per second")


@app.command()
def wall(redis_url: Streams = DEFAULT) -> None:
    """Back to wall time. Example: flightdeck clock wall"""
    from pipelines.clock import set_clock

    set_clock(_connected(redis_url), None)
    typer.echo("wall time")
