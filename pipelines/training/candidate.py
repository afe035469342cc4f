"""A trained candidate: its artefact, its facts and its holdout, kept so that the gates can run elsewhere and later."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pydantic

from flightdeck.contracts.artefact import ModelManifest
from flightdeck.contracts.card import Digests
from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.model_spec import ModelSpec
from pipelines.registry.artefacts import adopt, opened
from pipelines.registry.mlflow_adapter import MlflowRegistry

FACTS_FILE, SPEC_FILE, HOLDOUT_FILE = "candidate.json", "spec.json", "holdout.parquet"
SKLEARN_SCORE, BASELINE_SCORE, DAY = "_sklearn_score", "_baseline_score", "_day"
ARTEFACT_PATH = "artefact"  # in the MLflow run: manifest.json and model.onnx


class Facts(pydantic.BaseModel):
    """What training knows of its result; times are prediction times, UTC."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    model: str
    sha256: str
    run_id: str
    created_at: dt.datetime
    until_utc: dt.datetime
    train_from: dt.datetime
    train_until: dt.datetime
    holdout_from: dt.datetime
    holdout_until: dt.datetime
    train_rows: int
    holdout_rows: int
    without_label_rows: int
    base_rate: float = pydantic.Field(description="Mean of the target over the training rows.")
    params: dict[str, float | int | str | bool | None]
    iterations: int
    search_trials: int
    metrics: dict[str, float]
    importances: dict[str, float]
    digests: Digests
    seconds: dict[str, float]
    note: str


@dataclasses.dataclass(frozen=True)
class Candidate:
    """What training hands to the gates.

    holdout: the held-out rows with the entity's columns, the features (float32, NaN where missing), the label,
        `_sklearn_score`, `_baseline_score` and `_day` (local date).
    """

    spec: ModelSpec
    facts: Facts
    folder: Path
    holdout: pl.DataFrame
    layout: StateLayout
    tracking_uri: str

    @property
    def run_id(self) -> str:
        """MLflow's run."""
        return self.facts.run_id

    @property
    def sha256(self) -> str:
        """Digest of the artefact."""
        return self.facts.sha256

    @property
    def metrics(self) -> dict[str, float]:
        """On the holdout."""
        return self.facts.metrics

    @property
    def label(self) -> npt.NDArray[np.float64]:
        """Target of the holdout rows."""
        return self.holdout[self.spec.target.label].cast(pl.Float64).to_numpy()

    def manifest(self) -> ModelManifest:
        """The artefact's manifest, after every byte was checked."""
        return opened(self.folder.parent, self.sha256)[0]


def save(candidate: Candidate, folder: Path) -> None:
    """Write everything but the artefact."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FACTS_FILE).write_text(candidate.facts.model_dump_json(indent=2))
    (folder / SPEC_FILE).write_text(candidate.spec.model_dump_json(indent=2))
    candidate.holdout.write_parquet(folder / HOLDOUT_FILE)


def load_candidate(run_id: str, layout: StateLayout, tracking_uri: str) -> Candidate:
    """The candidate of an MLflow run, from the state folder or, where absent, from MLflow.

    Raises:
        RegistryUnavailable, RegistryRefused: it must be fetched and cannot be.
        ArtefactError: the artefact is not the one that was trained.
    """
    folder = layout.candidates / run_id
    if not (folder / HOLDOUT_FILE).is_file():
        registry = MlflowRegistry(tracking_uri)
        for name in (FACTS_FILE, SPEC_FILE, HOLDOUT_FILE):  # the holdout last: its presence says that all is here
            registry.download(run_id, name, folder)
    facts = Facts.model_validate_json((folder / FACTS_FILE).read_text())
    if not (layout.artefacts / facts.sha256).is_dir():
        downloaded = MlflowRegistry(tracking_uri).download(run_id, ARTEFACT_PATH, folder)
        adopt(layout.artefacts, downloaded, facts.sha256)
    return Candidate(
        spec=ModelSpec.model_validate(json.loads((folder / SPEC_FILE).read_text())),
        facts=facts,
        folder=layout.artefacts / facts.sha256,
        holdout=pl.read_parquet(folder / HOLDOUT_FILE),
        layout=layout,
        tracking_uri=tracking_uri,
    )
