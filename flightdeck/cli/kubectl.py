"""`kubectl flightdeck`: look at a ModelRollout of a cluster, and step in. A plugin by its name on the PATH.

It reads the object's status and writes an annotation, with kubectl and its context: no operator is asked.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flightdeck.cli import orders
from flightdeck.cli.options import show_table

if TYPE_CHECKING:
    from flightdeck.cluster.commands import Kubectl
    from services.rollout_operator.remembered import Status

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Rollouts of the cluster: look at them, ask for releases, and step in.\n\n"
    "Example: kubectl flightdeck status late",
)
Name = Annotated[str, typer.Argument(help="Name of the ModelRollout.")]
Context = Annotated[str | None, typer.Option("--context", help="kubectl context; else the current one.")]
KIND = "modelrollouts.flightdeck.dev"


@app.command()
def status(
    name: Name,
    context: Context = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the evidence page with plots to this file instead.")
    ] = None,
) -> None:
    """Phase, weight, verdict, reason, and one sentence per metric; or a page with the evidence at each look.

    Example: kubectl flightdeck status late --html late.html
    """
    if html is not None:
        from flightdeck.cluster import rollout_page

        with _told():
            kubectl = _kubectl(context)
            rollout_page.save(kubectl, _read(kubectl, name), html)
        return
    from flightdeck.contracts.release import Release
    from flightdeck.lab.rollout.sentences import judgement_of, lines

    with _told():
        rollout = _read(_kubectl(context), name)
        found = _remembered(name, rollout)
        wanted = rollout["spec"].get("release")
        if found is None:
            show_table((name, ""), [("phase", "none yet: no operator has looked at it, or nothing was released")])
        else:
            rows = lines(found, Release.model_validate(wanted) if wanted else None, time.time())
            rows += [(it["type"], f"{it['status']}: {it['message']}") for it in _bad(rollout)]
            if waiting := _annotation(rollout):
                rows.append(("order", f"{waiting}: not yet obeyed"))
            show_table((name, ""), [(label, _ours(words)) for label, words in rows])
            if (judged := judgement_of(found)) and judged.metrics:
                print()
                show_table(("verdict", "evidence"), [(str(it.verdict), it.sentence) for it in judged.metrics])


@app.command()
def watch(
    name: Name,
    context: Context = None,
    timeout: Annotated[
        str | None, typer.Option("--timeout", help="At most so long, such as 90s, 10m or 1h; default: until it ends.")
    ] = None,
) -> None:
    """Follow a rollout to its end, one line per change.

    Exit code 0: the wanted release is champion, 1: aborted or refused, 124: neither within --timeout, 130: ctrl-C.

    Example: kubectl flightdeck watch late --timeout 30m
    """
    from flightdeck.cli import kubectl_watch
    from flightdeck.contracts.rollout import duration_s

    def warn(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    try:
        with _told():
            limit_s, kubectl = duration_s(timeout) if timeout else None, _kubectl(context)
            _read(kubectl, name)  # of no such name, or without a cluster, at once
            code = kubectl_watch.follow(
                lambda: _read(kubectl, name), lambda words: print(_ours(words), flush=True), warn, limit_s
            )
            raise typer.Exit(code)
    except KeyboardInterrupt:
        warn("no longer watching; the rollout goes on")
        raise typer.Exit(130) from None


@app.command()
def lint(
    name: Annotated[str | None, typer.Argument(help="Name of the ModelRollout; with --file only for its rate.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A ModelRollout as YAML, not yet applied.", dir_okay=False)
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, help="Requests per second; default: as the operator measured.")
    ] = None,
    context: Context = None,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, for programs.")] = False,
) -> None:
    """Forecast a plan with the replicas and the request rate that the cluster has. Exit code 1 on errors.

    Example: kubectl flightdeck lint late
    """
    from flightdeck.cli.kubectl_lint import what_runs
    from flightdeck.cli.lint import show
    from services.rollout_operator.forecast import Traffic

    with _told():
        if name is None and file is None:
            raise ValueError("name a ModelRollout of the cluster, or a file with -f")
        rollout, per_s, told = what_runs(lambda it: _find(context, it), name, file, rate)
        if not as_json:
            print(told)
        refused = show(rollout, Traffic(per_s), as_json=as_json)
    raise typer.Exit(1 if refused else 0)


@app.command()
def history(name: Name, context: Context = None) -> None:
    """The newest decisions, oldest first.

    Example: kubectl flightdeck history late
    """
    with _told():
        entries = _read(_kubectl(context), name).get("status", {}).get("history", [])
    rows = [
        (it["at"], it["target"] if it.get("source") == it["target"] else f"{it.get('source', '-')} → {it['target']}",
         it["reason"], it["who"])
        for it in entries
    ]  # fmt: skip
    show_table(("when (UTC)", "what", "reason", "who"), rows)


@app.command()
def stop(
    reason: Annotated[str, typer.Argument(help="Why; kept in the history of each rollout.")],
    context: Context = None,
) -> None:
    """Emergency: abort every running rollout of the cluster, and let none begin until `go-on`.

    Example: kubectl flightdeck stop "the weather feed delivers nonsense"
    """
    from flightdeck.cli import kubectl_stop
    from flightdeck.cli.rollout import who

    with _told():
        print(kubectl_stop.stop(_kubectl(context), who(), reason))


@app.command(name="go-on")
def go_on(context: Context = None) -> None:
    """Lift the stop: releases that wait begin, those that were aborted by it anew.

    Example: kubectl flightdeck go-on
    """
    from flightdeck.cli import kubectl_stop

    with _told():
        print(kubectl_stop.go_on(_kubectl(context)))


@app.command()
def undo(
    name: Name,
    context: Context = None,
    to: Annotated[
        str | None, typer.Option("--to", help="Id of a release that was champion; default: the last other.")
    ] = None,
) -> None:
    """Want the release before again. It goes through the plan like any candidate.

    Example: kubectl flightdeck undo late
    """
    from flightdeck.cluster.champion import want
    from flightdeck.contracts.release import Release
    from flightdeck.lab.rollout.sentences import chosen_before

    with _told():
        kubectl = _kubectl(context)
        rollout = _read(kubectl, name)
        found, body = _remembered(name, rollout), rollout["spec"].get("release")
        if body is None:
            raise ValueError(f"{name}: nothing was released yet")
        release = chosen_before(name, Release.model_validate(body), found.releases if found else [], to)
        want(kubectl, rollout, release)
        print(f"rollout {name} wants {release.short} [{release.id}] again")


@app.command()
def release(
    name: Name,
    version: Annotated[
        int | None, typer.Option("--version", help="Registered model version; default: the newest that may serve.")
    ] = None,
    image: Annotated[
        str | None, typer.Option("--image", help="Code, by digest; default: what Git's PodTemplate names.")
    ] = None,
    break_glass: Annotated[
        str | None, typer.Option("--break-glass", help="Why --version must go without the gate's approval.")
    ] = None,
    context: Context = None,
) -> None:
    """Ask for another release: a version that the gates promoted, other code, or both.

    A version without the gate's approval only with --break-glass: it becomes a warning and stays in the history.

    Example: kubectl flightdeck release late --version 2
    """
    from flightdeck.cli.rollout import who
    from flightdeck.cluster import champion
    from flightdeck.cluster.forward import forward
    from flightdeck.cluster.names import PLATFORM, SERVING
    from services.rollout_operator.kube import gatekeeper
    from services.rollout_operator.workloads import code_image

    with _told():
        if break_glass is not None and (version is None or not break_glass.strip()):
            raise ValueError("--break-glass needs a reason, and --version to say for which version it is")
        kubectl = _kubectl(context)
        rollout = _read(kubectl, name)
        with forward(kubectl, PLATFORM, "mlflow", 5000) as tracking:
            found = champion.versions(tracking, name)
        if version is not None and not (found := [it for it in found if it.number == version]):
            raise ValueError(f"{name}: MLflow knows no version {version}")
        code = image or code_image(kubectl.get("podtemplate", champion.TEMPLATE, "-n", SERVING))
        if break_glass is None or version is None:
            asked = champion.release_of(name, champion.may_serve(found), code)
            remembered = _remembered(name, rollout)
            champion.refuse_unapproved(kubectl, asked, remembered.releases if remembered else ())
            champion.want(kubectl, rollout, asked)
        else:
            asked = champion.release_of(name, champion.placeable(found, name, version), code)
            champion.want(kubectl, rollout, asked, {gatekeeper.ANNOTATION: gatekeeper.text(who(), break_glass.strip())})
        print(f"rollout {name} wants {asked.short} [{asked.id}]; follow it with `kubectl flightdeck status {name}`")


def _order(context: str | None, name: str, kind: str, note: str) -> None:
    from flightdeck.cli.rollout import who
    from flightdeck.cluster.names import SERVING
    from services.rollout_operator.kube.orders import ANNOTATION, text
    from services.rollout_operator.state import Order, OrderKind

    with _told():
        kubectl = _kubectl(context)
        if waiting := _annotation(_read(kubectl, name)):
            raise ValueError(f"{name}: another order waits to be obeyed: {waiting}; does the operator run?")
        order = text(Order(OrderKind(kind), who(), note))
        kubectl("annotate", KIND, name, "-n", SERVING, f"{ANNOTATION}={order}")
        print(f"order for rollout {name}: {kind}; the operator obeys within a second or two")


orders.add(app, "kubectl flightdeck", Name, Context, _order)


def _kubectl(context: str | None) -> Kubectl:
    from flightdeck.cluster.commands import Kubectl, current_context

    chosen = context or current_context()
    if not chosen:
        raise ValueError("no kubectl context; name one with --context")
    return Kubectl(chosen)


def _find(context: str | None, name: str) -> dict[str, Any] | None:
    from flightdeck.cluster.names import SERVING

    return _kubectl(context).find(KIND, name, SERVING)


def _read(kubectl: Kubectl, name: str) -> dict[str, Any]:
    from flightdeck.cluster.names import SERVING

    found = kubectl.find(KIND, name, SERVING)
    if found is None:
        there = ", ".join(it["metadata"]["name"] for it in kubectl.get(KIND, "-n", SERVING)["items"]) or "none"
        raise ValueError(f"no ModelRollout {name} in {SERVING}; there are: {there}")
    return found


def _remembered(name: str, rollout: dict[str, Any]) -> Status | None:
    from services.rollout_operator.kube.status import remembered

    return remembered(name, rollout.get("status", {}), time.time())


def _annotation(rollout: dict[str, Any]) -> str:
    from services.rollout_operator.kube.orders import text_of

    return text_of(rollout)


def _bad(rollout: dict[str, Any]) -> list[dict[str, Any]]:
    """Conditions that a person has to do something about."""
    said = rollout.get("status", {}).get("conditions", [])
    return [it for it in said if (it["type"], it["status"]) in {("PlanAccepted", "False"), ("Stopped", "True")}]


def _ours(words: str) -> str:
    """The lab's sentences name the lab's command."""
    return words.replace("flightdeck rollout", "kubectl flightdeck")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Expected failures end the command with their words; exit code 1."""
    from flightdeck.cluster.champion import NoChampion
    from flightdeck.cluster.commands import CommandFailed
    from flightdeck.lab.rollout.sentences import NoSuchRelease

    try:
        yield
    except ModuleNotFoundError as error:
        print(f"kubectl flightdeck: this needs the package {error.name}; `make setup` installs it", file=sys.stderr)
        raise typer.Exit(1) from error
    except (CommandFailed, NoChampion, NoSuchRelease, OSError, ValueError, json.JSONDecodeError) as error:
        print(f"kubectl flightdeck: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def main() -> None:
    """The plugin."""
    app(prog_name="kubectl flightdeck")


if __name__ == "__main__":
    main()
