"""Entry point: judge a candidate, write its card and its page, tell MLflow."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy.typing as npt

from flightdeck.contracts.artefact import as_json
from flightdeck.contracts.card import GateResult, Interval, ModelCard
from flightdeck.contracts.decision import Verdict
from flightdeck.contracts.model_spec import ModelSpec
from flightdeck.contracts.release import ModelRef
from pipelines.gates.decisions import judge, run_gates, slice_table
from pipelines.gates.evidence import Evidence
from pipelines.gates.measure import Join, Truncate, gather, store_join, store_truncation
from pipelines.gates.metrics import (
    Floats,
    NotComputable,
    calibration_of,
    day_numbers,
    interval,
    measure_of,
    point,
    resample,
)
from pipelines.registry.card_page import page
from pipelines.registry.mlflow_adapter import MlflowRegistry
from pipelines.training.build import metric_name
from pipelines.training.candidate import Candidate
from pipelines.training.plots import candidate_pictures

UNREGISTERED = "unregistered"
GATES_FILE, PAGE_FILE = "gates.json", "card.html"
REASON_CHARACTERS = 4900  # MLflow keeps 5000 in a tag


@dataclasses.dataclass(frozen=True)
class GateReport:
    """The verdict on a candidate, each gate's answer, the (unsigned) card and the page a person reads."""

    verdict: Verdict
    reason: str
    results: list[GateResult]
    card: ModelCard
    page: Path
    pictures: dict[str, bytes]


def gate_candidate(
    candidate: Candidate,
    champion: ModelRef | None,
    *,
    join: Join = store_join,
    truncate: Truncate = store_truncation,
    log: bool = True,
) -> GateReport:
    """Judge a candidate against the champion (None: the very first model, the stated baseline decides).

    Writes `card.html` and `gates.json` beside the candidate and, with `log`, verdict and reason as tags of its run.

    Raises:
        ArtefactError: the candidate's own artefact is absent or altered.
        RegistryUnavailable: MLflow does not answer (with `log`); nothing was decided.
    """
    registry = MlflowRegistry(candidate.tracking_uri) if log else None
    evidence = gather(candidate, champion, join, truncate)
    results = run_gates(evidence)
    decision = judge(results)
    card = card_of(candidate, evidence, results, decision.verdict, decision.reason)
    pictures = candidate_pictures(candidate, evidence.scored.champion)
    folder = candidate.layout.candidates / candidate.run_id
    folder.mkdir(parents=True, exist_ok=True)
    report = GateReport(decision.verdict, decision.reason, results, card, folder / PAGE_FILE, pictures)
    report.page.write_text(page(card, pictures, candidate.spec))
    if registry:
        tell(registry, candidate.run_id, report)
    return report


def tell(registry: MlflowRegistry, run_id: str, report: GateReport) -> None:
    """Verdict, reason, gates and page into the MLflow run."""
    registry.log(
        run_id,
        tags={"flightdeck.verdict": report.verdict.value, "flightdeck.reason": report.reason[:REASON_CHARACTERS]},
        metrics={f"gate.{item.gate}": item.measured for item in report.results if item.measured is not None},
    )
    with tempfile.TemporaryDirectory() as draft:
        (Path(draft) / PAGE_FILE).write_text(report.page.read_text())
        (Path(draft) / GATES_FILE).write_text(as_json([item.model_dump(mode="json") for item in report.results]))
        registry.upload(run_id, Path(draft))


def intervals(spec: ModelSpec, label: Floats, score: Floats, day: npt.NDArray[Any]) -> dict[str, Interval]:
    """Metric and calibration with their intervals; without them where they cannot be computed."""
    found, days = {}, day_numbers(day)[1]
    for name, make in ((metric_name(spec.task), measure_of), ("calibration_error", calibration_of)):
        try:
            measure = make(spec.task, label, score, day)
            rounds = measure.value(resample(days, spec.gates.bootstrap_rounds, 6))
            found[name] = interval(point(measure, days), rounds, spec.gates.confidence)
        except NotComputable:
            found[name] = Interval(value=None, low=None, high=None)
    return found


def card_of(
    candidate: Candidate, evidence: Evidence, results: list[GateResult], verdict: Verdict, reason: str
) -> ModelCard:
    """The model card, without version until it is registered."""
    spec, facts, scored = candidate.spec, candidate.facts, evidence.scored
    champion = scored.champion
    return ModelCard(
        model=spec.name,
        version=UNREGISTERED,
        sha256=candidate.sha256,
        created_at=facts.created_at,
        purpose=spec.target.description,
        horizon_min=spec.horizon_min,
        feature_service=spec.feature_service,
        features=list(evidence.features),
        train_from=facts.train_from,
        train_until=facts.train_until,
        holdout_from=facts.holdout_from,
        holdout_until=facts.holdout_until,
        train_rows=facts.train_rows,
        holdout_rows=facts.holdout_rows,
        params={**facts.params, "iterations": facts.iterations},
        metrics={
            **intervals(spec, scored.label, scored.candidate, scored.day),
            **{
                f"baseline_{key}": value
                for key, value in intervals(spec, scored.label, scored.baseline, scored.day).items()
            },
        },
        champion_version=evidence.champion_version,
        champion_metrics={} if champion is None else intervals(spec, scored.label, champion, scored.day),
        slices=slice_table(evidence),
        importances=facts.importances,
        digests=facts.digests,
        gates=results,
        verdict=verdict,
        reason=reason,
    )
