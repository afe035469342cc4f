"""The model spec: one small YAML file per model, from which training, gates and serving take their settings."""

from __future__ import annotations

import datetime as dt
import enum
import os
from pathlib import Path
from typing import Annotated, Literal

import pydantic
import yaml

from flightdeck.contracts.retrain import ASKING, TriggerKind

SPECS_ENV = "FLIGHTDECK_SPECS"
CHECKOUT = Path(__file__).resolve().parents[2]


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Task(enum.StrEnum):
    """What kind of answer the model gives."""

    CLASSIFICATION = "classification"  # a probability, 0 to 1
    REGRESSION = "regression"  # a number in the unit of the target


class OnMissing(enum.StrEnum):
    """What the predictor does when a feature is absent, stale or the online store does not answer in time."""

    REJECT = "reject"  # answer 503 for the request
    DEFAULT = "default"  # use the view's training default, mark the answer degraded
    FALL_BACK = "fall_back"  # answer the model's base rate without running it, mark the answer degraded


class FeatureViewPolicy(_Strict):
    """How old a view's values may be at serving, and what to do beyond that."""

    max_age: dt.timedelta = pydantic.Field(description="Oldest event time accepted, before the clock's now.")
    on_missing: OnMissing = OnMissing.DEFAULT

    @pydantic.field_validator("max_age")
    @classmethod
    def _positive(cls, value: dt.timedelta) -> dt.timedelta:
        if value <= dt.timedelta(0):
            raise ValueError(f"max_age must be positive; got {value}")
        return value


class Target(_Strict):
    """What is predicted: a `label_*` column of the entity frame."""

    label: str = pydantic.Field(pattern=r"^label_[a-z0-9_]+$")
    unit: str = pydantic.Field(description="`probability` for a classification, else the unit, e.g. `min`.")
    description: str


class FloatRange(_Strict):
    """A number to search between two bounds."""

    kind: Literal["float"] = "float"
    low: float
    high: float
    log: bool = False


class IntRange(_Strict):
    """A whole number to search between two bounds."""

    kind: Literal["int"] = "int"
    low: int
    high: int
    log: bool = False


class Choice(_Strict):
    """One of several values."""

    kind: Literal["choice"] = "choice"
    options: list[float | int | str | bool] = pydantic.Field(min_length=1)


SearchRange = Annotated[FloatRange | IntRange | Choice, pydantic.Field(discriminator="kind")]


class Estimator(_Strict):
    """The scikit-learn estimator and its fixed parameters."""

    kind: Literal["hist_gradient_boosting"] = "hist_gradient_boosting"
    params: dict[str, float | int | str | bool | None] = pydantic.Field(default_factory=dict)
    ignore: list[str] = pydantic.Field(
        default_factory=list,
        description="Features of the service that this model must not learn from: constant while it is trained.",
    )


class Search(_Strict):
    """Optuna's budget and space."""

    trials: int = pydantic.Field(ge=0, le=500, description="0 trains with the estimator's own params.")
    sample_rows: int = pydantic.Field(ge=1000, description="Newest training rows a trial sees.")
    timeout_s: float = pydantic.Field(gt=0)
    space: dict[str, SearchRange] = pydantic.Field(default_factory=dict)


class Split(_Strict):
    """The split by time: train | holdout, newest last."""

    train_days: int = pydantic.Field(ge=7, description="At most so many days before the holdout.")
    holdout_days: int = pydantic.Field(ge=1, description="Newest days with matured labels.")
    maturity: dt.timedelta = pydantic.Field(
        description="After the prediction time by which an outcome is known; younger rows would be only the quick ones."
    )


class Baseline(_Strict):
    """What any model must beat: the mean target per group of the training rows, drawn to the overall mean."""

    description: str
    columns: list[str] = pydantic.Field(min_length=1, description="Slice columns whose combination is a group.")
    prior_rows: float = pydantic.Field(gt=0, description="Weight of the overall mean, in rows.")


class Gates(_Strict):
    """Each gate's margin. What is not listed here has no default: a gate without a number cannot decide."""

    baseline_margin: float = pydantic.Field(
        ge=0, description="The candidate's metric beats the stated baseline by at least this."
    )
    quality_margin: float = pydantic.Field(
        ge=0, description="Largest loss against the champion at the bootstrap bound (AUC, or target unit)."
    )
    confidence: float = pydantic.Field(gt=0.5, lt=1, description="Of every interval, two-sided.")
    bootstrap_rounds: int = pydantic.Field(ge=100, le=10_000)
    calibration_error: float = pydantic.Field(
        gt=0,
        description="Largest expected calibration error as a share of the mean outcome (classification), or absolute "
        "bias (regression, unit).",
    )
    slice_margin: float = pydantic.Field(gt=0, description="Largest loss in a slice against the champion.")
    slice_gap: float = pydantic.Field(gt=0, description="Fairness: largest gap between slices' mean calibration.")
    slice_min_rows: int = pydantic.Field(ge=30)
    leak_metric: float = pydantic.Field(
        description="A metric better than this is too good to be true (AUC above, or error below, in the unit)."
    )
    leak_feature: float = pydantic.Field(
        gt=0.5, le=1, description="One feature alone that separates the target better (AUC) is too good to be true."
    )
    parity: float = pydantic.Field(gt=0, description="Largest absolute difference between ONNX and scikit-learn.")
    latency_p99_ms: float = pydantic.Field(gt=0, description="One row, one thread.")
    size_mb: float = pydantic.Field(gt=0, description="model.onnx, megabytes (1e6 bytes).")
    memory_mb: float = pydantic.Field(gt=0, description="Resident growth from loading and running the model.")


class DirectionTest(_Strict):
    """Raising one feature must move the mean score the stated way: up, down, or not at all."""

    feature: str
    add: float
    expect: Literal["up", "down", "unchanged"]
    tolerance: float = pydantic.Field(ge=0, default=0.0)


class OnTrigger(enum.StrEnum):
    """What a trigger asks for."""

    TRAIN = "train"  # a training
    PRETEST = "pretest"  # a training, if the pre-test says that it would pay


class PretestPlan(_Strict):
    """The cheap question before a training: a small model on recent rows against the champion on the newest holdout."""

    train_days: int = pydantic.Field(ge=7, description="Days before the holdout from which its rows are drawn.")
    sample_rows: int = pydantic.Field(ge=1000, description="At most so many of them, drawn evenly over time.")
    min_gain: float = pydantic.Field(
        ge=0, description="A training pays when the score's root mean squared error falls by more (the score's unit)."
    )
    on_cannot_tell: Literal["train", "skip"] = pydantic.Field(description="When the interval leaves it open.")


class Retrain(_Strict):
    """When the model is trained again by itself. By hand is always possible."""

    triggers: dict[TriggerKind, OnTrigger] = pydantic.Field(
        min_length=1, description="Which triggers are followed, and how; others are only noted."
    )
    every: dt.timedelta | None = pydantic.Field(
        default=None, description="A `schedule` trigger when no training began for so long."
    )
    cool_down: dt.timedelta = pydantic.Field(
        description="After a training, or after a pre-test that said no: the time in which its effect shows."
    )
    budget_per_day: int = pydantic.Field(ge=1, le=1000, description="Trainings within any 24 hours.")
    pretest: PretestPlan | None = None

    @pydantic.model_validator(mode="after")
    def _effective(self) -> Retrain:
        if strange := sorted(set(self.triggers) - ASKING):
            known = ", ".join(sorted(ASKING))
            raise ValueError(f"triggers: {', '.join(strange)} is not for a policy to follow; there are: {known}")
        if (TriggerKind.SCHEDULE in self.triggers) != (self.every is not None):
            raise ValueError("triggers.schedule needs `every`, and `every` has no effect without triggers.schedule")
        if (OnTrigger.PRETEST in self.triggers.values()) != (self.pretest is not None):
            raise ValueError("a trigger with `pretest` needs the section pretest, which has no effect without one")
        for name in ("every", "cool_down"):
            value = getattr(self, name)
            if value is not None and value <= dt.timedelta(0):
                raise ValueError(f"{name} must be positive; got {value}")
        return self


class ModelSpec(_Strict):
    """Everything that makes one model different from another.

    Source of the fields: docs/model-spec.md. The spec is data: no field names code to import.
    """

    name: str = pydantic.Field(pattern=r"^[a-z][a-z0-9_-]{1,40}$")
    task: Task
    horizon_min: int = pydantic.Field(gt=0, description="Minutes between prediction and the event it is about.")
    target: Target
    entity_keys: list[str] = pydantic.Field(min_length=1)
    feature_service: str
    features: dict[str, FeatureViewPolicy] = pydantic.Field(
        description="Policy per feature view; must name exactly the service's stored views."
    )
    decision_threshold: float | None = pydantic.Field(
        default=None, description="Score at or above which the decision is positive; classification only."
    )
    estimator: Estimator
    search: Search
    split: Split
    baseline: Baseline
    slices: list[str] = pydantic.Field(default_factory=list, description="Columns of the entity frame.")
    gates: Gates
    direction_tests: list[DirectionTest] = pydantic.Field(default_factory=list)
    retrain: Retrain | None = pydantic.Field(
        default=None, description="Absent: it is trained again by hand only; what asks for it is noted."
    )

    @pydantic.model_validator(mode="after")
    def _coherent(self) -> ModelSpec:
        classifies = self.task is Task.CLASSIFICATION
        if classifies != (self.decision_threshold is not None):
            raise ValueError(f"{self.name}: a classification needs decision_threshold, a regression must not have one")
        if classifies and not 0 < (self.decision_threshold or 0) < 1:
            raise ValueError(f"{self.name}: decision_threshold must lie between 0 and 1; got {self.decision_threshold}")
        return self


def load_model_spec(path: Path) -> ModelSpec:
    """Read and validate one spec.

    Raises:
        ValueError: the file is not YAML or breaks the schema; the message names file, field and what was found.
    """
    try:
        return ModelSpec.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not YAML: {error}") from error
    except pydantic.ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(map(str, item['loc'])) or '(whole file)'}: {item['msg']}; found {item['input']!r}"
            for item in error.errors()
        )
        raise ValueError(f"{path}: {error.error_count()} problem(s) in the model spec:\n{problems}") from error


def specs_folder() -> Path:
    """`$FLIGHTDECK_SPECS`, else the checkout's own."""
    return Path(os.environ.get(SPECS_ENV) or CHECKOUT / "specs")


def model_specs(folder: Path) -> list[ModelSpec]:
    """Every model spec of a folder, by name; its other YAML files (rollouts, the first run) have no estimator.

    Raises:
        ValueError: there is none, two have one name, or one is broken.
    """
    found: dict[str, ModelSpec] = {}
    for path in sorted(folder.glob("*.yaml")):
        try:
            content = yaml.safe_load(path.read_text())
        except yaml.YAMLError as error:
            raise ValueError(f"{path}: not YAML: {error}") from error
        if not (isinstance(content, dict) and "estimator" in content):
            continue
        spec = load_model_spec(path)
        if spec.name in found:
            raise ValueError(f"{path}: a second spec of the model {spec.name}; rename one")
        found[spec.name] = spec
    if not found:
        raise ValueError(f"{folder}: no model spec (a YAML file with `estimator`); {SPECS_ENV} names the folder")
    return [found[name] for name in sorted(found)]
