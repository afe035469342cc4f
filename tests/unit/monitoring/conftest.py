"""A small world for the monitor: 120 days with a weekday rhythm, day-long luck, and a season in one feature."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from pipelines.monitoring.profile import Vectors
from pipelines.monitoring.watch import Watch, watch

NAMES = ("wind", "queue", "share", "season", "code", "blind")
VIEWS = {"wind": "sky", "queue": "yard", "share": "yard", "season": "sky", "code": "calendar", "blind": "calendar"}
FIRST = dt.date(2013, 1, 7).toordinal()  # a Monday
DAYS, ROWS = 120, 180


def rows_of(day: int, generator: np.random.Generator, rows: int = ROWS) -> Vectors:
    """One day of the world."""
    hour = np.sort(generator.integers(6, 22, rows))
    luck = generator.normal(size=3)
    values = np.column_stack(
        [
            generator.normal(10 + 2 * luck[0], 3, rows),
            generator.poisson(np.exp(1.5 + 0.2 * luck[1] + 0.05 * (hour - 12)), rows),
            generator.beta(2, 6, rows) * np.exp(0.2 * luck[2]),
            30 + 40 * (day - FIRST) / DAYS + generator.normal(0, 2, rows),
            generator.integers(0, 5, rows),
            np.full(rows, day - FIRST),
        ]
    )
    return Vectors(NAMES, values.astype(np.float32), np.full(rows, day), hour)


def joined(days: list[Vectors]) -> Vectors:
    """Several days as one."""
    return Vectors(
        NAMES, np.concatenate([item.values for item in days]), np.concatenate([item.day for item in days]),
        np.concatenate([item.hour for item in days]),
    )  # fmt: skip


@pytest.fixture(scope="session")
def training() -> list[Vectors]:
    generator = np.random.default_rng(3)
    return [rows_of(FIRST + day, generator) for day in range(DAYS)]


@pytest.fixture(scope="session")
def usual(training) -> Watch:
    return watch(joined(training), VIEWS, {"wind": 0.01, "queue": 0.04, "share": 0.02, "code": 0.0}, ignored=["blind"])
