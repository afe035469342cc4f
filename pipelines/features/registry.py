"""Adapter: Feast's registry. What would change, whether it destroys something, and apply by one writer at a time.

`feast plan` exits 0 on breaking changes and `feast apply` deletes removed views without asking: hence this module.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flightdeck.contracts.layout import StateLayout
from pipelines.features import guard
from pipelines.features.registry_changes import Change, Described, Effect, compare
from pipelines.locks import CONNECT_S, Taken, one_at_a_time
from pipelines.stores import shown

if TYPE_CHECKING:
    from feast import FeatureStore

REPO = Path(__file__).resolve().parents[2] / "feature_repo"
ONLINE_REDIS_ENV = "FLIGHTDECK_ONLINE_REDIS"
DEFAULT_ONLINE_REDIS = "127.0.0.1:6379"
PROTECTED_ENV = "FLIGHTDECK_PROTECTED_SERVICES"  # names with commas between
CONFIG_ENV = "FEAST_FS_YAML_FILE_PATH"  # Feast's own name for another feature_store.yaml


class RegistryError(RuntimeError):
    """The registry refuses, or does not hold what is asked for."""


class DestructiveChange(RegistryError):
    """A change would break what reads the registry, and nobody approved it."""


class ProtectedChange(DestructiveChange):
    """A change would break a release that serves, waits or can be undone to: no approval helps."""


def open_store(layout: StateLayout, online_redis: str | None = None) -> FeatureStore:
    """Feast's store for this state folder: the registry in it, the online store as the environment says.

    Args:
        layout: the state folder.
        online_redis: `host:port[,key=value...]`; else `$FLIGHTDECK_ONLINE_REDIS`, else the usual local port.
    Raises:
        RegistryError: the registry's database cannot be opened.
    """
    from feast import FeatureStore
    from feast.repo_config import RepoConfig
    from sqlalchemy.exc import SQLAlchemyError

    raw = settings(layout, online_redis)
    try:
        store = FeatureStore(config=RepoConfig(**raw, repo_path=REPO))
        _ = store.registry  # opens the database
        return store
    except SQLAlchemyError as error:
        words = str(error).splitlines()[0]
        raise RegistryError(f"the registry at {shown(raw['registry']['path'])} cannot be opened: {words}") from error


def settings(layout: StateLayout, online_redis: str | None = None) -> dict[str, Any]:
    """What Feast is told: its YAML file, with the places that this installation names.

    Raises:
        RegistryError: the file names a variable that is not set.
    """
    import yaml

    path = Path(os.environ.get(CONFIG_ENV) or REPO / "feature_store.yaml")
    if not path.is_absolute():  # Feast's own command looks beside its definitions
        path = path if path.is_file() else REPO / path
    # Values are put in after the file is read: a password may hold what means something in YAML.
    raw: dict[str, Any] = _expanded(yaml.safe_load(path.read_text()))
    if not os.environ.get(CONFIG_ENV):
        layout.root.mkdir(parents=True, exist_ok=True)
        raw["registry"]["path"] = f"sqlite:///{layout.feast_registry}"
    if raw["registry"]["path"].startswith("postgres"):
        options = raw["registry"].setdefault("sqlalchemy_config_kwargs", {"echo": False})
        options["connect_args"] = {"connect_timeout": CONNECT_S}
    raw["online_store"]["connection_string"] = (
        online_redis or os.environ.get(ONLINE_REDIS_ENV) or raw["online_store"]["connection_string"]
    )
    unset = [text for text in (raw["registry"]["path"], raw["online_store"]["connection_string"]) if "${" in text]
    if unset:
        raise RegistryError(f"{path} needs {', '.join(unset)}: set the variable(s), or unset {CONFIG_ENV}")
    return raw


def _expanded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    return os.path.expandvars(value) if isinstance(value, str) else value


def protected_services(given: Sequence[str] = ()) -> list[str]:
    """The given names of feature services and those in the environment."""
    named = os.environ.get(PROTECTED_ENV, "").split(",")
    return sorted({name.strip() for name in (*given, *named) if name.strip()})


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
    return _planned(layout)[0]


def not_allowed(layout: StateLayout, protect: Sequence[str]) -> list[tuple[Change, str]]:
    """Of the plan, what a protected feature service does not survive, with that service."""
    changes, before = _planned(layout)
    return guard.refused(changes, before, protect)


def _planned(layout: StateLayout) -> tuple[list[Change], dict[tuple[str, str], Described]]:
    before = registered(open_store(layout))
    wanted = {(item.kind, item.name): item for item in map(describe, defined_objects(layout))}
    return compare(before, wanted), before


def apply(layout: StateLayout, *, approve: bool = False, protect: Sequence[str] = ()) -> list[Change]:
    """Make the registry equal the definitions; one writer at a time. Returns what changed.

    Args:
        approve: accept destructive changes.
        protect: feature services of releases that serve, wait or can be undone to.
    Raises:
        ProtectedChange: a change destroys what a protected service reads, approved or not; nothing was written.
        DestructiveChange: a change destroys something and `approve` is False; nothing was written.
        RegistryError: another process is applying, or removed views' rows cannot be taken out of the online store.
    """
    from redis.exceptions import RedisError

    with _one_writer(layout):
        store = open_store(layout)
        objects = defined_objects(layout)
        wanted = {(item.kind, item.name): item for item in map(describe, objects)}
        before = registered(store)
        changes = compare(before, wanted)
        if found := guard.refused(changes, before, protect):
            raise ProtectedChange(guard.words(found))
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
                    online = shown(store.config.online_store.connection_string)
                    raise RegistryError(
                        f"the registry is changed, but {online} does not answer "
                        f"({error}): the rows of {', '.join(item.name for item in gone)} stay in the online store"
                    ) from error
        left = compare(registered(open_store(layout)), wanted)
        if left:
            raise RegistryError(f"after apply the registry still differs: {left}")
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
    """A lock beside the registry that dies with its process.

    Raises:
        RegistryError: another process holds it, or the registry's database does not answer.
    """
    url, file = settings(layout)["registry"]["path"], layout.run / "features-apply.lock"
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(one_at_a_time(url, "features-apply", file, wait=False))
        except Taken as error:
            raise RegistryError(
                f"another process is applying features to {shown(url)}; wait for it, then run again"
            ) from error
        except ConnectionError as error:
            raise RegistryError(f"the registry cannot be locked: {error}; nothing was written") from error
        yield
