"""Where Feast reads features: Parquet exports of named Delta versions, `exports/current` being the newest.

The folder is under `$FLIGHTDECK_STATE`, else `.flightdeck` in the checkout, so that `cd feature_repo && feast apply`
finds what `flightdeck features export` wrote in either place. Knows no use case (docs/bring-your-own.md).
"""

from __future__ import annotations

import os
from pathlib import Path

from feast import FeatureView, Field, FileSource, PushSource
from feast.data_format import ParquetFormat
from feast.types import Float32, String

from feature_repo.entities import ENTITIES
from feature_repo.view_build import ViewBuild
from flightdeck.contracts.layout import STATE_ENV, StateLayout

CURRENT = "current"
PUSH_SUFFIX = "_push"


def layout() -> StateLayout:
    """`$FLIGHTDECK_STATE`, else `.flightdeck` in the checkout, wherever the current folder is."""
    if os.environ.get(STATE_ENV):
        return StateLayout.from_env()
    return StateLayout(Path(__file__).resolve().parent.parent / ".flightdeck")


def batch_source(view: str, folder: Path) -> FileSource:
    """The Parquet file of one view in an export folder."""
    return FileSource(
        name=f"{view}_batch",
        path=str(folder / f"{view}.parquet"),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )


def source_of(build: ViewBuild, folder: Path) -> FileSource | PushSource:
    """The view's source: its file in the export folder, and for a streamed view a push source on top of it."""
    batch = batch_source(build.name, folder)
    return PushSource(name=f"{build.name}{PUSH_SUFFIX}", batch_source=batch) if build.streamed else batch


def stored_view(build: ViewBuild, folder: Path) -> FeatureView:
    """The Feast view of one build over an export folder: its keys as strings, its features as float32."""
    return FeatureView(
        name=build.name,
        entities=[ENTITIES[key] for key in build.keys],
        schema=[
            *(Field(name=key, dtype=String) for key in build.keys),
            *(Field(name=name, dtype=Float32) for name in build.features),
        ],
        source=source_of(build, folder),
        ttl=build.ttl,
        description=build.description,
    )
