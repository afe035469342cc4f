"""Where this process's stores are: what the environment names, else the state folder. The one place that decides it.

The lab sets none of these: lake and quarantine are folders, Optuna's studies a SQLite file.
"""

from __future__ import annotations

import os
import re

from flightdeck.contracts.layout import StateLayout
from pipelines.data.files import Files
from pipelines.data.lake import Lake
from pipelines.data.object_store import is_url

LAKE_ENV = "FLIGHTDECK_LAKE"
QUARANTINE_ENV = "FLIGHTDECK_QUARANTINE"
OPTUNA_ENV = "FLIGHTDECK_OPTUNA"


def lake(layout: StateLayout) -> Lake:
    """The lake.

    Raises:
        ValueError: the environment names a place that nothing here speaks.
    """
    return Lake(os.environ.get(LAKE_ENV) or layout.lake)


def quarantine(layout: StateLayout) -> Files:
    """Where bad days are kept, whole.

    Raises:
        ValueError: as for `lake`.
    """
    return Files(os.environ.get(QUARANTINE_ENV) or layout.quarantine)


def optuna_url(layout: StateLayout) -> str:
    """Optuna's storage as a SQLAlchemy URL."""
    return os.environ.get(OPTUNA_ENV) or f"sqlite:///{layout.optuna_db}"


def scratch(layout: StateLayout) -> bool:
    """Whether the state folder is only scratch: the lake is elsewhere, and each step may find the folder empty."""
    return is_url(lake(layout).root)


def shown(address: str) -> str:
    """An address without its password, for messages: a URL, or Feast's `host:port,password=...`."""
    return re.sub(r"(password=)[^,&]*", r"\1***", re.sub(r"(//[^:/@]*):[^@/]*@", r"\1:***@", address))
