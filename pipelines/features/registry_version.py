"""Tells the readers of the online store which version of the feature registry its rows were materialized with."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import redis

from flightdeck.contracts.online import registry_version_key
from pipelines.features.registry import registered

if TYPE_CHECKING:
    from feast import FeatureStore


def version_of(store: FeatureStore) -> str:
    """Twelve hex digits of what is registered: equal definitions have an equal version, whenever they were applied."""
    lines = [
        f"{kind}/{name}/{fact}: {value}"
        for (kind, name), described in registered(store).items()
        for fact, value in described.facts.items()
        if fact != "source path"  # where a writer has its files is no definition
    ]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:12]


def announce(store: FeatureStore) -> str | None:
    """Write the version beside the rows; returns it, None for an online store that is no Redis.

    Raises:
        redis.RedisError: the store does not answer.
    """
    online = store.config.online_store
    if getattr(online, "type", None) != "redis":
        return None
    version = version_of(store)
    with redis.Redis(**connection(online.connection_string)) as client:
        client.set(registry_version_key(store.project), version)
    return version


def connection(text: str) -> dict[str, Any]:
    """Arguments for Redis from Feast's way to write an address: `host:port,password=...,ssl=true,db=0`."""
    address, *options = text.split(",")
    host, _, port = address.rpartition(":")
    named = dict(option.split("=", 1) for option in options if "=" in option)
    found: dict[str, Any] = {"host": host, "port": int(port), "socket_timeout": 5, "socket_connect_timeout": 5}
    found |= {name: named[name] for name in ("username", "password") if name in named}
    if "db" in named:
        found["db"] = int(named["db"])
    if "ssl" in named:
        found["ssl"] = named["ssl"].lower() == "true"
    return found
