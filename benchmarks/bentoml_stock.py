"""BentoML as its tutorial shows it: a typed `@bentoml.api` with everything at its default. For comparison only."""

from __future__ import annotations

import os
from pathlib import Path

import bentoml
import numpy as np
import onnxruntime
import pydantic

from flightdeck.contracts.artefact import verify_artefact

SHA256 = os.environ["PREDICTOR_MODEL_SHA256"]
FOLDER = Path(os.environ["PREDICTOR_ARTEFACTS"]) / SHA256
MANIFEST = verify_artefact(FOLDER, SHA256)
NAMES = [feature.name for feature in MANIFEST.features]

Row = pydantic.create_model(  # type: ignore[call-overload]
    "Row", __config__=pydantic.ConfigDict(extra="forbid"), **dict.fromkeys(NAMES, (float | None, ...))
)


class Prediction(pydantic.BaseModel):
    """The answer for one row."""

    score: float
    decision: str


@bentoml.service(name="stock", workers=1)
class Stock:
    """POST /score."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = str(FOLDER / "model.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    @bentoml.api
    def score(self, rows: list[Row]) -> list[Prediction]:  # type: ignore[valid-type]
        """Scores of full vectors."""
        matrix = np.asarray([[getattr(row, name) for name in NAMES] for row in rows], dtype=np.float32)
        scores = self.session.run(["score"], {"features": matrix})[0].reshape(-1).tolist()
        threshold = MANIFEST.decision_threshold or 0.5
        return [Prediction(score=value, decision="positive" if value >= threshold else "negative") for value in scores]
