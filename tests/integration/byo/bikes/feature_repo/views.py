"""The feature views: stored ones from the table of builds in transforms.py, and the on-demand clock."""

from typing import Any

from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, UnixTimestamp

from feature_repo.rowwise import CLOCK_FEATURES
from feature_repo.sources import CURRENT, layout, stored_view
from feature_repo.transforms import BUILDS

VIEWS = {build.name: stored_view(build, layout().exports / CURRENT) for build in BUILDS.values()}

asked = RequestSource(name="asked", schema=[Field(name="at_utc", dtype=UnixTimestamp)])


@on_demand_feature_view(
    sources=[asked],
    schema=[Field(name=name, dtype=Float32) for name in CLOCK_FEATURES],
    mode="python",
    description="Local hour and weekday of the hour asked for.",
)
def clock(inputs: dict[str, Any]) -> dict[str, Any]:
    """Columns of `asked` to columns of clock features; Feast keeps this text alone, so the imports belong inside."""
    import numpy

    from feature_repo.rowwise import clock_columns

    columns = clock_columns(inputs["at_utc"])
    return {name: [numpy.float32(value) for value in values] for name, values in columns.items()}
