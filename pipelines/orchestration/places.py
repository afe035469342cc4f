"""What a step finds around it: stores, the one clock, an export; the same for a folder and for the cluster's stores."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
from collections.abc import Callable
from typing import Any

from flightdeck.contracts.layout import StateLayout
from pipelines import stores
from pipelines.data.files import Files
from pipelines.data.lake import Lake

STREAMS_ENV = "FLIGHTDECK_STREAMS_REDIS"


def layout() -> StateLayout:
    """The state folder of this process: in a pod, scratch that begins empty."""
    return StateLayout.from_env()


def lake() -> Lake:
    """The lake."""
    return stores.lake(layout())


def quarantine() -> Files:
    """Where bad days go, whole."""
    return stores.quarantine(layout())


def streams() -> Any:
    """The streams server, None when none is named.

    Raises:
        ValueError: its address is unreadable.
    """
    from redis import Redis

    url = os.environ.get(STREAMS_ENV)
    return Redis.from_url(url, socket_timeout=10, socket_connect_timeout=10) if url else None


def now_utc() -> dt.datetime:
    """The one clock: what is set on the streams server, else wall time."""
    from pipelines.clock import read_clock

    server = streams()
    if server is None:
        return dt.datetime.now(dt.UTC)
    with server:
        return read_clock(server).now()


def newest_export() -> str:
    """The export of the newest feature tables, made when the state folder lacks it; returns its id."""
    from pipelines.features.export import ensure_export

    return ensure_export(lake(), layout()).id


def keep_up(tell: Callable[[str], None]) -> dict[str, Any]:
    """The nightly housekeeping of `flightdeck data upkeep`; returns what it did, as figures.

    Raises:
        CannotTell: it cannot be told what a registered model needs; nothing was removed.
        RegistryUnavailable, LakeError: a store does not answer.
    """
    from pipelines.data import upkeep
    from pipelines.registry.mlflow_adapter import MlflowRegistry, tracking_uri_or_env

    registry, server = MlflowRegistry(tracking_uri_or_env(None)), streams()
    with server or contextlib.nullcontext():
        found = upkeep.tend(lake(), layout(), registry, server)
    for item in found.tables:
        tell(f"{item.table}: {item.files_before:,} files, now {item.files_after:,}; {item.removed:,} removed")
    done: dict[str, Any] = {"tables": len(found.tables), "files removed": sum(item.removed for item in found.tables)}
    done |= {"exports removed": len(found.exports), "MLflow runs removed": found.mlflow_runs}
    if server is not None:
        done["stream entries trimmed"] = found.trimmed
    return done
