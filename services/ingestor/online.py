"""Adapter: the online store, through Feast."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from flightdeck.contracts.events import FeatureSnapshot, time_of

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView


TIMEOUT_S = 5


class OnlineStoreUnusable(RuntimeError):
    """The configuration names no store, or the registry lacks a view: nothing that waiting would mend."""


class FeastOnline:
    """Writes feature rows as Feast writes them. The store keeps the newest row of an entity, so repeating is harmless.

    Raises:
        OnlineStoreUnusable: a view is not registered.
    """

    def __init__(self, store: FeatureStore, views: Sequence[str]) -> None:
        from feast.errors import FeatureViewNotFoundException

        self._store = store
        self._views: dict[str, FeatureView] = {}
        try:
            for view in views:
                self._views[view] = store.get_feature_view(view)
        except FeatureViewNotFoundException as error:
            raise OnlineStoreUnusable(f"{error}; run `flightdeck features apply`") from error

    def push(self, rows: Sequence[FeatureSnapshot]) -> None:
        """Write rows, at most one per entity and view, in one call per view.

        Of two revisions of a row the later one is newer by a microsecond: the store passes over what is not newer.
        """
        by_view: dict[str, list[FeatureSnapshot]] = {}
        for row in rows:
            by_view.setdefault(row.view, []).append(row)
        for view, members in by_view.items():
            source = self._views[view].batch_source
            times = [time_of(row.at_us + row.revision) for row in members]
            columns: dict[str, list[Any]] = {source.timestamp_field: times}
            if source.created_timestamp_column:
                columns[source.created_timestamp_column] = [time_of(row.made_at_us) for row in members]
            for key in members[0].keys:
                columns[key] = [row.keys[key] for row in members]
            for name in members[0].features:
                columns[name] = [row.features[name] for row in members]
            self._store.write_to_online_store(view, inputs=columns)


def open_store(config: Path, *, registry: str = "", online_redis: str = "") -> FeatureStore:
    """Feast's store as the YAML file says.

    Args:
        config: Feast's feature_store.yaml; `${VAR}` in it is the environment's.
        registry: SQLAlchemy URL instead of the file's.
        online_redis: `host:port[,key=value...]` instead of the file's.
    Raises:
        OnlineStoreUnusable: there is no such file, a variable is not set, or the registry cannot be opened.
    """
    from feast import FeatureStore
    from feast.repo_config import RepoConfig
    from sqlalchemy.exc import SQLAlchemyError

    try:
        raw = _expanded(yaml.safe_load(config.read_text()))
        raw["registry"]["path"] = registry or raw["registry"]["path"]
        raw["online_store"]["connection_string"] = online_redis or raw["online_store"]["connection_string"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise OnlineStoreUnusable(f"{config} configures no Feast with a Redis online store: {error}") from error
    for place in (raw["registry"]["path"], raw["online_store"]["connection_string"]):
        if "${" in place:
            raise OnlineStoreUnusable(f"{config} needs {place}: set the variable")
    online = raw["online_store"]
    if "socket_timeout=" not in online["connection_string"]:  # else a server that hangs is waited for for ever
        online["connection_string"] += f",socket_timeout={TIMEOUT_S},socket_connect_timeout={TIMEOUT_S}"
    try:
        store = FeatureStore(config=RepoConfig(**raw, repo_path=config.resolve().parent))
        _ = store.registry  # opens the database
        return store
    except SQLAlchemyError as error:
        raise OnlineStoreUnusable(f"the feature registry cannot be opened: {str(error).splitlines()[0]}") from error


def _expanded(value: Any) -> Any:
    """Put in after the file is read: a password may hold what means something in YAML."""
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    return os.path.expandvars(value) if isinstance(value, str) else value
