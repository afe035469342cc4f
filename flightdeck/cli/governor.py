"""`flightdeck governor`: what asks for a training, what was decided and why; ask, freeze, resolve."""

from __future__ import annotations

import contextlib
import datetime as dt
import heapq
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flightdeck.cli.models import Tracking
from flightdeck.cli.options import State, layout_of, plain_console, show_table
from flightdeck.cli.rollout import who

if TYPE_CHECKING:
    from flightdeck.contracts.model_spec import ModelSpec
    from flightdeck.contracts.retrain import Decision, Entry, Received
    from pipelines.governor.journal import Journal
    from pipelines.governor.state import State as Known

app = typer.Typer(
    no_args_is_help=True,
    help="The retrain governor: one decision per model, whatever asks for a training.\n\n"
    "Example: flightdeck governor status && flightdeck governor why late && flightdeck governor freeze --all",
)

Name = Annotated[str, typer.Argument(help="Model name.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the history.")]
By = Annotated[str | None, typer.Option("--by", help="Who; else user@host.")]
Redis = Annotated[
    str | None,
    typer.Option("--redis", envvar="FLIGHTDECK_STREAMS_REDIS", help="Streams Redis with the clock; none is wall time."),
]
Whole = Annotated[bool, typer.Option("--all", help="Every model.")]
MaybeName = Annotated[str | None, typer.Argument(help="Model name.")]


@app.command()
def status(model: MaybeName = None, state: State = None, redis: Redis = None) -> None:
    """One screen per model: what asks, what it waits for, incidents, freezes, trainings.

    Example: flightdeck governor status late
    """
    with _told("status"):
        journal, now = _journal(state), _now(redis)
        specs = _specs()
        names = sorted({*specs, *journal.models()})
        for name in [_known(model, names)] if model else names:
            spec = specs.get(name)
            _show(_screen(name, spec, journal.state(name), journal.waiting(name), now))


@app.command()
def why(
    model: Name,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Newest so many.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Each decision with all its figures, a JSON line each.")] = False,
    state: State = None,
) -> None:
    """The decisions about a model, oldest first, with reasons and figures. Example: flightdeck governor why late"""
    with _told("why"):
        from flightdeck.contracts.retrain import EVERY_MODEL

        journal = _journal(state)
        histories = (journal.history(name, limit=limit) for name in {model, EVERY_MODEL})
        found = list(heapq.merge(*histories, key=lambda entry: entry.at))  # each in its own order, set the clock or not
        if json:
            for entry in found:
                print(entry.model_dump_json(exclude={"decision": {"claims"}}))
        elif not found:
            print(f"no decision about {model} yet; models: {', '.join(journal.models()) or 'none'}")
        else:
            show_table(("model", "no.", "clock", "decision", "by", "why"), [_row(entry) for entry in found[-limit:]])


@app.command()
def request(model: Name, reason: Reason, by: By = None, state: State = None, redis: Redis = None) -> None:
    """Ask for a training by hand: without pre-test, cool-down and budget, yet not past a freeze or an incident.

    Example: flightdeck governor request late --reason "new schedule from Monday"
    """
    with _told("request"):
        from pipelines.governor import governor

        _known(model, sorted(_specs()))
        governor.request(_journal(state), model, by or who(), _words(reason), _now(redis))
        print(f"{model}: asked; the governor decides at its next look: flightdeck governor status {model}")


@app.command()
def freeze(  # noqa: PLR0917  Typer reads the signature
    reason: Reason, model: MaybeName = None, every: Whole = False, by: By = None, state: State = None,
    redis: Redis = None,
) -> None:  # fmt: skip
    """No training begins until `unfreeze`; requests stay. Example: flightdeck governor freeze --all --reason audit"""
    with _told("freeze"):
        from pipelines.governor import governor

        name = _one_or_all(model, every)
        governor.freeze(_journal(state), name, by or who(), _words(reason), _now(redis))
        print(f"frozen: {'every model' if every else name}")


@app.command()
def unfreeze(  # noqa: PLR0917  Typer reads the signature
    reason: Reason, model: MaybeName = None, every: Whole = False, by: By = None, state: State = None,
    redis: Redis = None,
) -> None:  # fmt: skip
    """Trainings may begin again. Example: flightdeck governor unfreeze --all --reason done"""
    with _told("unfreeze"):
        from pipelines.governor import governor

        name = _one_or_all(model, every)
        governor.unfreeze(_journal(state), name, by or who(), _words(reason), _now(redis))
        print(f"not frozen any more: {'every model' if every else name}")


@app.command()
def resolve(model: Name, reason: Reason, by: By = None, state: State = None, redis: Redis = None) -> None:
    """End the open incidents of a model by hand; a later clean check does it by itself.

    Example: flightdeck governor resolve late --reason "the unit was mended at the source"
    """
    with _told("resolve"):
        from pipelines.governor import governor

        for entry in governor.resolve(_journal(state), model, by or who(), _words(reason), _now(redis)):
            print(entry.decision.reason)


@app.command()
def pretest(model: Name, state: State = None, tracking_uri: Tracking = None, redis: Redis = None) -> None:
    """Would training on recent data beat the champion? Nothing is decided, nothing kept.

    Exit code: 0 would win, 1 would not, 4 cannot tell. Example: flightdeck governor pretest late
    """
    from flightdeck.cli.models import told
    from flightdeck.contracts.retrain import Answer

    with told("governor pretest"):
        from pipelines.governor.pretest import pretest as ask
        from pipelines.registry.mlflow_adapter import tracking_uri_or_env

        spec = _specs()[_known(model, sorted(_specs()))]
        found = ask(spec, layout_of(state), _now(redis), tracking_uri=tracking_uri_or_env(tracking_uri))
        print(f"{found.answer.value}: {found.reason} ({found.seconds:.1f} s)")
    raise typer.Exit({Answer.WOULD_WIN: 0, Answer.WOULD_NOT: 1, Answer.CANNOT_TELL: 4}[found.answer])


def _screen(
    name: str, spec: ModelSpec | None, known: Known, waiting: Sequence[Received], now: dt.datetime
) -> list[tuple[str, str]]:
    from flightdeck.contracts.retrain import CLEARED_BY, Outcome, Request
    from pipelines.governor.decide import decide, moment, spent

    policy = spec.retrain if spec else None
    asks = Request(model=name, triggers=tuple(waiting)).words if waiting else "nothing"
    decision = decide(known, waiting, policy, now)
    rows = [
        ("model", name),
        ("clock", moment(now)),
        ("policy", _policy(spec)),
        ("asks", asks),
        ("next", _next(decision)),
    ]
    for incident in known.incidents:
        later = sum(item.trigger.kind is incident.kind for item in waiting)
        ends = CLEARED_BY[incident.kind].value
        more = f"; seen {later:,} times since" if later else ""
        rows.append((
            f"incident {incident.number}",
            f"{incident.kind.value} since {moment(incident.opened_at)}{more}; ends with {ends} or `resolve`: "
                f"{incident.reason}",
        ))  # fmt: skip
    rows += [("frozen", f"{item.model} by {item.by} at {moment(item.at)}: {item.reason}") for item in known.freezes]
    recent = len(spent(known.starts, now))
    budget = f"{recent} of {policy.budget_per_day}" if policy else f"{recent}"
    words = f"{len(known.starts):,} in all, {budget} within 24 h"
    if known.starts:
        last = known.starts[-1]
        words += f"; the last, {name}-{last.number}, began at {moment(last.at)}, {_ended(last.ended)}"
    rows.append(("trainings", words))
    if known.last:
        rows.append(
            ("last", f"{moment(known.last.at)} {known.last.decision.outcome.value}: {known.last.decision.reason}")
        )
    if decision.outcome is Outcome.IDLE and not known.last:
        rows.append(("last", "no decision yet"))
    return rows


def _policy(spec: ModelSpec | None) -> str:
    if spec is None:
        return "none: no spec of this name"
    if spec.retrain is None:
        return "none in its spec: by hand only"
    from pipelines.governor.decide import length

    plan = spec.retrain
    triggers = ", ".join(
        f"{kind.value} {'at once' if how == 'train' else 'after pre-test'}" for kind, how in plan.triggers.items()
    )
    every = f"; every {length(plan.every)}" if plan.every else ""
    return f"{triggers}{every}; cool-down {length(plan.cool_down)}; {plan.budget_per_day} per 24 h"


def _next(decision: Decision) -> str:
    """What the journal lets expect; a rollout under way shows at the governor's own look only."""
    cause = f" ({decision.cause.value})" if decision.cause else ""
    return f"{decision.outcome.value}{cause}: {decision.reason}"


def _ended(outcome: object) -> str:
    return f"{outcome}" if outcome else "under way"


def _row(entry: Entry) -> tuple[str, ...]:
    decision = entry.decision
    what = decision.outcome.value + (f" ({decision.cause.value})" if decision.cause else "")
    at = f"{entry.at.astimezone(dt.UTC):%Y-%m-%d %H:%MZ}"
    return entry.model, str(entry.number), at, what, entry.by, decision.reason


def _show(rows: Sequence[tuple[str, str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    console = plain_console()
    console.print(table)
    console.print()


def _journal(state: Path | None) -> Journal:
    from pipelines.governor.journal import Journal, journal_url

    return Journal(journal_url(layout_of(state)))


def _now(redis_url: str | None) -> dt.datetime:
    """The one clock.

    Raises:
        ConnectionError: the server that holds it does not answer.
    """
    from flightdeck.contracts.clock import WallClock
    from pipelines.clock import read_clock

    if not redis_url:
        return WallClock().now()
    from redis import Redis as Client
    from redis import RedisError

    try:
        with Client.from_url(redis_url, socket_timeout=10) as client:
            return read_clock(client).now()
    except RedisError as error:
        raise ConnectionError(f"the clock's server does not answer: {error}") from error


def _specs() -> dict[str, ModelSpec]:
    from flightdeck.contracts.model_spec import model_specs, specs_folder

    return {spec.name: spec for spec in model_specs(specs_folder())}


def _known(model: str, names: Sequence[str]) -> str:
    if model not in names:
        raise ValueError(f"no model {model!r}; there are: {', '.join(names) or 'none'}")
    return model


def _one_or_all(model: str | None, every: bool) -> str:
    from flightdeck.contracts.retrain import EVERY_MODEL

    if (model is None) != every:
        raise ValueError("name one model, or give --all")
    return _known(model, sorted(_specs())) if model else EVERY_MODEL


def _words(reason: str) -> str:
    if not reason.strip():
        raise ValueError("--reason must say why")
    return reason.strip()


@contextlib.contextmanager
def _told(command: str) -> Iterator[None]:
    """Expected failures end the command with their words; exit code 5, as of `models`."""
    try:
        yield
    except (ValueError, OSError) as error:
        print(f"flightdeck governor {command}: {error}", file=sys.stderr)
        raise typer.Exit(5) from error
