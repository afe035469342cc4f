"""`flightdeck train`: a candidate of a model spec, trained as if the day were `--until`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flightdeck.cli.models import Tracking, told
from flightdeck.cli.options import State, layout_of, utc_time

app = typer.Typer(add_completion=False)


@app.command(
    help="Train a candidate of SPEC on what the lake knew at --until, export it as ONNX and log it to MLflow.\n\n"
    "Example: flightdeck train specs/late.yaml --until 2013-07-01 --tracking-uri http://127.0.0.1:5000"
)
def train(  # noqa: PLR0917  Typer reads the signature
    spec: Annotated[Path, typer.Argument(help="Model spec, YAML.")],
    until: Annotated[str, typer.Option("--until", help="Time of the training, UTC; nothing known later is used.")],
    trials: Annotated[
        int | None, typer.Option("--trials", help="Search trials; else the spec's. 0 takes the spec's own parameters.")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="A word for the run's name.")] = "",
    state: State = None,
    tracking_uri: Tracking = None,
) -> None:
    """Train one candidate and say what to do next."""
    with told("train"):
        from flightdeck.contracts.model_spec import load_model_spec
        from pipelines import stores
        from pipelines.features.export import ensure_export
        from pipelines.registry.mlflow_adapter import tracking_uri_or_env
        from pipelines.training.train import train_candidate

        layout = layout_of(state)
        if stores.scratch(layout):  # a pod begins with none
            print(f"feature export {ensure_export(stores.lake(layout), layout).id}", flush=True)
        candidate = train_candidate(
            load_model_spec(spec),
            layout,
            until_utc=utc_time(until),
            tracking_uri=tracking_uri_or_env(tracking_uri),
            trials=trials,
            note=note,
            progress=lambda step: print(f"... {step}", flush=True),
        )
        facts = candidate.facts
        print(f"{facts.model}: run {candidate.run_id}, artefact {candidate.sha256}")
        print(f"trained on {facts.train_rows:,} rows to {facts.train_until:%Y-%m-%d}, held out {facts.holdout_rows:,}")
        print(", ".join(f"{name} {value:.4f}" for name, value in facts.metrics.items()))
        print(f"next: flightdeck gate {facts.model} {candidate.run_id}")
