"""Served features against a recomputation: what the online store answers must equal what the lake's sources give.

The recomputation starts from the source tables, not from the export that was materialized: it also finds an export or
a push that went wrong.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from redis.exceptions import RedisError

from feature_repo.transforms import BUILDS
from feature_repo.view_build import ViewBuild
from pipelines.data.lake import Lake
from pipelines.features.build import build_view, read_source
from pipelines.features.materialize import unavailable
from pipelines.features.registry import RegistryError
from pipelines.use_case import UseCase

if TYPE_CHECKING:
    from feast import FeatureStore

TIME = "event_timestamp"


@dataclasses.dataclass(frozen=True)
class Mismatch:
    """One served value that differs from its recomputation."""

    view: str
    feature: str
    entity: str
    served: str
    recomputed: str


@dataclasses.dataclass(frozen=True)
class CheckResult:
    """What was compared, and every difference."""

    compared: dict[str, int]
    mismatches: list[Mismatch]

    @property
    def equal(self) -> bool:
        """Whether something was compared and nothing differs: no comparison is never a pass."""
        return not self.mismatches and sum(self.compared.values()) > 0


def check(
    use_case: UseCase,
    lake: Lake,
    store: FeatureStore,
    at_utc: dt.datetime,
    *,
    views: Sequence[str] | None = None,
    sample: int = 200,
    seed: int = 0,
) -> CheckResult:
    """Compare what the online store answers with a recomputation from the lake as of `at_utc`.

    Args:
        use_case, lake: where the sources are.
        store: an open store with the online store to check.
        at_utc: until when the online store was brought up to date.
        views: only these.
        sample: at most so many keys per view, chosen by `seed`.
        seed: of the sample.
    Raises:
        ValueError: no such view.
        RegistryError: a view is not registered.
        OnlineStoreUnavailable: the store does not answer.
    """
    compared: dict[str, int] = {}
    mismatches: list[Mismatch] = []
    for name in views or list(BUILDS):
        if name not in BUILDS:
            raise ValueError(f"no view {name!r} to check; there are: {', '.join(BUILDS)}")
        build = BUILDS[name]
        expected = expected_rows(use_case, lake, build, at_utc)
        if expected.height > sample:
            expected = expected.sample(sample, seed=seed)
        keys = expected.select(build.keys).to_dicts()
        served = online_rows(store, build, keys)
        mismatches += compare(build, expected.to_dicts(), served)
        compared[name] = expected.height * len(build.features)
    return CheckResult(compared, mismatches)


def expected_rows(use_case: UseCase, lake: Lake, build: ViewBuild, at_utc: dt.datetime) -> pl.DataFrame:
    """Per key the row that should be served at `at_utc`, recomputed from the sources."""
    since = at_utc - build.ttl
    tables = {
        table: read_source(use_case, lake, table, build, from_utc=since, until_utc=at_utc) for table in build.tables
    }
    rows = pl.from_arrow(build_view(build, tables, since, at_utc))
    assert isinstance(rows, pl.DataFrame)
    return rows.sort(TIME).unique(build.keys, keep="last", maintain_order=True).sort(build.keys)


def online_rows(
    store: FeatureStore, build: ViewBuild, keys: Sequence[Mapping[str, str]]
) -> list[dict[str, tuple[float | None, dt.datetime | None]]]:
    """Per key the served value and event time of every feature, through Feast's `get_online_features`.

    Raises:
        RegistryError: the view is not registered.
        OnlineStoreUnavailable: the store does not answer.
    """
    from feast.errors import FeatureViewNotFoundException

    if not keys:
        return []
    try:
        answer = store.get_online_features(
            features=[f"{build.name}:{name}" for name in build.features], entity_rows=[dict(key) for key in keys]
        ).to_dict(include_event_timestamps=True)
    except FeatureViewNotFoundException as error:
        raise RegistryError(f"{error}; run `flightdeck features apply`") from error
    except RedisError as error:
        raise unavailable(store, error) from error
    return [
        {name: (answer[name][row], _time(answer[f"{name}__ts"][row])) for name in build.features}
        for row in range(len(keys))
    ]


def compare(
    build: ViewBuild,
    expected: Iterable[Mapping[str, Any]],
    served: Iterable[Mapping[str, tuple[float | None, dt.datetime | None]]],
) -> list[Mismatch]:
    """Every value or event time that differs; values as float32, bit for bit."""
    found = []
    for row, answer in zip(expected, served, strict=True):
        entity = ", ".join(f"{key}={row[key]}" for key in build.keys)
        for name in build.features:
            value, at = answer[name]
            wanted = row[name]
            same_value = (value is None) == (wanted is None) and (
                value is None or np.float32(value) == np.float32(wanted)
            )
            if not same_value or at != row[TIME]:
                found.append(Mismatch(build.name, name, entity, f"{value} at {at}", f"{wanted} at {row[TIME]}"))
    return found


def _time(seconds: float | None) -> dt.datetime | None:
    return dt.datetime.fromtimestamp(seconds, dt.UTC) if seconds else None
