"""What the gates decide on: plain numbers and arrays, measured elsewhere; None is what could not be measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from flightdeck.contracts.model_spec import ModelSpec
from pipelines.gates.metrics import Floats


@dataclasses.dataclass(frozen=True)
class Scored:
    """The holdout with every model's score of it. All arrays have shape (rows,).

    slices: column -> the row's value as text. champion: None when nothing has been promoted yet.
    """

    label: Floats
    day: npt.NDArray[Any]
    candidate: Floats
    baseline: Floats
    champion: Floats | None
    sklearn: Floats
    slices: Mapping[str, npt.NDArray[np.str_]]


@dataclasses.dataclass(frozen=True)
class Footprint:
    """Measured in a process of its own, with one thread."""

    latency_p99_ms: float
    memory_mb: float
    size_mb: float


@dataclasses.dataclass(frozen=True)
class Rejoined:
    """Holdout rows joined again from the feature store: how many values differ from those the candidate was shown.

    differing: feature -> rows (of `rows`) with another value.
    """

    rows: int
    differing: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Truncated:
    """Feature rows built twice, with and without the data after a moment of the holdout.

    leak: what changed when the future was taken away; empty when nothing did.
    """

    rows: int
    leak: str


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All that the gates see."""

    spec: ModelSpec
    scored: Scored
    champion_version: str | None
    features: Sequence[str]
    separations: Mapping[str, float]
    moved: Mapping[
        str, float | None
    ]  # direction test's feature -> mean score after minus before; None: no such feature
    footprint: Footprint | None
    model_inputs: int | None
    service_features: Sequence[str] | None
    service_views: Sequence[str] | None
    manifest_views: Sequence[str]
    rejoined: Rejoined | None
    truncated: Truncated | None
    problems: Mapping[str, str]  # what could not be measured -> why
