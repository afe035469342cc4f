"""An environment: which overlay goes where, under which names. What differs is here, or in the overlay."""

from __future__ import annotations

from pathlib import Path

import pydantic
import yaml

ENVIRONMENT_ENV = "FLIGHTDECK_ENVIRONMENT"  # of one process: every command works on one environment
CONTEXT_ENV = "FLIGHTDECK_CONTEXT"  # kubectl context, before the file's: a runner may name clusters in its own way
DEFAULT = "dev"
NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"  # a namespace, a label's value


class UnknownEnvironment(ValueError):
    """No environment of that name, or the file of environments is not what it must be."""


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class LoadLimits(_Strict):
    """The short load test of a delivery, and what its users must meet.

    Args:
        rate_per_s: requests a second. seconds: how long.
        p50_ms, p99_ms: latency from the intended start, at most. failed: requests without a 2xx answer, at most.
    """

    rate_per_s: float = pydantic.Field(default=20.0, gt=0, le=200)
    seconds: float = pydantic.Field(default=15.0, gt=0, le=120)
    p50_ms: float = pydantic.Field(default=250.0, gt=0)
    p99_ms: float = pydantic.Field(default=2500.0, gt=0)
    failed: int = pydantic.Field(default=0, ge=0)


class Environment(_Strict):
    """One of them.

    Args:
        overlay: folder under k8s/overlays; empty: kind's or minikube's, as fits the context.
        context: kubectl context; empty: the current one.
        platform, serving: its namespaces.
        promotes_from: the environment whose last good delivery gives the images; empty: it builds them.
        node_port_shift: added to every NodePort of the overlay, since a node's ports are one for all.
        requests_per_s: that a delivery sends during a rollout where no users are; 0: the users' own requests decide.
        rollout_timeout_s: how long a delivery follows a rollout, at most.
    """

    name: str = pydantic.Field(pattern=NAME)
    overlay: str = ""
    context: str = ""
    platform: str = pydantic.Field(pattern=NAME)
    serving: str = pydantic.Field(pattern=NAME)
    promotes_from: str = ""
    node_port_shift: int = pydantic.Field(default=0, ge=0, le=1000)
    requests_per_s: float = pydantic.Field(default=0.0, ge=0, le=200)
    rollout_timeout_s: float = pydantic.Field(default=1200.0, gt=0)
    load: LoadLimits = LoadLimits()


def read(path: Path) -> dict[str, Environment]:
    """All environments of a file, by name.

    Raises:
        UnknownEnvironment: it cannot be read, has a wrong key, or two environments share a namespace on one context.
    """
    try:
        content = yaml.safe_load(path.read_text())
        found = {name: Environment.model_validate({"name": name, **body}) for name, body in content.items()}
    except (OSError, AttributeError, TypeError, yaml.YAMLError, pydantic.ValidationError) as error:
        raise UnknownEnvironment(f"{path}: not a file of environments: {error}") from error
    taken: dict[tuple[str, str], str] = {}
    for it in found.values():
        if it.promotes_from and (it.promotes_from not in found or it.promotes_from == it.name):
            raise UnknownEnvironment(f"{path}: {it.name} promotes from {it.promotes_from!r}, which is no other of them")
        for space in (it.platform, it.serving):
            if other := taken.get((it.context, space)):
                raise UnknownEnvironment(f"{path}: {it.name} and {other} share the namespace {space}; name another")
            taken[it.context, space] = it.name
    return found


def named(path: Path, name: str) -> Environment:
    """One of them.

    Raises:
        UnknownEnvironment: see `read`, or there is none of that name.
    """
    found = read(path)
    if name not in found:
        raise UnknownEnvironment(f"no environment {name!r}; {path} has: {', '.join(found)}")
    return found[name]
