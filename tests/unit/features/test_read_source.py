import datetime as dt

import polars as pl

from feature_repo.transforms import BUILDS
from pipelines.data.lake import Lake
from pipelines.features.build import read_source
from pipelines.use_case import load_use_case


def test_east_of_greenwich_the_next_local_day_has_begun_and_is_read(tmp_path):
    """At 23:30 UTC it is the next day in Berlin; what is known of it by then belongs to the build."""
    lake = Lake(tmp_path)
    until = dt.datetime(2013, 5, 20, 23, 30, tzinfo=dt.UTC)
    days = [until.date() + dt.timedelta(days=offset) for offset in (-30, 0, 1, 3)]
    lake.append("weather", pl.DataFrame({"origin": ["EWR"] * 4, "day": days}), partition_by=["day"])
    rows = read_source(load_use_case(), lake, "weather", BUILDS["weather"], from_utc=until, until_utc=until)
    assert sorted(rows["day"].to_pylist()) == days[1:3]
