"""Dagster's code location: `dagster dev -m pipelines.orchestration.definitions`, or behind gRPC in the cluster."""

import warnings

import dagster as dg

from flightdeck.contracts.model_spec import model_specs, specs_folder
from pipelines.orchestration import jobs
from pipelines.orchestration.data_assets import data_assets
from pipelines.orchestration.model_assets import model_assets
from pipelines.use_case import load_use_case


def build() -> dg.Definitions:
    """Everything, for the use case and the specs that the environment names."""
    use_case, specs = load_use_case(), model_specs(specs_folder())
    data = jobs.data_jobs(use_case)
    daily, predictions = data[0], data[2]
    models = [(spec, *jobs.model_jobs(spec)) for spec in specs]
    trains = [train for _, train, _ in models]
    return dg.Definitions(
        assets=[*data_assets(use_case), *(asset for spec in specs for asset in model_assets(spec))],
        jobs=[*data, *trains, *(gate for _, _, gate in models)],
        schedules=jobs.schedules(daily, predictions),
        sensors=[
            jobs.gate_follows({train.name: gate for _, train, gate in models}, trains),
            jobs.next_day_sensor(use_case, daily),
            jobs.new_month_sensor(use_case, [(spec, train) for spec, train, _ in models]),
        ],
        # One process per run: a process per step would import everything again, some seconds each on a small machine.
        executor=dg.in_process_executor,
    )


with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Parameter `backfill_policy`")  # beta: said once per asset in every pod
    defs = build()
