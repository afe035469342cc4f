"""Turns a fitted gradient boosting model into one ONNX graph: input `features` [N, F] float32, output `score` [N, 1].

Written here and not left to skl2onnx: its converter (1.20) fails with onnx 1.23, and it emits a label, both classes'
probabilities and a cast that serving would only pay for. The graph is one TreeEnsembleRegressor, plus a Sigmoid for
a classification. `_predictors` is scikit-learn's private list of trees (so is it for skl2onnx); the parity gate
compares every exported model with scikit-learn on the whole holdout, so a change of it cannot pass unseen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from flightdeck.contracts.model_spec import Task

INPUT, OUTPUT = "features", "score"
COLUMNS = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_featureids",
    "nodes_modes",
    "nodes_values",
    "nodes_truenodeids",
    "nodes_falsenodeids",
    "nodes_missing_value_tracks_true",
    "target_treeids",
    "target_nodeids",
    "target_weights",
)
OPSET, ML_OPSET, IR_VERSION = 17, 3, 8


def float32_threshold(threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 not above each threshold: `x <= t` is then equal for every float32 x.

    Rounding to nearest may round up onto a value of the data and send its rows to the other side.
    """
    near = threshold.astype(np.float32)
    return np.where(near.astype(np.float64) > threshold, np.nextafter(near, np.float32(-np.inf)), near)


def to_onnx(estimator: Any, task: Task, n_features: int) -> bytes:
    """The serialized ONNX graph of a fitted HistGradientBoostingClassifier (two classes) or -Regressor.

    Raises:
        ValueError: a tree splits on a categorical feature, or there is more than one tree per iteration.
    """
    trees = [tree for iteration in estimator._predictors for tree in iteration]
    if len(trees) != len(estimator._predictors):
        raise ValueError(f"{len(trees)} trees in {len(estimator._predictors)} iterations; only two classes are served")
    columns: dict[str, list[Any]] = {key: [] for key in COLUMNS}
    for number, tree in enumerate(trees):
        nodes = tree.nodes
        if nodes["is_categorical"].any():
            raise ValueError("a tree splits on a categorical feature; give categories as numbers or shares")
        leaf = nodes["is_leaf"].astype(bool)
        size = len(nodes)
        columns["nodes_treeids"] += [number] * size
        columns["nodes_nodeids"] += range(size)
        columns["nodes_featureids"] += np.where(leaf, 0, nodes["feature_idx"]).astype(int).tolist()
        columns["nodes_modes"] += np.where(leaf, "LEAF", "BRANCH_LEQ").tolist()
        columns["nodes_values"] += np.where(leaf, 0, float32_threshold(nodes["num_threshold"])).tolist()
        columns["nodes_truenodeids"] += np.where(leaf, 0, nodes["left"]).astype(int).tolist()
        columns["nodes_falsenodeids"] += np.where(leaf, 0, nodes["right"]).astype(int).tolist()
        columns["nodes_missing_value_tracks_true"] += (
            np.where(leaf, 0, nodes["missing_go_to_left"]).astype(int).tolist()
        )
        columns["target_treeids"] += [number] * int(leaf.sum())
        columns["target_nodeids"] += np.flatnonzero(leaf).tolist()
        columns["target_weights"] += nodes["value"][leaf].tolist()
    raw = OUTPUT if task is Task.REGRESSION else "raw"
    graph_nodes = [
        helper.make_node(
            "TreeEnsembleRegressor",
            [INPUT],
            [raw],
            domain="ai.onnx.ml",
            n_targets=1,
            aggregate_function="SUM",
            post_transform="NONE",
            base_values=[float(np.ravel(estimator._baseline_prediction)[0])],
            target_ids=[0] * len(columns["target_nodeids"]),
            **columns,
        )
    ]
    if task is Task.CLASSIFICATION:
        graph_nodes.append(helper.make_node("Sigmoid", [raw], [OUTPUT]))
    graph = helper.make_graph(
        graph_nodes,
        "flightdeck",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [None, n_features])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None, 1])],
    )
    model = helper.make_model(
        graph,
        producer_name="flightdeck",
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
    )
    model.ir_version = IR_VERSION
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)
