"""Adapter: the ONNX session of one verified artefact."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flightdeck.contracts.artefact import MANIFEST, ONNX_FILE, ArtefactError, ModelManifest
from flightdeck.contracts.model_spec import Task

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

Matrix = np.ndarray[Any, np.dtype[np.float32]]


class Model:
    """Scores rows. One thread: replicas share the cores, threads of one replica would only fight for them."""

    def __init__(self, folder: Path, manifest: ModelManifest) -> None:
        """Load and try the model.

        Raises:
            ArtefactError: onnxruntime cannot run it, or its input and output are not what the manifest says.
        """
        import onnxruntime

        self.manifest = manifest
        self.manifest_json = (folder / MANIFEST).read_bytes()  # as it is named by the digest, to the byte
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        path = folder / ONNX_FILE
        width = len(manifest.features)
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            inputs = self._session.get_inputs()
            outputs = [output.name for output in self._session.get_outputs()]
            if len(inputs) != 1 or inputs[0].type != "tensor(float)":
                raise ArtefactError(f"{path}: needs one float32 input; found {[(i.name, i.type) for i in inputs]}")
            self._input: str = inputs[0].name
            self._output: list[str] = ["score" if "score" in outputs else outputs[-1]]
            scores = self.score(np.asarray([[feature.default for feature in manifest.features]] * 2, dtype=np.float32))
        except ArtefactError:
            raise
        except Exception as error:  # onnxruntime raises its own types, which it does not export
            raise ArtefactError(f"{path}: onnxruntime cannot run it with {width} features: {error}") from error
        if len(scores) != 2 or not all(np.isfinite(scores)):
            raise ArtefactError(f"{path}: expected two finite scores for two rows of medians; got {scores}")

    def score(self, rows: Matrix) -> list[float]:
        """Scores of rows, shape (n_rows, n_features), in one run: probability, or the value in the model's unit.

        Raises:
            ValueError: the model gave another number of scores than rows.
        """
        (scores,) = self._session.run(self._output, {self._input: rows})
        flat: list[float] = scores.reshape(-1).tolist()
        if len(flat) != len(rows):
            raise ValueError(f"the model gave {len(flat)} scores for {len(rows)} rows")
        return flat

    def decision(self, score: float) -> str | None:
        """`positive` or `negative` by the manifest's threshold; None where the score itself is the answer."""
        threshold = self.manifest.decision_threshold
        if self.manifest.task is not Task.CLASSIFICATION or threshold is None:
            return None
        return "positive" if score >= threshold else "negative"


def matrix(vectors: Sequence[Sequence[float | None]]) -> Matrix:
    """Vectors as the model's input; None becomes NaN, "not known"."""
    return np.asarray(vectors, dtype=np.float32)
