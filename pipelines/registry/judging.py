"""Entry point: the gates over the candidate of one training run, wherever this process is."""

from __future__ import annotations

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.release import ModelRef
from pipelines import stores
from pipelines.features.export import ensure_export
from pipelines.gates.gate import GateReport, gate_candidate
from pipelines.registry import versions
from pipelines.registry.mlflow_adapter import RegistryRefused
from pipelines.training.candidate import Candidate, load_candidate


def judge(
    model: str, run_id: str, layout: StateLayout, tracking_uri: str
) -> tuple[Candidate, ModelRef | None, GateReport]:
    """The candidate of an MLflow run, the champion it was compared with, and the report; nothing is registered.

    Raises:
        RegistryUnavailable, RegistryRefused: MLflow does not answer, or the run is another model's.
        ExportError, LakeError: what the training read cannot be had again.
    """
    candidate = load_candidate(run_id, layout, tracking_uri)
    if candidate.spec.name != model:
        raise RegistryRefused(f"run {run_id} is a candidate of {candidate.spec.name}, not of {model}")
    if stores.scratch(layout):  # a pod begins with none; the rows are joined again from what training read
        ensure_export(stores.lake(layout), layout, candidate.facts.digests.table_versions)
    champion = versions.load_champion(model, tracking_uri=tracking_uri)
    if champion:
        versions.fetch(champion, layout, tracking_uri=tracking_uri)
    return candidate, champion, gate_candidate(candidate, champion)
