"""Decisions about days: which a run asks for, what the clock lets it know of them, which month is complete."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Sequence

from pipelines.use_case import UseCase

KEY = "%Y-%m-%d"


def parse(keys: Sequence[str]) -> list[dt.date]:
    """Partition keys as days, in order."""
    return sorted(dt.datetime.strptime(key, KEY).date() for key in keys)


def deliveries(
    use_case: UseCase, days: Sequence[dt.date], now_utc: dt.datetime
) -> list[tuple[dt.date, dt.date, dt.datetime | None]]:
    """How to ingest neighbouring days: (first, last, clock), as `ingest_days` takes them.

    One day is today's business: it is taken as the source has delivered it by now. Of several, those that must be
    complete by now are a backfill, in which the source's own delivery times count.
    """
    if len(days) == 1:
        return [(days[0], days[0], now_utc)]
    wait = max(table.rules.freshness.complete_after for table in use_case.tables)
    settled = [day for day in days if use_case.day_start_utc(day + dt.timedelta(days=1)) + wait <= now_utc]
    rest = days[len(settled) :]
    blocks: list[tuple[dt.date, dt.date, dt.datetime | None]] = []
    if settled:
        blocks.append((settled[0], settled[-1], None))
    if rest:
        blocks.append((rest[0], rest[-1], now_utc))
    return blocks


def span_utc(use_case: UseCase, days: Sequence[dt.date], now_utc: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
    """From the first day's midnight to the last one's, at most to now; empty (equal) when all lie ahead."""
    first = use_case.day_start_utc(days[0])
    last = use_case.day_start_utc(days[-1] + dt.timedelta(days=1))
    return first, max(first, min(last, now_utc))


def complete_months(use_case: UseCase, present: Collection[dt.date]) -> list[str]:
    """Months (`2013-06`) of which every day is there, within what the source has; oldest first."""
    wanted: dict[str, list[dt.date]] = {}
    for day in use_case.days():
        wanted.setdefault(f"{day:%Y-%m}", []).append(day)
    there = set(present)
    return [month for month, days in wanted.items() if there.issuperset(days)]


def month_end_utc(use_case: UseCase, month: str) -> dt.datetime:
    """Midnight after the last day of a month, in the source's zone, as UTC."""
    first = dt.datetime.strptime(f"{month}-01", KEY).date()
    return use_case.day_start_utc((first + dt.timedelta(days=32)).replace(day=1))
