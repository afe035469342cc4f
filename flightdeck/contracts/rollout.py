"""The ModelRollout: what the CRD `flightdeck.dev/v1alpha1` holds, as types. Every default and bound stands here.

YAML keys are camelCase as in Kubernetes. Unknown keys are refused, and so is a setting that could have no effect: a
reader of a plan must be able to trust that each line of it does something.
"""

from __future__ import annotations

import enum
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import yaml
from pydantic.alias_generators import to_camel

from flightdeck.contracts.release import Release

API_VERSION = "flightdeck.dev/v1alpha1"
KIND = "ModelRollout"
# libyaml's, where PyYAML was built with it: some ten times as fast, and the operator reads two per look.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h))+")


def duration_s(value: Any) -> float:
    """Seconds of a duration as Go and Kubernetes write it: `90s`, `10m`, `1h30m`.

    Raises:
        ValueError: not such a text; a bare number has no unit and is refused.
    """
    if not isinstance(value, str) or len(value) > 40 or not _DURATION.fullmatch(value):
        raise ValueError(f"a duration with a unit, e.g. 90s, 10m or 1h30m; found {value!r}")
    return sum(float(number) * _UNIT_S[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", value))


def duration_text(seconds: float) -> str:
    """The shortest such text, to a millisecond below ten seconds and a tenth above: 5400 is `1h30m`."""
    thousandths = round(seconds * 1000) if seconds < 10 else round(seconds * 10) * 100
    hours, rest = divmod(thousandths, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    parts = [f"{count}{unit}" for count, unit in ((hours, "h"), (minutes, "m")) if count]
    if rest or not parts:
        parts.append(f"{rest / 1000:g}s")
    return "".join(parts)


Duration = Annotated[
    float,
    pydantic.BeforeValidator(duration_s),
    pydantic.PlainSerializer(duration_text, return_type=str),
    pydantic.WithJsonSchema({"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"}),
]


def _deadline(longest_s: float, description: str, default: Any = ...) -> Any:
    """A field that holds a Duration; the schema of a text has no bounds, so they are told beside it, in seconds."""
    told: dict[str, Any] = {"exclusiveMinimum": 0, "maximum": longest_s}
    return pydantic.Field(default=default, gt=0, le=longest_s, description=description, json_schema_extra=told)


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, alias_generator=to_camel, populate_by_name=True
    )


class Shadow(_Strict):
    """The candidate gets a copy of each user request; its answers are thrown away and compared."""

    min_pairs: int = pydantic.Field(
        ge=1, le=10_000_000, description="Pairs of answers to see before the step may pass."
    )
    deadline: Duration = _deadline(7 * 86_400, "Real time after which `onDeadline` decides.")


class Canary(_Strict):
    """The candidate answers a part of the users."""

    weight: int = pydantic.Field(ge=1, le=99, description="Per cent of the user requests, over all its replicas.")
    min_requests: int = pydantic.Field(
        default=100, ge=1, le=10_000_000, description="Answers by the candidate to see in this step before it may pass."
    )
    deadline: Duration = _deadline(7 * 86_400, "Real time after which `onDeadline` decides.")


class Step(_Strict):
    """One step of the plan: exactly one of the two."""

    shadow: Shadow | None = None
    canary: Canary | None = None

    @pydantic.model_validator(mode="after")
    def _one_of(self) -> Step:
        if (self.shadow is None) == (self.canary is None):
            raise ValueError("a step is either `shadow` or `canary`, exactly one of them")
        return self

    @property
    def weight(self) -> int:
        """Per cent of the users that the candidate answers in this step; 0 in the shadow."""
        return self.canary.weight if self.canary else 0

    @property
    def deadline_s(self) -> float:
        """Real seconds that the step may take."""
        body = self.shadow or self.canary
        assert body is not None
        return body.deadline

    @property
    def words(self) -> str:
        """For status and history."""
        return f"canary {self.weight} %" if self.canary else "shadow"


class Margins(_Strict):
    """How much worse than the champion a candidate may be. A metric without a margin is not judged; none has a default.

    `shadow only` needs both answers to the same request, so the plan must have a shadow.
    """

    error_rate: float | None = pydantic.Field(
        default=None,
        gt=0,
        lt=0.5,
        description="Share of failed attempts at the gateway, above the champion's; 0.02 is 2 %.",
    )
    latency_p50_ratio: float | None = pydantic.Field(
        default=None, gt=1, le=100, description="Times the champion's median latency that the candidate may take."
    )
    latency_p99_ratio: float | None = pydantic.Field(
        default=None, gt=1, le=100, description="Times the champion's 99th percentile that the candidate's may be."
    )
    degraded_rate: float | None = pydantic.Field(
        default=None, gt=0, lt=0.5, description="Share of degraded answers, above the champion's; 0.05 is 5 %."
    )
    score_shift: float | None = pydantic.Field(
        default=None, gt=0,
        description="How far the mean of the scores, and their mean distance from the champion's median, may move "
        "either way, in the score's unit.",
    )  # fmt: skip
    score_delta: float | None = pydantic.Field(
        default=None, gt=0, description="Mean absolute difference of two scores, in the score's unit; shadow only."
    )
    label_flips: float | None = pydantic.Field(
        default=None, gt=0, lt=1, description="Share of pairs in which the decision differs, 0.05 is 5 %; shadow only."
    )
    feature_skew: float | None = pydantic.Field(
        default=None, gt=0, lt=1,
        description="Share of pairs in which a feature of one name and one event time has two values, 0.05 is 5 %; "
        "shadow only.",
    )  # fmt: skip
    label_loss: float | None = pydantic.Field(
        default=None, gt=0,
        description="Mean loss against the outcome above the champion's: squared error of a probability, else absolute "
        "error in the score's unit. Outcomes come late: it can fail a rollout, and no step waits for it.",
    )  # fmt: skip


SHADOW_ONLY = ("score_delta", "label_flips", "feature_skew")
SLICED = ("degraded_rate", "score_shift", "score_delta", "label_flips", "label_loss")  # what a slice can show


class Slices(_Strict):
    """Judge the answers about each value of a key, e.g. each region, as well as all of them."""

    by: list[Annotated[str, pydantic.StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=63)]] = (
        pydantic.Field(
            min_length=1, max_length=4,
            description="Join keys of the model's features, e.g. region. Each value of a key is a slice.",
        )
    )  # fmt: skip
    max_values: int = pydantic.Field(
        default=20, ge=1, le=50,
        description="Values of each key that are judged alone, those that come first; all others are one slice. Part "
        "of alpha is divided by it.",
    )  # fmt: skip
    min_share: float = pydantic.Field(
        default=0.1, gt=0, le=1,
        description="Share of the compared requests from which a step waits for a slice's pass; a smaller one can only "
        "fail.",
    )  # fmt: skip
    margin_factor: float = pydantic.Field(
        default=2.0, ge=1, le=100, description="A slice's margins, as multiples of those of all answers."
    )

    @pydantic.field_validator("by")
    @classmethod
    def _once(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError(f"each key once: a second time it would only use up alpha; found {names}")
        return names


class Judge(_Strict):
    """What counts as evidence. See docs/judge.md."""

    alpha: float = pydantic.Field(
        default=0.05, gt=0, le=0.2, description="Bound on the chance that a good candidate is aborted; 0.05 is 5 %."
    )
    beta: float = pydantic.Field(
        default=0.05,
        gt=0,
        le=0.2,
        description="Bound on the chance that a candidate beyond a margin is promoted; 0.05 is 5 %.",
    )
    margins: Margins
    warmup: int = pydantic.Field(
        default=20, ge=0, le=10_000, description="First answers of each replica that are left out; errors always count."
    )
    max_restarts: int = pydantic.Field(
        default=3, ge=1, le=100, description="So many deaths of candidate replicas abort, whatever the other evidence."
    )
    score_range: tuple[float, float] = pydantic.Field(
        default=(0.0, 1.0), description="Lowest and highest score, in its unit; beyond it a score counts as the bound."
    )

    slices: Slices | None = pydantic.Field(default=None, description="Absent: only all answers together are judged.")

    @pydantic.model_validator(mode="after")
    def _effective(self) -> Judge:
        low, high = self.score_range
        if not low < high:
            raise ValueError(f"scoreRange must rise; found [{low:g}, {high:g}]")
        if not any(value is not None for value in self.margins.__dict__.values()):
            raise ValueError("margins names no metric: a candidate would be promoted on nothing")
        for name in ("score_shift", "score_delta", "label_loss"):
            value = getattr(self.margins, name)
            if value is not None and value >= high - low:
                raise ValueError(
                    f"margins.{to_camel(name)} {value:g} can never be exceeded: scores lie in {low:g} to {high:g}"
                )
        return self

    @pydantic.model_validator(mode="after")
    def _effective_slices(self) -> Judge:
        if self.slices is None:
            return self
        low, high = self.score_range
        given = {name: value for name in SLICED if (value := getattr(self.margins, name)) is not None}
        if not given:
            raise ValueError(
                f"slices has no effect: a slice shows {', '.join(map(to_camel, SLICED))}, none has a margin"
            )
        for name, value in given.items():
            widest = 1.0 if name in ("degraded_rate", "label_flips") else high - low
            if value * self.slices.margin_factor >= widest:
                raise ValueError(
                    f"slices.marginFactor {self.slices.margin_factor:g} makes the margin of {to_camel(name)} "
                    f"{value * self.slices.margin_factor:g}, which no slice can exceed: it must stay below {widest:g}"
                )
        return self


class OnLimit(enum.StrEnum):
    """Then `hold` stays as it is until a person decides, `abort` sends the candidate home, and `promote` takes the next
    step as if this one had passed."""  # fmt: skip

    HOLD = "hold"
    ABORT = "abort"
    PROMOTE = "promote"


class OnNewRelease(enum.StrEnum):
    """What a new release does to a running rollout: `queueNewest` waits for its end, and only the newest one waits;
    `supersede` aborts it and begins."""  # fmt: skip

    QUEUE_NEWEST = "queueNewest"
    SUPERSEDE = "supersede"


class RolloutSpec(_Strict):
    """The wanted state. Git owns all but `release`, which the pipeline sets."""

    release: Release
    replicas: int = pydantic.Field(
        default=3, ge=1, le=100,
        description="Replicas of champion and of candidate, each. While a rollout runs they only grow. Leave it out "
        "where an autoscaler sets it.",
    )  # fmt: skip
    plan: list[Step] = pydantic.Field(min_length=1, max_length=20, description="In this order; 100 % follows the last.")
    judge: Judge
    ready_deadline: Duration = _deadline(
        86_400, "For the candidate's replicas to be ready, and to be retired.", default=300.0
    )
    on_deadline: OnLimit = pydantic.Field(description="A step's deadline passed while the judge was watching.")
    on_no_data: OnLimit = pydantic.Field(description="A step's deadline passed without data for some metric.")
    on_new_release: OnNewRelease

    @pydantic.model_validator(mode="after")
    def _effective(self) -> RolloutSpec:
        shadows = [index for index, step in enumerate(self.plan) if step.shadow]
        if shadows not in ([], [0]):
            raise ValueError("plan: the shadow comes first and once; later it would overlap a weight above 0")
        weights = [step.weight for step in self.plan if step.canary]
        if weights != sorted(set(weights)):
            raise ValueError(f"plan: weights must rise from step to step; found {weights}")
        if not weights:
            raise ValueError("plan: no canary step; errors under real traffic would never be judged before 100 %")
        if not shadows:
            found = [to_camel(name) for name in SHADOW_ONLY if getattr(self.judge.margins, name) is not None]
            if found:
                raise ValueError(
                    f"judge.margins.{found[0]} has no effect: it compares two answers to one request, and the plan has "
                    "no shadow step"
                )
        return self


class Metadata(_Strict):
    """Name, and notes for people."""

    name: str = pydantic.Field(pattern=r"^[a-z]([a-z0-9-]{0,48}[a-z0-9])?$", description="A DNS label.")
    annotations: dict[str, str] = pydantic.Field(default_factory=dict)
    labels: dict[str, str] = pydantic.Field(default_factory=dict)


class ModelRollout(_Strict):
    """The whole object, as in a YAML file. Its status is the controller's and no part of the file."""

    api_version: Literal["flightdeck.dev/v1alpha1"]
    kind: Literal["ModelRollout"]
    metadata: Metadata
    spec: RolloutSpec

    def with_release(self, release: Release) -> ModelRollout:
        """The same plan and judge for another release."""
        return self.model_copy(update={"spec": self.spec.model_copy(update={"release": release})})


class InvalidRollout(ValueError):
    """The file breaks the schema; the message names field, rule and what was found."""


def parse_rollout(text: str, where: str = "rollout", *, release: Release | None = None) -> ModelRollout:
    """Read and validate one ModelRollout from YAML.

    Args:
        release: takes the place of `spec.release`, which the file in Git leaves out: the pipeline owns it.
    Raises:
        InvalidRollout: not YAML, or it breaks the schema.
    """
    try:
        content = yaml.load(text, Loader=_LOADER)  # noqa: S506 - a safe one
    except yaml.YAMLError as error:
        raise InvalidRollout(f"{where}: not YAML: {error}") from error
    if release is not None and isinstance(content, dict) and isinstance(content.get("spec"), dict):
        content["spec"]["release"] = release.model_dump(mode="json", by_alias=True)
    return valid_rollout(content, where)


def valid_rollout(content: object, where: str = "rollout") -> ModelRollout:
    """Validate one ModelRollout as JSON or YAML hold it.

    Raises:
        InvalidRollout: it breaks the schema.
    """
    try:
        return ModelRollout.model_validate(content)
    except pydantic.ValidationError as error:
        lines = []
        for item in error.errors():
            place = ".".join(map(str, item["loc"])) or "(whole file)"
            found = item["input"]
            shown = "" if isinstance(found, dict | list) or item["type"] == "missing" else f"; found {found!r}"
            lines.append(f"  {place}: {item['msg'].removeprefix('Value error, ')}{shown}")
        raise InvalidRollout(f"{where}: {error.error_count()} problem(s):\n" + "\n".join(lines)) from error


def load_rollout(path: Path, *, release: Release | None = None) -> ModelRollout:
    """`parse_rollout` of a file.

    Raises:
        InvalidRollout: see there. OSError: it cannot be read.
    """
    return parse_rollout(path.read_text(), str(path), release=release)


def to_yaml(rollout: ModelRollout) -> str:
    """The object as a YAML file that `parse_rollout` reads."""
    content = rollout.model_dump(mode="json", by_alias=True, exclude_none=True)
    return str(yaml.dump(content, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))
