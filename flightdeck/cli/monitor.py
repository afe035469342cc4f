"""`flightdeck monitor`: look at days of a served model, and show what was found."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer

from flightdeck.cli.models import Tracking, told
from flightdeck.cli.options import State, layout_of, show_table, utc_time

if TYPE_CHECKING:
    from pathlib import Path

    from flightdeck.contracts.alarm import MonitorReport
    from flightdeck.contracts.card import Interval
    from flightdeck.contracts.clock import Clock
    from flightdeck.contracts.layout import StateLayout
    from flightdeck.contracts.model_spec import ModelSpec
    from pipelines.monitoring.baseline import Baseline

app = typer.Typer(
    add_completion=False, no_args_is_help=True,
    help="Watch what a served model is asked, what it answers, and what became of it.\n\n"
    "Example: flightdeck monitor run late && flightdeck monitor report late --day 2013-07-05",
)  # fmt: skip

Model = Annotated[str, typer.Argument(help="Model name.")]
Day = Annotated[str | None, typer.Option("--day", help="Local day, e.g. 2013-07-05; else every day that is due.")]
ALARM = 1  # exit code; 2, 3 and 5 are taken: usage, missing dependencies, failures


@app.command()
def run(  # noqa: PLR0917  Typer reads the signature
    model: Model,
    day: Day = None,
    now: Annotated[
        str | None, typer.Option("--now", help="The clock, UTC; else that of --redis, else wall time.")
    ] = None,
    redis: Annotated[
        str | None, typer.Option("--redis", help="Streams server, redis://..., whose clock counts.")
    ] = None,
    season_bound: Annotated[
        list[str] | None,
        typer.Option("--season-bound", help="A feature that never alarms by moving alone; may repeat."),
    ] = None,
    state: State = None,
    tracking_uri: Tracking = None,
) -> None:
    """Look at a day of every version that answered on it: checks, alarms, a page each. Exit code 1 with an alarm.

    Example: flightdeck monitor run late --day 2013-07-05 --now 2013-07-07
    """
    with told("monitor run"):
        from pipelines import stores
        from pipelines.monitoring.run import days_to_look_at, load_baseline, monitor_day
        from pipelines.registry.mlflow_adapter import tracking_uri_or_env
        from pipelines.use_case import load_use_case

        layout, use_case = layout_of(state), load_use_case()
        lake, uri = stores.lake(layout), tracking_uri_or_env(tracking_uri)
        spec = _spec(model)
        at = utc_time(now) if now else _clock(redis).now()
        days = [dt.date.fromisoformat(day)] if day else days_to_look_at(use_case, spec, lake, at)
        loaded: dict[str, Baseline] = {}

        def load(version: str) -> Baseline:
            if version not in loaded:
                loaded[version] = load_baseline(
                    model, version, layout, use_case, tracking_uri=uri, declared_season=season_bound or ()
                )
            return loaded[version]

        found = [
            report for one in days for report in monitor_day(use_case, lake, layout, spec, one, now_utc=at, load=load)
        ]
        for report in found:
            _show(report)
            print(f"page: {_page(report, layout)}\n")
        if not found:
            print(f"{model}: no answers on {', '.join(map(str, days)) or 'any day that is due'}: nothing to look at")
    raise typer.Exit(ALARM if any(report.alarms for report in found) else 0)


@app.command()
def report(
    model: Model,
    day: Day = None,
    days: Annotated[int, typer.Option("--days", help="Without --day: the newest so many days before --now.")] = 7,
    now: Annotated[str | None, typer.Option("--now", help="The clock, UTC; else wall time.")] = None,
    state: State = None,
) -> None:
    """Show the kept reports, and draw their pages anew.

    Example: flightdeck monitor report late --day 2013-07-05
    """
    with told("monitor report"):
        from pipelines import stores
        from pipelines.monitoring.reports import reports_of

        layout = layout_of(state)
        last = dt.date.fromisoformat(day) if day else (utc_time(now) if now else _clock(None).now()).date()
        first = last if day else last - dt.timedelta(days=days)
        found = reports_of(stores.lake(layout), model, first, last)
        for item in found:
            _show(item)
            print(f"page: {_page(item, layout)}\n")
        if not found:
            raise ValueError(f"no report of {model} from {first} to {last}; run `flightdeck monitor run {model}`")


@app.command()
def quality(
    model: Model,
    first: Annotated[str, typer.Option("--from", help="First local day, e.g. 2013-07-01.")],
    last: Annotated[str, typer.Option("--to", help="Last local day.")],
    now: Annotated[str | None, typer.Option("--now", help="The clock, UTC; else wall time.")] = None,
    state: State = None,
) -> None:
    """Live quality of matured answers with 95 % intervals: all, by day, version, release and slice.

    Example: flightdeck monitor quality late --from 2013-07-01 --to 2013-07-07
    """
    with told("monitor quality"):
        from pipelines import stores
        from pipelines.data.labels import labelled
        from pipelines.monitoring.quality import live_quality
        from pipelines.use_case import load_use_case

        use_case, spec = load_use_case(), _spec(model)
        start, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last) + dt.timedelta(days=1)
        rows = labelled(
            use_case, stores.lake(layout_of(state)), spec, use_case.day_start_utc(start), use_case.day_start_utc(end),
            now_utc=utc_time(now) if now else _clock(None).now(),
        )  # fmt: skip
        table = [
            (
                item.by, item.value, f"{item.rows:,}", f"{item.waiting:,}", f"{item.lost:,}", _between(item.metric),
                _between(item.calibration), _between(item.error), item.problem,
            )
            for item in live_quality(rows, spec.task, slices=spec.slices)
        ]  # fmt: skip
        metric = "AUC" if spec.task.value == "classification" else "RMSE"
        show_table(
            ("by", "", "matured", "waiting", "lost", metric, "calibration", "label - score", "no figures"), table
        )


def _between(interval: Interval) -> str:
    if interval.value is None:
        return "-"
    bounds = "" if interval.low is None else f" ({interval.low:.3f} to {interval.high:.3f})"
    return f"{interval.value:.3f}{bounds}"


def _spec(model: str) -> ModelSpec:
    from flightdeck.contracts.model_spec import model_specs, specs_folder

    found = {item.name: item for item in model_specs(specs_folder())}.get(model)
    if found is None:
        raise ValueError(f"no spec of the model {model} in {specs_folder()}")
    return found


def _clock(address: str | None) -> Clock:
    from flightdeck.contracts.clock import WallClock

    if not address:
        return WallClock()
    import redis

    from pipelines.clock import read_clock

    with redis.Redis.from_url(address, socket_timeout=5) as streams:
        return read_clock(streams)


def _page(found: MonitorReport, layout: StateLayout) -> Path:
    from flightdeck.contracts.alarm import page_path
    from flightdeck.pages.monitor import monitor_page
    from flightdeck.pages.page import write_page

    return write_page(layout.reports / page_path(found.model, found.version, found.day), monitor_page(found))


def _show(found: MonitorReport) -> None:
    print(f"{found.model} v{found.version} on {found.day}: {found.status.value}, {found.rows:,} answers")
    rows = [
        (
            check.status.value,
            check.kind.value,
            check.subject,
            _number(check.value),
            _number(check.threshold),
            check.reason,
        )
        for check in found.checks
    ]
    show_table(("answer", "check", "of", "value", "limit", "in words"), rows)
    for alarm in found.alarms:
        what = f"{alarm.kind.value}" + (f" ({alarm.cause.value})" if alarm.cause else "")
        print(f"ALARM {what} of {alarm.subject} since {alarm.since}: {alarm.sentence}")
        print(f"  how sure: {alarm.how_sure}\n  what to do ({alarm.remedy.value}): {alarm.what_to_do}")
        if alarm.also:
            print(f"  with it: {'; '.join(alarm.also)}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
