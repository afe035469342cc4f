"""A plan with what the cluster knows about it: the replicas that stand there, and the users' measured rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from flightdeck.cli.lint import load, stand_in
from flightdeck.contracts.release import Release
from flightdeck.contracts.rollout import ModelRollout, parse_rollout


def what_runs(
    find: Callable[[str], Mapping[str, Any] | None], name: str | None, file: Path | None, rate_per_s: float | None
) -> tuple[ModelRollout, float, str]:
    """The plan to lint, the rate in requests per second, and in words where both are from.

    Args:
        find: the object of this name in the cluster; None when there is none.
        name: of the object; None: the file's. file: a plan that takes the place of the object's.
        rate_per_s: takes the place of the measured one.
    Raises:
        ValueError: no such object, a spec that breaks the schema, or no rate is known.
    """
    rollout = load(file) if file else None
    name = name or (rollout.metadata.name if rollout else "")
    there = find(name)
    if rollout is None:
        if there is None:
            raise ValueError(f"no ModelRollout {name} in the cluster; give a file with -f")
        rollout = _parsed(there)
    elif there is not None:  # an autoscaler sets them through the scale subresource; Git's figure is only the first
        replicas = there["spec"]["replicas"]
        rollout = rollout.model_copy(update={"spec": rollout.spec.model_copy(update={"replicas": replicas})})
    measured = (there or {}).get("status", {}).get("requestsPerSecond")
    per_s = rate_per_s or measured
    if per_s is None:
        what = "the operator has measured no request rate yet" if there else f"there is no ModelRollout {name} to ask"
        raise ValueError(f"{name}: {what}; give one with --rate")
    source = "as given" if rate_per_s else "as the operator measured it at the gateway"
    return rollout, float(per_s), f"{rollout.spec.replicas} replicas, {per_s:g} requests per second {source}"


def _parsed(there: Mapping[str, Any]) -> ModelRollout:
    spec = dict(there["spec"])
    kept = spec.pop("release", None)
    name = there["metadata"]["name"]
    content = {"apiVersion": there["apiVersion"], "kind": there["kind"], "metadata": {"name": name}, "spec": spec}
    release = Release.model_validate(kept) if kept else stand_in()
    return parse_rollout(yaml.safe_dump(content), name, release=release)
