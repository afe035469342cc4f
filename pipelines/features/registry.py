"""Adapter: Feast's registry. What would change, whether it destroys something, and apply by one writer at a time.

`feast plan` exits 0 on breaking changes and `feast apply` deletes removed views without asking: hence this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import fcntl
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flightdeck.contracts.layout import StateLayout

if TYPE_CHECKING:
    from feast import FeatureStore

REPO = Path(__file__).resolve().parents[2] / "feature_repo"
ONLINE_REDIS_ENV = "FLIGHTDECK_ONLINE_REDIS"
DEFAULT_ONLINE_REDIS = "127.0.0.1:6379"
CONFIG_ENV = "FEAST_FS_YAML_FILE_PATH"  # Feast's own name for another feature_store.yaml


class RegistryError(RuntimeError):
    """The registry refuses, or does not hold what is asked for."""


class DestructiveChange(RegistryError):
    """A change would break what reads the registry, and nobody approved it."""


class Effect(enum.StrEnum):
    """What a change does to those who already use the object."""

    ADDS = "adds"
    CHANGES = "changes"
    DESTROYS = "destroys"


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference between the registry and the definitions."""

    kind: str
    name: str
    what: str
    before: str
    after: str
    effect: Effect


@dataclasses.dataclass(frozen=True)
class Described:
    """A registered object as plain values: what a reader of it can notice."""

    kind: str
    name: str
    facts: Mapping[str, str]


# A new value of these facts changes what is stored, how it is keyed or what a model receives: never without approval.
BREAKING = ("feature ", "input ", "join keys", "value type", "transformation")
# Where data lie or what people read: no consumer can notice.
HARMLESS = ("description", "source path")


def open_store(layout: StateLayout, online_redis: str | None = None) -> FeatureStore:
    """Feast's store for this state folder: the registry in it, the online store as the environment says.

    Args:
        layout: the state folder.
        online_redis: `host:port[,key=value...]`; else `$FLIGHTDECK_ONLINE_REDIS`, else the usual local port.
    Raises:
        RegistryError: the registry's database cannot be opened.
    """
    import yaml
    from feast import FeatureStore
    from feast.repo_config import RepoConfig
    from sqlalchemy.exc import SQLAlchemyError

    path = Path(os.environ.get(CONFIG_ENV) or REPO / "feature_store.yaml")
    raw: dict[str, Any] = yaml.safe_load(os.path.expandvars(path.read_text()))
    if not os.environ.get(CONFIG_ENV):
        layout.root.mkdir(parents=True, exist_ok=True)
        raw["registry"]["path"] = f"sqlite:///{layout.feast_registry}"
    raw["online_store"]["connection_string"] = (
        online_redis or os.environ.get(ONLINE_REDIS_ENV) or raw["online_store"]["connection_string"]
    )
    try:
        store = FeatureStore(config=RepoConfig(**raw, repo_path=REPO))
        _ = store.registry  # opens the database
        return store
    except SQLAlchemyError as error:
        words = str(error).splitlines()[0]
        raise RegistryError(f"the registry at {raw['registry']['path']} cannot be opened: {words}") from error


def defined_objects(layout: StateLayout) -> list[Any]:
    """Every Feast object of `feature_repo.definitions`, its sources pointing into this state folder."""
    from feast import FeatureView

    from feature_repo import definitions
    from feature_repo.sources import CURRENT, stored_view
    from feature_repo.transforms import BUILDS

    objects: list[Any] = []
    for name in definitions.__all__:
        item = getattr(definitions, name)
        if isinstance(item, FeatureView):
            item = stored_view(BUILDS[item.name], layout.exports / CURRENT)
            objects += [source for source in (item.batch_source, item.stream_source) if source is not None]
        objects.append(item)
    return [item for item in objects if _kind(item) != "request source"]


def plan(layout: StateLayout) -> list[Change]:
    """Differences between what is registered and what the definitions say, destructive ones first."""
    store = open_store(layout)
    wanted = {(item.kind, item.name): item for item in map(describe, defined_objects(layout))}
    return compare(registered(store), wanted)


def apply(layout: StateLayout, *, approve: bool = False) -> list[Change]:
    """Make the registry equal the definitions; one writer at a time. Returns what changed.

    Raises:
        DestructiveChange: a change destroys something and `approve` is False; nothing was written.
        RegistryError: another process is applying, or removed views' rows cannot be taken out of the online store.
    """
    from redis.exceptions import RedisError

    with _one_writer(layout):
        store = open_store(layout)
        objects = defined_objects(layout)
        wanted = {(item.kind, item.name): item for item in map(describe, objects)}
        changes = compare(registered(store), wanted)
        destructive = [change for change in changes if change.effect is Effect.DESTROYS]
        if destructive and not approve:
            names = ", ".join(f"{change.kind} {change.name}: {change.what}" for change in destructive)
            raise DestructiveChange(f"{len(destructive)} destructive change(s) not approved: {names}; see the plan")
        if changes:
            gone = [
                item
                for item in _registered_objects(store)
                if (key := (_kind(item), item.name)) not in wanted and key[0] != "source"
            ]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # on-demand views are "experimental": known
                try:
                    store.apply(objects, objects_to_delete=gone, partial=not gone)
                except RedisError as error:  # Feast empties what is removed, after it has written the registry
                    raise RegistryError(
                        f"the registry is changed, but {store.config.online_store.connection_string} does not answer "
                        f"({error}): the rows of {', '.join(item.name for item in gone)} stay in the online store"
                    ) from error
        left = compare(registered(open_store(layout)), wanted)
        if left:
            raise RegistryError(f"after apply the registry still differs: {left}")
        return changes


def compare(before: Mapping[tuple[str, str], Described], after: Mapping[tuple[str, str], Described]) -> list[Change]:
    """Every difference, each with its effect; destructive first, then by kind and name."""
    changes = []
    for key in sorted(before.keys() | after.keys()):
        kind, name = key
        if key not in after:
            changes.append(Change(kind, name, "removed", "registered", "", Effect.DESTROYS))
        elif key not in before:
            changes.append(Change(kind, name, "added", "", "defined", Effect.ADDS))
        else:
            changes += _fact_changes(before[key], after[key])
    order = list(Effect)[::-1]
    return sorted(changes, key=lambda change: (order.index(change.effect), change.kind, change.name, change.what))


def _fact_changes(before: Described, after: Described) -> list[Change]:
    changes = []
    for fact in dict.fromkeys([*before.facts, *after.facts]):
        old, new = before.facts.get(fact, ""), after.facts.get(fact, "")
        if old == new:
            continue
        breaking = fact.startswith(BREAKING) and not (old == "" and before.kind == "feature view")
        # What a service lists is what models were trained on: any change of it is a new service.
        breaking = breaking or (before.kind == "feature service" and fact not in HARMLESS)
        changes.append(
            Change(before.kind, before.name, fact, old, new, Effect.DESTROYS if breaking else Effect.CHANGES)
        )
    return changes


def registered(store: FeatureStore) -> dict[tuple[str, str], Described]:
    """What the registry holds, described."""
    return {(item.kind, item.name): item for item in map(describe, _registered_objects(store))}


def describe(item: Any) -> Described:
    """A Feast object as plain facts."""
    kind = _kind(item)
    facts: dict[str, str] = {}
    if kind == "entity":
        facts = {"join keys": item.join_key, "value type": item.value_type.name}
    elif kind == "source":
        batch = getattr(item, "batch_source", None) or item
        facts = {"source path": str(batch.path), "timestamp": batch.timestamp_field}
    elif kind == "feature view":
        facts = {
            "join keys": ", ".join(item.join_keys),
            "ttl": str(item.ttl),
            "online": str(item.online),
            "source": (item.stream_source or item.batch_source).name,
            **{f"feature {field.name}": str(field.dtype) for field in item.features},
        }
    elif kind == "on-demand view":
        facts = {
            **{f"feature {field.name}": str(field.dtype) for field in item.features},
            **{
                f"input {field.name}": str(field.dtype)
                for source in item.source_request_sources.values()
                for field in source.schema
            },
            "transformation": item.feature_transformation.udf_string.strip(),
        }
    elif kind == "feature service":
        for projection in item.feature_view_projections:
            names = ", ".join(feature.name for feature in projection.features)
            facts[f"features of {projection.name}"] = names
        facts["order of views"] = ", ".join(projection.name for projection in item.feature_view_projections)
    return Described(kind, item.name, {**facts, "description": item.description})


def _kind(item: Any) -> str:
    from feast import Entity, FeatureService, FeatureView, OnDemandFeatureView, RequestSource

    kinds = {
        Entity: "entity",
        FeatureView: "feature view",
        OnDemandFeatureView: "on-demand view",
        FeatureService: "feature service",
        RequestSource: "request source",
    }
    return next((name for type_, name in kinds.items() if isinstance(item, type_)), "source")


def _registered_objects(store: FeatureStore) -> list[Any]:
    from feast.errors import FeastObjectNotFoundException

    try:
        store.registry.get_project(store.project)
    except FeastObjectNotFoundException:
        return []
    return [
        *(item for item in store.list_data_sources() if hasattr(item, "path") or getattr(item, "batch_source", None)),
        *(item for item in store.list_entities() if item.name != "__dummy"),
        *store.list_feature_views(),
        *store.list_on_demand_feature_views(),
        *store.list_feature_services(),
    ]


@contextlib.contextmanager
def _one_writer(layout: StateLayout) -> Iterator[None]:
    """A lock that dies with its process.

    Raises:
        RegistryError: another process holds it.
    """
    layout.run.mkdir(parents=True, exist_ok=True)
    with (layout.run / "features-apply.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RegistryError(
                "another process is applying features to this state folder; wait for it, then run again"
            ) from error
        yield
