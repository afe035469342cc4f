"""Export feature tables as Parquet for Feast's DuckDB store: one folder per set of Delta versions, never changed after.

DuckDB reads Delta only through an extension that it downloads at run time; local Parquet needs none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq

from feature_repo.transforms import BUILDS
from flightdeck.contracts.layout import StateLayout
from pipelines.data.lake import Lake
from pipelines.features.build import feature_table

CURRENT = "current"
MANIFEST = "export.json"


class ExportError(RuntimeError):
    """An export is absent, incomplete or cannot be made."""


@dataclasses.dataclass(frozen=True)
class Export:
    """One export: its id, its folder, and the Delta version of every lake table when it was made."""

    id: str
    folder: Path
    table_versions: dict[str, int]
    rows: dict[str, int]

    def path(self, view: str) -> Path:
        """The Parquet file of one view."""
        return self.folder / f"{view}.parquet"


def export(lake: Lake, layout: StateLayout, table_versions: Mapping[str, int] | None = None) -> str:
    """Write a version of every feature table as Parquet, point `exports/current` at it, return its id.

    Equal versions give the same id and are not written again. A reader of `current` sees the old export or the new
    one, never a mixture within one file.

    Args:
        table_versions: the version of every table, as an earlier export recorded it (default: the newest).
    Raises:
        ExportError: a feature table has not been built, or `table_versions` lacks one.
        LakeError: the lake does not answer, or a version is not there any more.
    """
    missing = [view for view in BUILDS if not lake.exists(feature_table(view))]
    if missing:
        raise ExportError(f"no feature table for {', '.join(missing)} in {lake.root}; run `flightdeck features build`")
    versions = lake.versions() if table_versions is None else dict(table_versions)
    if unknown := sorted(view for view in BUILDS if feature_table(view) not in versions):
        raise ExportError(f"the recorded table versions lack {', '.join(unknown)}; they were made by other definitions")
    exported = {view: versions[feature_table(view)] for view in BUILDS}
    # A lake that was deleted and built anew counts versions from 0 again: the tables' own ids tell them apart.
    identity = {view: [_table_id(lake, view), version] for view, version in exported.items()}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    export_id = f"x{sum(exported.values()):05d}-{digest}"
    folder = layout.exports / export_id
    if not (folder / MANIFEST).is_file():
        layout.exports.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".writing-", dir=layout.exports))
        try:
            rows = {}
            for view in BUILDS:
                table = lake.read(feature_table(view), version=exported[view])
                pq.write_table(table, scratch / f"{view}.parquet", compression="zstd")
                rows[view] = table.num_rows
            manifest = {"id": export_id, "table_versions": versions, "rows": rows}
            (scratch / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True))
            scratch.chmod(0o755)
            try:
                scratch.rename(folder)
            except OSError as error:
                # Another process may have made the same export meanwhile, with equal content.
                if not (folder / MANIFEST).is_file():
                    raise ExportError(f"{folder} cannot be made ({error}); delete it, then export again") from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    _point_current_at(folder, layout)
    return export_id


def ensure_export(lake: Lake, layout: StateLayout, table_versions: Mapping[str, int] | None = None) -> Export:
    """The export of the newest feature tables, or of recorded versions: made when the state folder lacks it.

    A step in a pod begins with an empty folder; one after another on one machine makes nothing twice.

    Raises:
        ExportError, LakeError: as for `export`.
    """
    return read_export(layout, export(lake, layout, table_versions))


def read_export(layout: StateLayout, export_id: str | None = None) -> Export:
    """The export called `export_id`, else the one that `exports/current` points to.

    Raises:
        ExportError: there is none, or it is incomplete.
    """
    folder = layout.exports / (export_id or CURRENT)
    folder = folder.resolve()  # `current` may move while we read: stay with what it is now
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise ExportError(f"{folder}: no export here; run `flightdeck features export`")
    content = json.loads(manifest.read_text())
    found = Export(content["id"], folder, content["table_versions"], content["rows"])
    lost = [view for view in found.rows if not found.path(view).is_file()]
    if lost:
        raise ExportError(f"{folder}: the files of {', '.join(lost)} are gone; delete the folder and export again")
    return found


def _table_id(lake: Lake, view: str) -> str:
    table = lake.snapshot(feature_table(view)).table
    if table is None:
        raise ExportError(f"{feature_table(view)} vanished from {lake.root} during the export; run it again")
    return str(table.metadata().id)


def _point_current_at(folder: Path, layout: StateLayout) -> None:
    """Swap the link in one rename, so that `current` always points somewhere."""
    link = layout.exports / f".current-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(layout.exports / CURRENT)
