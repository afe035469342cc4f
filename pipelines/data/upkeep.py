"""Nightly upkeep: merge small files, remove data that nothing needs any more, trim what the lake has taken over.

What is kept: the newest version of each table, every version of the last days, every version that a registered model
was made from. Old exports can be made again from those; the newest and `current` stay. So do runs that made a version.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flightdeck.contracts.layout import StateLayout
from flightdeck.contracts.prediction import PREDICTION_STREAM
from pipelines.data.draining import GROUP
from pipelines.data.lake import Lake

if TYPE_CHECKING:
    from pipelines.registry.mlflow_adapter import MlflowRegistry

KEEP_DAYS = 7
KEEP_RUNS_DAYS = 90
CURRENT = "current"


@dataclasses.dataclass(frozen=True)
class TableUpkeep:
    """One table: its data files before and after, files removed (in a dry run: to remove), the pinned versions."""

    table: str
    version: int
    files_before: int
    files_after: int
    removed: int
    pinned: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Upkeep:
    """All that one upkeep did, or would in a dry run: tables, ids of exports, counts of stream entries and runs."""

    tables: list[TableUpkeep]
    exports: list[str]
    trimmed: int
    mlflow_runs: int
    dagster_runs: int


class KeepsRuns(Protocol):
    """Whoever has runs that grow old: Dagster's client."""

    def trim(self, before: dt.datetime, *, dry_run: bool = False) -> int:
        """Remove the runs that ended before a time; returns how many."""


class CannotTell(RuntimeError):
    """It cannot be told what a registered model needs: nothing is removed."""


def tend(
    lake: Lake,
    layout: StateLayout,
    registry: MlflowRegistry,
    streams: Any,
    dagster: KeepsRuns | None = None,
    *,
    keep_days: int = KEEP_DAYS,
    keep_runs_days: int = KEEP_RUNS_DAYS,
    dry_run: bool = False,
) -> Upkeep:
    """The whole upkeep: tables, then exports, the prediction stream, and runs of MLflow and Dagster.

    Args:
        streams: a `redis.Redis` on the streams server; None leaves the stream out.
        dagster: None leaves its runs out.
    Raises:
        CannotTell, LakeError, RegistryUnavailable, redis.RedisError: see the parts; what was done is whole.
    """
    tables = tend_tables(lake, pinned_versions(registry), keep_days=keep_days, dry_run=dry_run)
    exports = prune_exports(layout, keep_days=keep_days, dry_run=dry_run)
    trimmed = 0 if streams is None else trim_stream(streams, dry_run=dry_run)
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=keep_runs_days)
    of_mlflow = registry.trim_runs(before, dry_run=dry_run)
    return Upkeep(tables, exports, trimmed, of_mlflow, dagster.trim(before, dry_run=dry_run) if dagster else 0)


def pinned_versions(registry: MlflowRegistry) -> dict[str, set[int]]:
    """Per table the versions that registered models were made from, by their cards.

    A version whose registration did not end (no verdict) can never serve and pins nothing.

    Raises:
        CannotTell: a card cannot be read.
        RegistryUnavailable: MLflow does not answer.
    """
    import tempfile

    from flightdeck.contracts.card import SignedCard
    from pipelines.registry.mlflow_adapter import RegistryRefused
    from pipelines.registry.versions import CARD_FILE

    made_from = []
    for item in registry.versions():
        if "verdict" not in dict(item.tags):
            continue
        with tempfile.TemporaryDirectory() as draft:
            try:
                card = registry.download(str(item.run_id), CARD_FILE, Path(draft)).read_text()
                made_from.append(SignedCard.model_validate_json(card).card.digests.table_versions)
            except (RegistryRefused, ValueError, OSError) as error:
                raise CannotTell(
                    f"what {item.name} v{item.version} was made from cannot be told ({error}); nothing was removed. "
                    "Delete that version in MLflow if its run is gone for good"
                ) from error
    return pins(made_from)


def pins(made_from: Iterable[Mapping[str, int]]) -> dict[str, set[int]]:
    """Per table the versions that appear."""
    found: dict[str, set[int]] = {}
    for versions in made_from:
        for table, version in versions.items():
            found.setdefault(table, set()).add(version)
    return found


def tend_tables(
    lake: Lake, pinned: Mapping[str, Iterable[int]], *, keep_days: int = KEEP_DAYS, dry_run: bool = False
) -> list[TableUpkeep]:
    """Compact each table, then remove the files that no kept version reads.

    Raises:
        LakeError: the store does not answer, or another writer was faster; what was done is whole, run it again.
    """
    done = []
    for table in lake.tables():
        kept, before = sorted(pinned.get(table, ())), lake.files(table)
        if not dry_run:
            lake.compact(table)
        removed = lake.vacuum(table, keep_versions=kept, keep_days=keep_days, dry_run=dry_run)
        done.append(TableUpkeep(table, lake.version(table), before, lake.files(table), removed, tuple(kept)))
    return done


def prune_exports(layout: StateLayout, *, keep_days: int = KEEP_DAYS, dry_run: bool = False) -> list[str]:
    """Remove exports that are older than `keep_days` and not `current`; returns their ids."""
    if not layout.exports.is_dir():
        return []
    link = layout.exports / CURRENT
    current = link.resolve().name if link.exists() else ""
    ages = {item.name: item.stat().st_mtime for item in layout.exports.iterdir() if item.is_dir() and item != link}
    old = outdated(ages, current, time.time() - keep_days * 86400)
    for name in [] if dry_run else old:
        shutil.rmtree(layout.exports / name)
    return old


def outdated(ages: Mapping[str, float], current: str, before: float) -> list[str]:
    """Names made before a time, but for the current one; sorted. Drafts of killed exports are names, too."""
    return sorted(name for name, made in ages.items() if made < before and name != current)


def trim_stream(redis: Any, *, dry_run: bool = False) -> int:
    """Remove entries of the prediction stream that the lake has: taken, and no longer pending. Returns how many.

    Raises:
        redis.RedisError: the server does not answer.
    """
    from redis.exceptions import ResponseError

    groups: Sequence[Mapping[str, Any]] = []
    with contextlib.suppress(ResponseError):  # no such stream yet
        groups = redis.xinfo_groups(PREDICTION_STREAM)
    taken = next((item["last-delivered-id"] for item in groups if _text(item["name"]) == GROUP), None)
    if taken is None:
        return 0
    oldest_pending = redis.xpending(PREDICTION_STREAM, GROUP)["min"]
    end = f"({_text(oldest_pending)}" if oldest_pending else _text(taken)
    entries = redis.xrange(PREDICTION_STREAM, "-", end)
    if entries and not dry_run:
        redis.xdel(PREDICTION_STREAM, *(key for key, _ in entries))
    return len(entries)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
