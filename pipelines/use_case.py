"""The seam between the generic pipelines and one use case: everything a use case tells about its data.

The pipelines import no use case. They load the one that `FLIGHTDECK_USE_CASE` names (`package.module:ATTRIBUTE`).
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import os
import zoneinfo
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from pipelines.data.checks import TableRules
    from pipelines.data.lake import Lake

USE_CASE_ENV = "FLIGHTDECK_USE_CASE"
DEFAULT_USE_CASE = "pipelines.flights.use_case:USE_CASE"


@dataclasses.dataclass(frozen=True)
class SourceTable:
    """One table of the source, delivered day by day.

    Args:
        name: the lake table it becomes.
        key: columns that name a record; a second record of the same key is a correction.
        read_day: the day's records, empty when the source has none. Columns: those of `rules`, among them
            `day` (date), `event_time` and `ingested_at` (UTC, microseconds; when the source delivers the record).
        rules: what a day must satisfy to enter the lake.
        static: reference data: delivered whole, whichever day is asked for; `day` is the use case's first day.
    """

    name: str
    key: tuple[str, ...]
    read_day: Callable[[dt.date], pl.DataFrame]
    rules: TableRules
    static: bool = False


@dataclasses.dataclass(frozen=True)
class UseCase:
    """What the pipelines know of the data.

    Args:
        name: for titles and logs.
        tables: the source's tables, in the order of ingest.
        first_day, last_day: what the source has, inclusive, in `time_zone`.
        time_zone: in which the source counts its days.
        entity_frame: `(lake, from_utc, until_utc, known_by_utc)` -> the entities to predict whose `event_timestamp`
            (prediction time) lies in [from, until), with the labels that were known by then; columns `row_id` (int64,
            unique), `entity_id`, `event_timestamp`, the join keys, slice columns, `label_*` and `label_known_at_utc`.
        sample: a few days that are committed with the code, table -> rows as `read_day` gives them, so that CI can
            check them anywhere; None: there is none.
    """

    name: str
    tables: tuple[SourceTable, ...]
    first_day: dt.date
    last_day: dt.date
    time_zone: zoneinfo.ZoneInfo
    entity_frame: Callable[[Lake, dt.datetime, dt.datetime, dt.datetime], pl.DataFrame]
    sample: Callable[[], Mapping[str, pl.DataFrame]] | None = None

    def table(self, name: str) -> SourceTable:
        """The source table called `name`.

        Raises:
            KeyError: there is none.
        """
        for item in self.tables:
            if item.name == name:
                return item
        raise KeyError(f"{self.name} has no table {name!r}; it has: {', '.join(item.name for item in self.tables)}")

    def days(self, first: dt.date | None = None, last: dt.date | None = None) -> Iterator[dt.date]:
        """The source's days from `first` to `last`, both inclusive, within what the source has."""
        day = max(first or self.first_day, self.first_day)
        while day <= min(last or self.last_day, self.last_day):
            yield day
            day += dt.timedelta(days=1)

    def day_start_utc(self, day: dt.date) -> dt.datetime:
        """Midnight at the beginning of the local `day`, in UTC."""
        return dt.datetime.combine(day, dt.time(), self.time_zone).astimezone(dt.UTC)


def load_use_case(name: str | None = None) -> UseCase:
    """The use case called `name` (`package.module:ATTRIBUTE`), else the one in `FLIGHTDECK_USE_CASE`, else flights.

    Raises:
        ValueError: the name is not of that form, or names nothing that is a UseCase.
    """
    path = name or os.environ.get(USE_CASE_ENV) or DEFAULT_USE_CASE
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"{USE_CASE_ENV}={path!r} is not of the form package.module:ATTRIBUTE")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"{USE_CASE_ENV}={path!r} cannot be loaded: {error}") from error
    if not isinstance(found, UseCase):
        raise ValueError(f"{USE_CASE_ENV}={path!r} is a {type(found).__name__}, not a pipelines.use_case.UseCase")
    return found
