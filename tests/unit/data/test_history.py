"""A property: whatever is corrected later, what was known at a time stays as it was."""

import datetime as dt
import tempfile
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.data.ingest import ingest_day
from pipelines.data.lake import Lake

DAY = dt.date(2020, 1, 5)
START = dt.datetime(2020, 1, 6, tzinfo=dt.UTC)
BUSES = 3

deliveries = st.lists(
    st.tuples(st.integers(1, 60), st.tuples(*[st.integers(0, 2)] * BUSES)), min_size=1, max_size=5
)  # hours after the delivery before, and the riders of each bus


@settings(max_examples=25, deadline=None)
@given(deliveries)
def test_the_past_stays_as_it_was_known_and_the_present_is_the_last_delivery(buses_of, sequence):
    with tempfile.TemporaryDirectory() as folder:
        lake, now = Lake(Path(folder) / "lake"), START
        known: list[tuple[dt.datetime, list[int]]] = []
        for hours, riders in sequence:
            now += dt.timedelta(hours=hours)
            [result] = ingest_day(buses_of(riders), lake, Path(folder) / "quarantine", DAY, now_utc=now)
            changed = BUSES if not known else sum(a != b for a, b in zip(riders, known[-1][1], strict=True))
            assert result.written == changed
            known.append((now, list(riders)))
            for at, seen in known:
                rows = pl.from_arrow(lake.as_of("buses", at, ["bus", "day"])).sort("bus")
                assert rows["riders"].to_list() == seen, f"known at {at}"
