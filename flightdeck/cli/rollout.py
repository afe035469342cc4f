"""`flightdeck rollout`: say what is wanted, see what happens, and step in. The controller does the rest."""

from __future__ import annotations

import contextlib
import datetime as dt
import getpass
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flightdeck.cli import orders
from flightdeck.cli.lint import RATE_PER_S, Rate, lint, refuse_powerless
from flightdeck.cli.options import State, layout_of, show_table
from flightdeck.cli.orders import Note

if TYPE_CHECKING:
    from flightdeck.contracts.release import Release
    from flightdeck.lab.rollout.store import Store

app = typer.Typer(
    no_args_is_help=True,
    help="Take a new release to the users step by step: apply, follow, step in.\n\n"
    "Example: flightdeck rollout status late",
)

Name = Annotated[str, typer.Argument(help="Name of the rollout, as in its metadata.")]
Json = Annotated[bool, typer.Option("--json", help="All of it, for programs.")]
INTERRUPTED = 130
POLL_S = 0.5


@app.callback()
def _rollout() -> None:
    """Sub-commands below."""


app.command()(lint)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="A ModelRollout as YAML.", exists=True, dir_okay=False)],
    state: State = None,
    rate: Rate = RATE_PER_S,
    force: Annotated[bool, typer.Option("--force", help="Also a plan that `lint` refuses.")] = False,
) -> None:
    """Set the wanted state. A file without `spec.release` keeps the release that is wanted now.

    Exit code 1 when the file breaks the schema or `lint` refuses its plan; then nothing is changed.

    Example: flightdeck rollout apply specs/late.rollout.yaml
    """
    from flightdeck.contracts.rollout import load_rollout

    store = _store(state)
    with _told():
        rollout = load_rollout(file, release=_release_kept(store, file))
        if not force:
            refuse_powerless(rollout, rate)
        name, served = rollout.metadata.name, store.served()
        if served not in {None, name}:
            raise ValueError(f"{name}: the lab has one gateway, and the rollout {served} has it; nothing was changed")
        what = store.apply(rollout, who())
        print(f"rollout {name} {what}: {rollout.spec.release.short} [{rollout.spec.release.id}]")
        _next(store, name)


@app.command()
def release(
    name: Name,
    version: Annotated[str | None, typer.Option("--version", help="Registered model version; default: as now.")] = None,
    image: Annotated[str | None, typer.Option("--image", help="Code; default: as now.")] = None,
    state: State = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="MLflow server; else $MLFLOW_TRACKING_URI.")
    ] = None,
) -> None:
    """Ask for another release: a version that the gates promoted, or other code; plan and judge stay as they are.

    Exit code 1 when the version is not known or its verdict is not PROMOTE.

    Example: flightdeck rollout release late --version 2
    """
    store = _store(state)
    with _told():
        wanted = store.wanted(name)
        asked = wanted.spec.release
        if version is not None:
            from pipelines.registry.mlflow_adapter import RegistryRefused, RegistryUnavailable
            from pipelines.registry.versions import promoted_version

            try:
                model, feature_service = promoted_version(asked.model.name, version, tracking_uri=tracking_uri)
            except (RegistryRefused, RegistryUnavailable) as error:
                raise ValueError(str(error)) from error
            asked = asked.model_copy(update={"model": model, "feature_service": feature_service})
        if image is not None:
            asked = asked.model_copy(update={"image": image})
        what = store.apply(wanted.with_release(asked), who())
        print(f"rollout {name} {what}: {asked.short} [{asked.id}]")
        _next(store, name)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(help="Name of the rollout; default: all.")] = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Phase, weight, verdict, reason and evidence of one rollout, or a line for each.

    Example: flightdeck rollout status late
    """
    store = _store(state)
    with _told():
        names = [name] if name else store.names()
        if as_json:
            print(json.dumps([_plain(store, each) for each in names] if name is None else _plain(store, names[0])))
        elif not names:
            print(f"no rollout in {store.root}; set one with `flightdeck rollout apply FILE`")
        elif len(names) == 1:
            _show(store, names[0])
        else:
            _show_all(store, names)


@app.command()
def watch(name: Name, state: State = None) -> None:
    """Follow a rollout to its end. Exit code 0: the wanted release is champion, 1: aborted, 130: ctrl-C.

    Example: flightdeck rollout watch late
    """
    store = _store(state)
    try:
        with _told():
            raise typer.Exit(_watch(store, name))
    except KeyboardInterrupt:
        print("no longer watching; the rollout goes on", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


@app.command()
def history(name: Name, state: State = None, as_json: Json = False) -> None:
    """Everything that was decided, ordered and applied, oldest first.

    Example: flightdeck rollout history late
    """
    store = _store(state)
    with _told():
        rows = [
            (
                it.at_s,
                str(it.target) if it.source == it.target else f"{it.source or '-'} → {it.target}",
                it.reason,
                it.who,
            )
            for it in store.history(name)
        ]
        for it in store.applied(name):
            note = f", {it.note}" if it.note else ""
            rows.append((it.at_s, it.what, f"wanted: {it.release.short} [{it.release.id}]{note}", it.who))
        rows.sort(key=lambda row: row[0])
    if as_json:
        print(json.dumps([dict(zip(("at_s", "what", "reason", "who"), row, strict=True)) for row in rows]))
        return
    show_table(("when (UTC)", "what", "reason", "who"), [(_at(at_s), *rest) for at_s, *rest in rows])


@app.command()
def undo(
    name: Name,
    state: State = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Id of a release that was champion; default: the last other.")
    ] = None,
    note: Note = "",
) -> None:
    """Want the release before again. It goes through the plan like any candidate.

    While a rollout runs, that is the champion's, and the candidate is aborted; with --to another one it waits its turn.

    Example: flightdeck rollout undo late --note "passengers complain"
    """
    from flightdeck.lab.rollout.sentences import chosen_before

    store = _store(state)
    with _told():
        wanted, found = store.wanted(name), store.read_status(name)
        release = chosen_before(name, wanted.spec.release, found.releases if found else [], to)
        store.apply(wanted.with_release(release), who(), f"undo{f': {note}' if note else ''}")
        print(f"rollout {name} wants {release.short} [{release.id}] again, instead of {wanted.spec.release.short}")
        if found and found.state and found.state.refused and found.state.refused.id == release.id:
            print(f"it was sent home the last time; try it again with `flightdeck rollout retry {name}`")
        _next(store, name)


@app.command()
def report(
    name: Name,
    candidate: Annotated[
        str | None, typer.Option("--candidate", help="Id of a release; default: the newest rollout.")
    ] = None,
    state: State = None,
) -> None:
    """Write the evidence page of a rollout: every metric with its bounds at each look, and the history.

    Example: flightdeck rollout report late
    """
    from flightdeck.lab.rollout_report import NothingToShow, write_rollout_report

    with _told():
        try:
            print(write_rollout_report(layout_of(state), name, candidate=candidate))
        except NothingToShow as error:
            raise ValueError(str(error)) from error


@app.command()
def crd() -> None:
    """Print the CustomResourceDefinition that teaches a cluster what a ModelRollout is.

    Example: flightdeck rollout crd | kubectl apply --server-side -f -
    """
    from services.rollout_operator.crd import as_yaml

    sys.stdout.write(as_yaml())


def _store(state: Path | None) -> Store:
    from flightdeck.lab.rollout.store import Store

    return Store(layout_of(state).rollouts)


def who() -> str:
    """`user@host`, for the history."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Expected failures end the command with their words; exit code 1."""
    from flightdeck.contracts.rollout import InvalidRollout
    from flightdeck.lab.rollout.sentences import NoSuchRelease
    from flightdeck.lab.rollout.store import BrokenFile

    try:
        yield
    except (InvalidRollout, BrokenFile, NoSuchRelease, OSError, ValueError) as error:
        print(f"flightdeck rollout: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def _release_kept(store: Store, file: Path) -> Release | None:
    """The release that is wanted now, for a file that names none: Git does not own it."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
        if "release" not in content["spec"] and content["metadata"]["name"] in store.names():
            return store.wanted(content["metadata"]["name"]).spec.release
    except (yaml.YAMLError, KeyError, TypeError):  # the validation behind this finds the words
        pass
    return None


def _order(state: Path | None, name: str, kind: str, note: str) -> None:
    from services.rollout_operator.plan import Order, OrderKind

    store = _store(state)
    with _told():
        number = store.order(name, Order(OrderKind(kind), who(), note))
        print(f"order {number} for rollout {name}: {kind}")
        _next(store, name)


orders.add(app, "flightdeck rollout", Name, State, _order)


def _next(store: Store, name: str) -> None:
    """Who will act on it, or that nobody does."""
    from flightdeck.lab.rollout.sentences import START, is_stale

    if is_stale(store.read_status(name), time.time()):
        print(f"no controller is running; it waits for one: {START}")
    else:
        print(f"the controller acts within a second; follow it with `flightdeck rollout watch {name}`")


def _at(at_s: float) -> str:
    return dt.datetime.fromtimestamp(at_s, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _plain(store: Store, name: str) -> dict[str, object]:
    import msgspec

    from flightdeck.lab.rollout.sentences import is_stale
    from services.rollout_operator.plan import enc_hook

    found = store.read_status(name)
    shown: dict[str, object] = msgspec.to_builtins(found, enc_hook=enc_hook) if found else {"name": name, "state": None}
    wanted = store.wanted(name).spec.release
    return {**shown, "wanted": wanted.model_dump(by_alias=True), "controller_running": not is_stale(found, time.time())}


def _show(store: Store, name: str) -> None:
    from flightdeck.lab.rollout.sentences import absence, judgement_of, lines

    found, wanted, now_s = store.read_status(name), store.wanted(name).spec.release, time.time()
    rows = lines(found, wanted, now_s) if found else [("wanted", f"{wanted.short} [{wanted.id}]")]
    if missing := absence(found, now_s):
        rows.append(("note", missing))
    waiting = store.orders_after(name, found.orders_done if found else 0)
    rows += [("order", f"{number}, {order.words}: not yet obeyed") for number, order in waiting]
    show_table((name, ""), rows)
    judged = judgement_of(found) if found else None
    if judged and judged.metrics:
        print()
        show_table(("verdict", "evidence"), [(str(it.verdict), it.sentence) for it in judged.metrics])


def _show_all(store: Store, names: list[str]) -> None:
    from flightdeck.lab.rollout.sentences import is_stale, spec_in_force, where

    rows = []
    for name in names:
        found, now_s = store.read_status(name), time.time()
        if found is None or found.state is None:
            rows.append((name, "not begun", "-", "-", "-", "-", "no controller"))
            continue
        it = found.state
        champion, candidate = it.champion.id if it.champion else "-", it.candidate.id if it.candidate else "-"
        verdict = str(found.judgement.verdict) if found.judgement and it.step is not None else "-"
        missing = "no controller" if is_stale(found, now_s) else ""
        phase = where(spec_in_force(found), it)
        rows.append((name, phase, f"{found.weight} %", champion, candidate, verdict, missing))
    show_table(("rollout", "phase", "weight", "champion", "candidate", "verdict", ""), rows)


def _watch(store: Store, name: str) -> int:
    from flightdeck.lab.rollout.sentences import absence, ended, short, spec_in_force
    from services.rollout_operator.plan import Phase

    said, seen, warned = "", {it.serial for it in store.history(name)}, False
    while True:
        now_s, found = time.time(), store.read_status(name)
        for entry in store.history(name):
            if entry.serial not in seen:
                seen.add(entry.serial)
                print(f"{_at(entry.at_s)[11:]}  {entry.target}: {entry.reason} ({entry.who})", flush=True)
        if found and (line := short(found, spec_in_force(found))) != said:
            said = line
            print(f"{_at(now_s)[11:]}  {line}", flush=True)
        missing = absence(found, now_s)
        if missing and not warned:
            print(f"{_at(now_s)[11:]}  {missing}", file=sys.stderr, flush=True)
        warned = bool(missing)
        waiting = bool(store.orders_after(name, found.orders_done if found else 0))
        end = ended(found, store.wanted(name).spec.release, orders_wait=waiting)
        if end is not None:
            return 0 if end is Phase.DONE else 1
        time.sleep(POLL_S)
