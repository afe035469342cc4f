"""`flightdeck rollout lint`: whether a plan can happen and can decide in time, and what to write instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flightdeck.contracts.release import Release
    from flightdeck.contracts.rollout import ModelRollout
    from services.rollout_operator.forecast import Forecast, Traffic
    from services.rollout_operator.lint import Finding

RATE_PER_S = 100.0  # of the lab's users
Rate = Annotated[float, typer.Option("--rate", min=0.001, help="Requests per second of all users.")]


def lint(
    file: Annotated[Path, typer.Argument(help="A ModelRollout as YAML.", exists=True, dir_okay=False)],
    rate: Rate = RATE_PER_S,
    connections: Annotated[
        int | None, typer.Option("--connections", min=1, help="That users keep open; default: many.")
    ] = None,
    no_weighting_proxy: Annotated[
        bool, typer.Option("--no-weighting-proxy", help="Nothing draws requests by weight: shares come from replicas.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="All of it, for programs.")] = False,
) -> None:
    """Forecast a plan, and refuse one that cannot happen or cannot decide in time. Exit code 1 on errors.

    Forecast is for a candidate as good as the champion, and a champion with 0.1 % errors.

    Example: flightdeck rollout lint specs/late.rollout.yaml --rate 100
    """
    from flightdeck.contracts.rollout import InvalidRollout
    from services.rollout_operator.forecast import Traffic

    try:
        rollout = load(file)
    except (InvalidRollout, OSError) as error:
        print(f"flightdeck rollout: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    refused = show(rollout, Traffic(rate, connections, weighting_proxy=not no_weighting_proxy), as_json=as_json)
    raise typer.Exit(1 if refused else 0)


def show(rollout: ModelRollout, traffic: Traffic, *, as_json: bool) -> bool:
    """Print forecast, findings and, where it is refused, a plan that passes; returns whether it is refused."""
    from flightdeck.contracts.rollout import to_yaml
    from services.rollout_operator import lint as linter
    from services.rollout_operator.forecast import forecast

    found = linter.lint(rollout.spec, traffic)
    refused = any(it.level is linter.Level.ERROR for it in found)
    better = linter.propose(rollout.spec, traffic) if refused else None
    ahead = forecast(rollout.spec, traffic)
    if as_json:
        print(json.dumps(_plain(ahead, found, better.model_dump(mode="json", by_alias=True) if better else None)))
    else:
        _show(ahead, found, traffic)
        if better:
            print("\nThis passes (release left out):")
            text = to_yaml(rollout.model_copy(update={"spec": better}))
            print(_without_release(text))
    return refused


def refuse_powerless(rollout: ModelRollout, rate_per_s: float) -> None:
    """For `apply`: raise on a plan with errors at this traffic, behind a gateway that weighs.

    Raises:
        InvalidRollout: it has; the message says what and the way out.
    """
    from flightdeck.contracts.rollout import InvalidRollout
    from services.rollout_operator import lint as linter
    from services.rollout_operator.forecast import Traffic

    errors = [it for it in linter.lint(rollout.spec, Traffic(rate_per_s)) if it.level is linter.Level.ERROR]
    if errors:
        lines = "\n".join(f"  {_words(it)}" for it in errors)
        raise InvalidRollout(
            f"the plan is refused at {rate_per_s:g} requests per second (--rate tells another figure, --force applies "
            f"it as it is):\n{lines}"
        )


def load(file: Path) -> ModelRollout:
    """The file, with a release that stands in where it names none: a plan is judged without one.

    Raises:
        InvalidRollout, OSError: see contracts.rollout.load_rollout.
    """
    import yaml

    from flightdeck.contracts.rollout import load_rollout

    try:
        content = yaml.safe_load(file.read_text())
        named = isinstance(content, dict) and "release" in (content.get("spec") or {})
    except yaml.YAMLError:  # load_rollout finds the words
        named = True
    return load_rollout(file, release=None if named else stand_in())


def stand_in() -> Release:
    """A release that is none, for a plan that is judged without one."""
    from flightdeck.contracts.release import ModelRef, Release

    model = ModelRef(name="model", version="1", sha256="0" * 64)
    return Release.model_validate({"image": "code", "model": model, "featureService": "any"})


def _words(found: Finding) -> str:
    better = f"; better: {found.proposal}" if found.proposal else ""
    return f"{found.level} {found.path}: {found.sentence}{better}"


def _show(ahead: Forecast, found: list[Finding], traffic: Traffic) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "step", "share", "metric", "margin", "requests to pass", "9 of 10", "time", "still found in time", box=None
    )
    for it in ahead.steps:
        share = f"{it.share:.0%}" if it.share_low == it.share_high else f"{it.share_low:.0%} to {it.share_high:.0%}"
        whole = f"{_time(it.seconds)} ({_time(it.seconds_p90)})"
        table.add_row(
            it.step.words, share, "all", "", f"{it.in_time:.0%} before {_time(it.step.deadline_s)}", "", whole
        )
        for metric in it.metrics:
            pairs = (f"{metric.pairs:,.0f}", f"{metric.pairs_p90:,.0f}", _time(metric.seconds))
            table.add_row("", "", metric.metric, f"{metric.margin:g}", *pairs, metric.words)
    console = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 150)
    console.print(table)
    console.print(
        f"\nAt {traffic.rate_per_s:g} requests per second a candidate as good as the champion takes "
        f"{_time(ahead.seconds)}, and {ahead.in_time:.0%} of them pass every step before its deadline. "
        f"At most {ahead.false_abort:.0%} of good ones are aborted by a verdict."
    )
    for item in found:
        console.print(_words(item))
    if not found:
        console.print("nothing to find")


def _time(seconds: float) -> str:
    import math

    from flightdeck.contracts.rollout import duration_text

    return duration_text(max(1, round(seconds))) if math.isfinite(seconds) else "never"


def _plain(ahead: Forecast, found: list[Finding], better: object) -> dict[str, object]:
    import dataclasses
    import math

    def finite(value: object) -> object:
        return None if isinstance(value, float) and not math.isfinite(value) else value

    steps = [
        {
            **{
                key: finite(value)
                for key, value in it.__dict__.items()
                if key not in ("step", "metrics")
            },
            "step": it.step.words,
            "metrics": [{key: finite(value) for key, value in metric.__dict__.items()} for metric in it.metrics],
        }
        for it in ahead.steps
    ]  # fmt: skip
    return {
        "seconds": finite(ahead.seconds), "in_time": ahead.in_time, "false_abort": ahead.false_abort, "steps": steps,
        "findings": [dataclasses.asdict(it) for it in found], "proposal": better,
    }  # fmt: skip


def _without_release(text: str) -> str:
    import yaml

    content = yaml.safe_load(text)
    content["spec"].pop("release")
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
