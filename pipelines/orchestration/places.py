"""Where a step reads and writes: one place to ask, whatever the home (a folder, or the cluster's stores)."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from typing import Any

from flightdeck.contracts.layout import StateLayout
from pipelines.data.lake import Lake

STREAMS_ENV = "FLIGHTDECK_STREAMS_REDIS"
PUBLIC_KEY_ENV = "FLIGHTDECK_PUBLIC_KEY_FILE"  # set where a trusted key exists: the cluster


def layout() -> StateLayout:
    """The state folder of this process: in a pod, scratch that begins empty."""
    return StateLayout.from_env()


def lake() -> Lake:
    """The lake."""
    return Lake(layout().lake)


def quarantine() -> Any:
    """Where bad days go, whole."""
    return layout().quarantine


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


def ensure_export() -> str:
    """The export of the newest feature tables: made when this pod has none; returns its id."""
    from pipelines.features import export

    return export.export(lake(), layout())


def keep_up(tell: Callable[[str], None]) -> dict[str, Any]:
    """The nightly housekeeping; returns what it did, as figures.

    Raises:
        ValueError: this installation has none.
    """
    raise ValueError("this installation has no upkeep")
