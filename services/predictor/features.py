"""Decides: which vector the model gets, and what is wrong with it, from the request and the online store. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from flightdeck.contracts.artefact import ModelManifest, ServedFeature
from flightdeck.contracts.model_spec import OnMissing

NAN = math.nan
_STRENGTH = {OnMissing.DEFAULT: 0, OnMissing.FALL_BACK: 1, OnMissing.REJECT: 2}


@dataclasses.dataclass(frozen=True)
class StoredView:
    """One feature view as the model uses it: `columns[i]` of the vector holds `features[i]`."""

    name: str
    join_keys: tuple[str, ...]
    features: tuple[str, ...]
    columns: tuple[int, ...]
    max_age_s: float
    on_missing: OnMissing


@dataclasses.dataclass(frozen=True)
class FeaturePlan:
    """Where each column of the model's input comes from."""

    names: tuple[str, ...]
    defaults: tuple[float, ...]
    on_demand: tuple[tuple[int, str], ...]
    views: tuple[StoredView, ...]


@dataclasses.dataclass(frozen=True)
class StoredValues:
    """What the online store holds for one view and one entity.

    Args:
        values: in the order of the view's `features`; NaN is a stored null, None a field that is not there.
        event_time_s: seconds since 1970 of the row's event timestamp; None when the store has none.
    """

    values: tuple[float | None, ...]
    event_time_s: float | None


@dataclasses.dataclass(frozen=True)
class Problem:
    """Why a view's values were not used: `kind` from a fixed set (for counters), `reason` for people."""

    view: str
    kind: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Assembled:
    """One row, ready to score.

    Args:
        vector: shape (n_features,), in the manifest's order; what is not known has the training median, as in training.
        ages_s: age of each stored view's values at the time asked, None when the store had none.
        action: the strongest policy among the views that have a problem; None when there is no problem.
    """

    vector: list[float]
    ages_s: dict[str, float | None]
    problems: list[Problem]
    action: OnMissing | None


def plan_from_manifest(manifest: ModelManifest, on_demand: Sequence[str]) -> FeaturePlan:
    """The plan of a manifest, checked against what the request can compute.

    Args:
        on_demand: names that the request's own functions compute.
    Raises:
        ValueError: a view has no policy, its features disagree on join keys, or an on-demand feature is unknown.
    """
    known = set(on_demand)
    views: dict[str, list[tuple[int, ServedFeature]]] = {}
    computed: list[tuple[int, str]] = []
    for column, feature in enumerate(manifest.features):
        if feature.source == "on_demand":
            if feature.name not in known:
                raise ValueError(
                    f"{manifest.model}: on-demand feature {feature.name!r} is not computed by this request schema "
                    f"(it computes {', '.join(sorted(known))}); serve the model with the code it was trained with"
                )
            computed.append((column, feature.name))
        else:
            views.setdefault(feature.view, []).append((column, feature))
    planned = []
    for name, members in views.items():
        policy = manifest.views.get(name)
        if policy is None:
            raise ValueError(f"{manifest.model}: view {name!r} has no policy in the manifest")
        keys = {tuple(sorted(feature.join_keys)) for _, feature in members}
        if len(keys) != 1 or not next(iter(keys)):
            raise ValueError(f"{manifest.model}: view {name!r} needs one set of join keys; found {sorted(keys)}")
        planned.append(
            StoredView(
                name=name,
                join_keys=next(iter(keys)),
                features=tuple(feature.name for _, feature in members),
                columns=tuple(column for column, _ in members),
                max_age_s=policy.max_age_s,
                on_missing=policy.on_missing,
            )
        )
    return FeaturePlan(
        names=tuple(feature.name for feature in manifest.features),
        defaults=tuple(feature.default for feature in manifest.features),
        on_demand=tuple(computed),
        views=tuple(planned),
    )


def assemble(
    plan: FeaturePlan,
    on_demand: Mapping[str, float],
    stored: Mapping[str, StoredValues | None] | None,
    *,
    now_s: float,
    future_tolerance_s: float,
    unreachable: str = "store unreachable",
) -> Assembled:
    """Put one row together and say what is wrong with it.

    A view is used whole or not at all: values of one event time belong together. A stored null is no problem and gets
    the default: training put the same median in its place. A field that is not there is a problem. An event time ahead
    of the clock by more than the tolerance is refused like a stale one: it is either a broken clock or a leak.

    Args:
        stored: per view, None for an entity the store does not know; None itself when the store did not answer.
        now_s: the clock's now, seconds since 1970.
        unreachable: words for the reason when the store did not answer.
    """
    vector: list[float | None] = list(plan.defaults)
    for column, name in plan.on_demand:
        vector[column] = on_demand[name]
    ages: dict[str, float | None] = {}
    problems: list[Problem] = []
    action: OnMissing | None = None
    for view in plan.views:
        found = stored.get(view.name) if stored is not None else None
        age = None if found is None or found.event_time_s is None else now_s - found.event_time_s
        ages[view.name] = age
        problem: Problem | None = None
        if stored is None:
            problem = Problem(view.name, "unreachable", f"{view.name}: {unreachable}")
        elif found is None or age is None:
            problem = Problem(view.name, "missing", f"{view.name}: missing")
        elif None in found.values:
            absent = [name for name, value in zip(view.features, found.values, strict=True) if value is None]
            problem = Problem(view.name, "missing", f"{view.name}: missing {', '.join(absent)}")
        elif age > view.max_age_s:
            problem = Problem(view.name, "stale", f"{view.name}: stale {age:.0f} s > {view.max_age_s:.0f} s")
        elif age < -future_tolerance_s:
            problem = Problem(view.name, "future", f"{view.name}: {-age:.0f} s in the future")
        if problem is None and found is not None:
            for column, value in zip(view.columns, found.values, strict=True):
                vector[column] = value
        elif problem is not None:
            problems.append(problem)
            if action is None or _STRENGTH[view.on_missing] > _STRENGTH[action]:
                action = view.on_missing
    return Assembled(known(vector, plan.defaults), ages, problems, action)


def known(vector: Sequence[float | None], defaults: Sequence[float]) -> list[float]:
    """The vector, shape (n_features,), with the training medians in the place of null and NaN, as in training."""
    return [
        default if value is None or math.isnan(value) else value
        for value, default in zip(vector, defaults, strict=True)
    ]


def horizon_reason(*, now_s: float, due_s: float, horizon_min: int, tolerance_min: float) -> str | None:
    """Why an answer is outside the model's horizon, or None.

    Args:
        due_s: when this row was to be predicted, `horizon_min` before its event; seconds since 1970.
    """
    off_min = (due_s - now_s) / 60
    if abs(off_min) <= tolerance_min:
        return None
    return f"horizon: asked {horizon_min + off_min:.0f} min ahead, the model is made for {horizon_min} min"
