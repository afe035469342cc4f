"""`flightdeck data`: ingest days of the source, look at lake, quarantine and predictions."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flightdeck.cli.options import State, layout_of, utc_time

if TYPE_CHECKING:
    from pipelines.data.lake import Lake
    from pipelines.use_case import UseCase

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Ingest days of the source; look at the lake and at quarantined days.\n\n"
    "Example: flightdeck data ingest --from 2013-01-01 --to 2013-01-31 && flightdeck data status",
)

DAY = "%Y-%m-%d"


def _use_case() -> UseCase:
    from pipelines.use_case import load_use_case

    try:
        return load_use_case()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Expected failures end the command with their words instead of a traceback."""
    from pipelines.data.lake import LakeError

    try:
        yield
    except (LakeError, OSError, ValueError) as error:  # ValueError: a place that nothing here speaks
        typer.echo(f"flightdeck data: {error}", err=True)
        raise typer.Exit(1) from error


@app.command()
def ingest(
    first: Annotated[dt.datetime | None, typer.Option("--from", formats=[DAY], help="First day.")] = None,
    last: Annotated[dt.datetime | None, typer.Option("--to", formats=[DAY], help="Last day, inclusive.")] = None,
    table: Annotated[list[str] | None, typer.Option(help="Only this table; may be repeated.")] = None,
    now: Annotated[
        str | None,
        typer.Option(help="Only what the source had delivered by then, UTC. Default: all (a backfill)."),
    ] = None,
    state: State = None,
) -> None:
    """Ingest days of the source into the lake; bad days go to quarantine, the rest goes on. Safe to repeat.

    Example: flightdeck data ingest --from 2013-01-01 --to 2013-01-31
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from pipelines import stores
    from pipelines.data.ingest import Status, ingest_days

    layout, console, now_utc, use_case = layout_of(state), Console(), utc_time(now) if now else None, _use_case()
    from_day, to_day = (value.date() if value else None for value in (first, last))
    try:
        chosen = [use_case.table(name) for name in table] if table else list(use_case.tables)
    except KeyError as error:
        raise typer.BadParameter(str(error.args[0])) from error
    days = len(list(use_case.days(from_day, to_day)))
    if not days:
        raise typer.BadParameter(
            f"no days from {from_day or use_case.first_day} to {to_day or use_case.last_day}; {use_case.name} has "
            f"{use_case.first_day} to {use_case.last_day}"
        )
    total = sum(1 if item.static else days for item in chosen)
    counts: dict[str, dict[str, int]] = {item.name: dict.fromkeys(("rows", *map(str, Status)), 0) for item in chosen}
    started, written = time.perf_counter(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with _told(), progress as bar:
        task = bar.add_task("ingest", total=total)
        results = ingest_days(
            use_case, stores.lake(layout), stores.quarantine(layout), from_day, to_day,
            tables=[item.name for item in chosen], now_utc=now_utc,
        )  # fmt: skip
        for result in results:
            written += result.written
            counts[result.table]["rows"] += result.written
            counts[result.table][result.status] += 1
            seconds = time.perf_counter() - started
            bar.update(task, advance=1, description=f"{result.day} {written:,} rows {written / seconds:,.0f}/s")
            if result.reason:
                console.print(f"{result.table} {result.day} {result.status}: {result.reason}", soft_wrap=True)
            if result.healed:
                console.print(f"{result.table} {result.day} healed: {result.healed} quarantined delivery resolved")
    seconds = time.perf_counter() - started
    for name, count in counts.items():
        states = ", ".join(f"{count[item]} {item}" for item in Status if count[item])
        console.print(f"{name}: {count['rows']:,} rows; days: {states}", soft_wrap=True)
    console.print(f"{written:,} rows in {seconds:.1f} s, {written / seconds:,.0f} rows/s")


@app.command()
def status(state: State = None) -> None:
    """Show each lake table: version, rows, first and last day.

    Example: flightdeck data status
    """
    from rich.console import Console
    from rich.table import Table

    from pipelines import stores
    from pipelines.data import quarantine

    layout = layout_of(state)
    page = Table("table", "version", "rows", "days", "first", "last", "open quarantine")
    with _told():
        lake, kept = stores.lake(layout), stores.quarantine(layout)
        opened = Counter(item.table for item in quarantine.find(kept) if item.resolved is None)
        names = sorted({*lake.tables(), *opened})  # a table whose every day was bad is in quarantine alone
        if not names:
            typer.echo(f"{lake.root}: empty; run `flightdeck data ingest` first")
            raise typer.Exit(1)
        for name in names:
            snapshot = lake.snapshot(name)
            per_day = snapshot.rows_per_day()
            version = "" if snapshot.version < 0 else str(snapshot.version)
            ends = (str(min(per_day)), str(max(per_day))) if per_day else ("", "")
            page.add_row(name, version, f"{snapshot.rows():,}", str(len(per_day) or ""), *ends, str(opened[name] or ""))
    Console().print(page)


@app.command()
def quarantine(
    table: Annotated[str | None, typer.Option(help="Only this table.")] = None,
    day: Annotated[dt.datetime | None, typer.Option(formats=[DAY], help="Only this day, with all failures.")] = None,
    state: State = None,
) -> None:
    """List quarantined days and why; exits 1 while one of them is open.

    Example: flightdeck data quarantine --day 2013-02-12
    """
    from pipelines import stores
    from pipelines.data import quarantine as store

    with _told():
        root = stores.quarantine(layout_of(state))
        # A typing error must not read as "nothing in quarantine".
        known = {item.name for item in _use_case().tables} | {item.table for item in store.find(root)}
        if table is not None and table not in known:
            raise typer.BadParameter(f"no table {table!r}; there are: {', '.join(sorted(known))}")
        items = store.find(root, table, day.date() if day else None)
    for item in items:
        mark = f"resolved {item.resolved}" if item.resolved else "open"
        if day is None:
            typer.echo(f"{item.table} {item.day} {mark}: {item.rows} rows; {item.reason}")
        else:
            typer.echo(f"{store.as_text(item)}{mark}; rows and page in {item.folder}\n")
    if not items:
        typer.echo("nothing in quarantine")
    if any(item.resolved is None for item in items):
        raise typer.Exit(1)


Redis = Annotated[str, typer.Option("--redis", envvar="FLIGHTDECK_STREAMS_REDIS", help="The streams Redis.")]
Every = Annotated[float | None, typer.Option(min=0.1, help="Go on, every so many seconds; else drain once.")]
Consumer = Annotated[str, typer.Option(help="Name within the consumer group; keep it stable.")]
REDIS, CONSUMER = "redis://127.0.0.1:6379/0", "flightdeck-cli"


@app.command()
def predictions(
    redis_url: Redis = REDIS, every: Every = None, consumer: Consumer = CONSUMER, state: State = None
) -> None:
    """Move the prediction log from its Redis stream into the lake, each record exactly once.

    Example: flightdeck data predictions --redis redis://127.0.0.1:6379/0
    """
    from pipelines.clock import read_clock
    from pipelines.data.predictions import drain

    def once(client: Any, lake: Lake) -> str:
        done = drain(client, lake, now=lambda: read_clock(client).now(), consumer=consumer)
        return (
            f"{done.entries:,} entries: {done.written:,} records written, {done.repeated:,} already there, "
            f"{done.unreadable:,} entries unreadable"
        )

    _drained(redis_url, every, state, once)


@app.command()
def events(redis_url: Redis = REDIS, every: Every = None, consumer: Consumer = CONSUMER, state: State = None) -> None:
    """Move what the ingestor accepted and the features that it made into the lake, each exactly once.

    Example: flightdeck data events --every 10
    """
    from pipelines.data.events import EVENTS, SNAPSHOTS, drain

    def once(client: Any, lake: Lake) -> str:
        done = {moved.table: drain(client, lake, moved, consumer=consumer) for moved in (EVENTS, SNAPSHOTS)}
        return "; ".join(
            f"{table}: {it.written:,} rows written, {it.repeated:,} already there, {it.unreadable:,} unreadable"
            for table, it in done.items()
        )

    _drained(redis_url, every, state, once)


def _drained(redis_url: str, every: float | None, state: Path | None, once: Callable[[Any, Lake], str]) -> None:
    """Move entries once, or again and again; what cannot be moved now stays on the stream."""
    from redis import Redis, RedisError

    from pipelines import stores
    from pipelines.data.lake import LakeError

    lake = stores.lake(layout_of(state))
    try:
        client = Redis.from_url(redis_url, socket_timeout=10)
    except ValueError as error:
        raise typer.BadParameter(f"--redis {stores.shown(redis_url)}: {error}") from error
    while True:
        try:
            typer.echo(once(client, lake))
        except (LakeError, OSError, RedisError, ValueError) as error:  # ValueError: the clock on Redis is unreadable
            typer.echo(f"{stores.shown(redis_url)}: {error}; nothing is lost, the entries stay on the stream", err=True)
            if every is None:
                raise typer.Exit(1) from error
        if every is None:
            return
        time.sleep(every)


@app.command()
def upkeep(  # noqa: PLR0917  Typer reads the signature
    keep_days: Annotated[int, typer.Option(min=1, help="Versions and exports of the last days stay.")] = 7,
    keep_runs_days: Annotated[
        int,
        typer.Option(min=1, help="Runs of Dagster and MLflow of so many days stay, and those that made a version."),
    ] = 90,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    dagster: Annotated[
        str | None, typer.Option("--dagster", envvar="FLIGHTDECK_DAGSTER_URL", help="Dagster's page; else left out.")
    ] = None,
    redis_url: Annotated[
        str | None, typer.Option("--redis", envvar="FLIGHTDECK_STREAMS_REDIS", help="The streams Redis; else left out.")
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="MLflow server; else $MLFLOW_TRACKING_URI.")
    ] = None,
    state: State = None,
) -> None:
    """Merge small files, remove data that no registered model and no recent version needs, trim what the lake has.

    Example: flightdeck data upkeep --dry-run
    """
    from redis import Redis, RedisError
    from rich.console import Console
    from rich.table import Table

    from flightdeck.cluster.dagster_client import DagsterClient, DagsterError
    from pipelines import stores
    from pipelines.data import upkeep as care
    from pipelines.registry.mlflow_adapter import (
        MlflowRegistry,
        RegistryRefused,
        RegistryUnavailable,
        tracking_uri_or_env,
    )

    layout = layout_of(state)
    try:
        with _told():
            registry = MlflowRegistry(tracking_uri_or_env(tracking_uri))
            streams: Any = None
            if redis_url:
                streams = Redis.from_url(redis_url, socket_timeout=10, socket_connect_timeout=5)
            with streams or contextlib.nullcontext():
                done = care.tend(
                    stores.lake(layout), layout, registry, streams, DagsterClient(dagster) if dagster else None,
                    keep_days=keep_days, keep_runs_days=keep_runs_days, dry_run=dry_run,
                )  # fmt: skip
    except (care.CannotTell, DagsterError, RedisError, RegistryRefused, RegistryUnavailable) as error:
        typer.echo(f"flightdeck data upkeep: {error}", err=True)
        raise typer.Exit(1) from error
    removal = "to remove" if dry_run else "removed"
    page = Table("table", "version", "files before", "files now", f"files {removal}", "pinned versions")
    for item in done.tables:
        counts = (item.version, item.files_before, item.files_after, item.removed)
        page.add_row(item.table, *(f"{count:,}" for count in counts), ", ".join(map(str, item.pinned)))
    Console().print(page)
    typer.echo(f"exports {removal}: {', '.join(done.exports) or 'none'}; stream entries {removal}: {done.trimmed:,}")
    typer.echo(f"runs {removal}: {done.mlflow_runs:,} of MLflow, {done.dagster_runs:,} of Dagster")
