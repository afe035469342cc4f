"""Adapter of onnxruntime: the only way models are run by the gates, so that they judge what is served."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import below: it is read there

import onnxruntime

INPUT = "features"
OUTPUT = "score"


class OnnxModel:
    """One ONNX model in memory; one thread, as in the predictor.

    Raises:
        ValueError: the graph does not take one float32 tensor `features` [N, F] and give `score`.
    """

    def __init__(self, source: Path | bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            source if isinstance(source, bytes) else str(source), options, providers=["CPUExecutionProvider"]
        )
        inputs, outputs = self._session.get_inputs(), [item.name for item in self._session.get_outputs()]
        if [(item.name, item.type) for item in inputs] != [(INPUT, "tensor(float)")] or outputs != [OUTPUT]:
            found = [(item.name, item.type) for item in inputs]
            raise ValueError(
                f"a served model has one float input `{INPUT}` and one output `{OUTPUT}`; found {found}, {outputs}"
            )
        self.n_features = int(inputs[0].shape[1])

    def score(self, features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Scores, shape (rows,), of float32 features of shape (rows, F)."""
        return np.asarray(self._session.run([OUTPUT], {INPUT: features})[0], dtype=np.float32).reshape(-1)
