"""`flightdeck ci models`: would the models of this code and these specs be let in?"""

from __future__ import annotations

from typing import Annotated

import typer

from flightdeck.cli.options import layout_of, utc_time
from flightdeck.delivery.outcome import Outcome


def models(
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Only this one; may be repeated. Default: every spec.")
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until", help="Time of the training, UTC, where no champion says it; else specs/first_run.yaml."
        ),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=0, help="Search trials; the pipeline makes the spec's.")] = 0,
    behaviour: Annotated[bool, typer.Option("--behaviour/--no-behaviour", help="Run tests/behaviour as well.")] = True,
) -> None:
    """Train each spec without search, judge it by all gates and behaviour tests, compare it with what serves.

    Example: flightdeck ci models --model late
    """
    from flightdeck.cli.ci import finish

    state = layout_of(None).root

    def judge() -> Outcome:
        from flightdeck.cluster.up import first_run
        from flightdeck.delivery import behaviour as tests
        from flightdeck.delivery import model_gate
        from flightdeck.delivery import models as gate
        from flightdeck.delivery.specs import shipped

        specs, broken = shipped()
        if broken:
            return Outcome(gate=model_gate.GATE, findings=broken)
        chosen = [it for it in specs if not model or it.name in model]
        if absent := set(model or ()) - {it.name for it in chosen}:
            raise typer.BadParameter(
                f"no spec of {', '.join(sorted(absent))}; there are {', '.join(it.name for it in specs)}"
            )
        parts = [
            gate.check(
                chosen, state, until_utc=utc_time(until) if until else first_run().until, trials=trials,
                tell=lambda step: print(f"... {step}", flush=True),
            )
        ]  # fmt: skip
        if behaviour:
            print("... behaviour tests", flush=True)
            parts.append(tests.check())
        else:
            parts.append(Outcome(gate=model_gate.GATE, not_run=("behaviour tests: left out by --no-behaviour",)))
        return gate.together(parts)

    finish(judge)
