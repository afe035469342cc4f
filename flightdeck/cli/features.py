"""`flightdeck features`: build, export, plan, apply, materialize and check."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from flightdeck.cli.options import State, layout_of, utc_time

if TYPE_CHECKING:
    from pipelines.features.registry_changes import Change

app = typer.Typer(
    no_args_is_help=True,
    help="Features: from the lake's tables to Feast's registry and online store.\n\n"
    "Example: flightdeck features build --from 2013-01-01 --until 2013-07-01 && flightdeck features export "
    "&& flightdeck features plan && flightdeck features apply && flightdeck features materialize --until 2013-07-01",
)

Online = Annotated[
    str | None, typer.Option("--online", help="Redis as host:port; else $FLIGHTDECK_ONLINE_REDIS, else 127.0.0.1:6379.")
]
Views = Annotated[list[str] | None, typer.Option("--view", help="Only this view; may be repeated.")]
Approve = Annotated[bool, typer.Option("--approve", help="Accept destructive changes.")]
Protect = Annotated[
    list[str] | None,
    typer.Option(
        "--protect",
        help="Feature service of a release that serves, waits or can be undone to; may be repeated. Added to "
        "$FLIGHTDECK_PROTECTED_SERVICES (commas between).",
    ),
]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Expected failures end the command with their words instead of a traceback."""
    from pipelines.data.lake import LakeError
    from pipelines.features.export import ExportError
    from pipelines.features.materialize import OnlineStoreUnavailable
    from pipelines.features.registry import RegistryError

    try:
        yield
    except (ExportError, LakeError, OnlineStoreUnavailable, OSError, RegistryError, ValueError) as error:
        print(f"flightdeck features: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


@app.command()
def build(
    from_: Annotated[str, typer.Option("--from", help="First event time, UTC.")],
    until: Annotated[str, typer.Option("--until", help="Last event time, UTC, inclusive.")],
    view: Views = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Replace the tables whole: after a definition changed.")
    ] = False,
    state: State = None,
) -> None:
    """Build feature tables in the lake from its source tables.

    Example: flightdeck features build --from 2013-01-01 --until 2013-07-01
    """
    import resource
    import time

    from pipelines import stores
    from pipelines.features.build import build_features
    from pipelines.use_case import load_use_case

    started = time.perf_counter()
    with _told():
        results = build_features(
            load_use_case(),
            stores.lake(layout_of(state)),
            utc_time(from_),
            utc_time(until),
            views=view,
            rebuild=rebuild,
            progress=lambda done: print(
                f"{done.view:<16} {done.rows:>9,} rows  v{done.version:<4} {done.seconds:5.1f} s"
            ),
        )
    seconds, rows = time.perf_counter() - started, sum(item.rows for item in results)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        f"{'all':<16} {rows:>9,} rows        {seconds:5.1f} s, {rows / seconds:,.0f} rows/s, peak {peak / 1e6:.0f} MB"
    )


@app.command("export")
def export_(state: State = None) -> None:
    """Export the newest feature tables as Parquet for Feast, and point `exports/current` at them.

    Example: flightdeck features export
    """
    from pipelines import stores
    from pipelines.features.export import ensure_export

    layout = layout_of(state)
    with _told():
        found = ensure_export(stores.lake(layout), layout)
    print(f"export {found.id}: " + ", ".join(f"{view} {rows:,}" for view, rows in sorted(found.rows.items())))


@app.command()
def plan(approve: Approve = False, protect: Protect = None, state: State = None) -> None:
    """Show what `apply` would change. Exit code 1 when a change destroys something and is not approved, or cannot be.

    Example: flightdeck features plan
    """
    from pipelines.features import guard, registry
    from pipelines.features.registry_changes import Effect

    layout = layout_of(state)
    with _told():
        changes = registry.plan(layout)
        refused = registry.not_allowed(layout, registry.protected_services(protect or ()))
    _show(changes)
    if refused:
        print(f"\n{guard.words(refused)}.")
        raise typer.Exit(1)
    destructive = sum(change.effect is Effect.DESTROYS for change in changes)
    if destructive and not approve:
        print(
            f"\n{destructive} destructive change(s): models and predictors that read these would break. Make a new "
            "version beside the old one, or accept it with --approve."
        )
        raise typer.Exit(1)


@app.command()
def apply(approve: Approve = False, protect: Protect = None, state: State = None) -> None:
    """Make Feast's registry equal feature_repo/definitions.py. Refuses destructive changes that are not approved.

    What a protected feature service reads is never destroyed, approved or not.

    Example: flightdeck features apply --protect late_v1
    """
    from pipelines.features import registry

    layout = layout_of(state)
    with _told():
        try:
            changes = registry.apply(layout, approve=approve, protect=registry.protected_services(protect or ()))
        except registry.DestructiveChange:
            _show(registry.plan(layout))
            raise
    _show(changes, done=True)


@app.command()
def materialize(
    until: Annotated[str, typer.Option("--until", help="Bring the online store up to this time, UTC.")],
    view: Views = None,
    full: Annotated[
        bool, typer.Option("--full", help="Not only what is new: after the online store was lost.")
    ] = False,
    state: State = None,
    online: Online = None,
) -> None:
    """Write the newest rows of the feature tables into the online store, from where the last run ended.

    Where the state folder is only scratch they are read from the lake, else from the current export.

    Example: flightdeck features materialize --until 2013-07-01
    """
    from pipelines import stores
    from pipelines.features.materialize import Written
    from pipelines.features.materialize import materialize as bring
    from pipelines.features.registry import open_store

    def show(done: Written) -> None:
        if done.from_utc >= done.until_utc:
            print(f"{done.view:<16} nothing to do: materialized up to {done.from_utc:%Y-%m-%d %H:%M} UTC before")
        else:
            span = f"{done.from_utc:%Y-%m-%d %H:%M} to {done.until_utc:%Y-%m-%d %H:%M}"
            print(f"{done.view:<16} {done.rows:>7,} rows  {span} UTC  {done.seconds:5.2f} s")

    layout = layout_of(state)
    with _told():
        bring(
            layout,
            utc_time(until),
            views=view,
            full=full,
            store=open_store(layout, online),
            lake=stores.lake(layout) if stores.scratch(layout) else None,
            progress=show,
        )


@app.command()
def check(
    at: Annotated[str, typer.Option("--at", help="Time up to which the online store was materialized, UTC.")],
    view: Views = None,
    sample: Annotated[int, typer.Option(min=1, help="Keys per view.")] = 200,
    state: State = None,
    online: Online = None,
) -> None:
    """Compare what the online store answers with a recomputation from the lake. Exit code 1 when anything differs.

    Example: flightdeck features check --at 2013-07-01
    """
    from pipelines import stores
    from pipelines.features.consistency import check as compare
    from pipelines.features.registry import open_store
    from pipelines.use_case import load_use_case

    layout = layout_of(state)
    with _told():
        result = compare(
            load_use_case(), stores.lake(layout), open_store(layout, online), utc_time(at), views=view, sample=sample
        )
    for name, values in result.compared.items():
        wrong = sum(item.view == name for item in result.mismatches)
        print(f"{name:<16} {values:>7,} values compared, {wrong:,} differ")
    if result.mismatches:
        _table(
            ("view", "feature", "entity", "served", "recomputed"),
            [(item.view, item.feature, item.entity, item.served, item.recomputed) for item in result.mismatches[:20]],
        )
        if len(result.mismatches) > 20:
            print(f"... and {len(result.mismatches) - 20:,} more")
    if not result.equal:
        print("the online store does not equal the lake" if result.mismatches else "nothing to compare: build first")
        raise typer.Exit(1)


@app.command()
def future(
    at: Annotated[str, typer.Option("--at", help="A time within the lake's data, UTC.")],
    view: Views = None,
    state: State = None,
) -> None:
    """Prove that no feature looks ahead: rows up to a time must not change when what became known later is taken away.

    Example: flightdeck features future --at 2013-06-20T14:00Z
    """
    from pipelines import stores
    from pipelines.features.truncation import assert_no_future
    from pipelines.use_case import load_use_case

    with _told():
        compared = assert_no_future(load_use_case(), stores.lake(layout_of(state)), utc_time(at), views=view)
    for name, rows in compared.items():
        print(f"{name:<16} {rows:>7,} rows, the same without what became known later")


def _show(changes: list[Change], *, done: bool = False) -> None:
    if not changes:
        print("The registry equals the definitions.")
        return
    _table(
        ("effect", "kind", "name", "what", "before", "after"),
        [(item.effect.value, item.kind, item.name, item.what, item.before, item.after) for item in changes],
    )
    print(f"{len(changes)} change(s){' applied' if done else ''}.")


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
