"""The feature views: stored ones from the table of builds in transforms.py, and the on-demand calendar.

A view's `ttl` is enforced by Feast in point-in-time joins only; online, the predictor checks the event time itself
against the policy of the model spec.
"""

from __future__ import annotations

from typing import Any

from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, String, UnixTimestamp

from feature_repo.rowwise import CALENDAR_FEATURES
from feature_repo.sources import CURRENT, layout, stored_view
from feature_repo.transforms import BUILDS

VIEWS = {build.name: stored_view(build, layout().exports / CURRENT) for build in BUILDS.values()}

# Feast hands a request field to on-demand views only, never to a lookup, even when it is named like a join key: so what
# both need is passed twice, as the key `carrier` and as `request_carrier`.
REQUEST_PREFIX = "request_"
schedule = RequestSource(
    name="schedule",
    schema=[
        Field(name="request_carrier", dtype=String),
        Field(name="request_origin", dtype=String),
        Field(name="sched_dep_utc", dtype=UnixTimestamp),
    ],
)


@on_demand_feature_view(
    sources=[schedule],
    schema=[Field(name=name, dtype=Float32) for name in CALENDAR_FEATURES],
    mode="python",
    description="Local time of departure, weekday, season, holiday, codes of carrier and origin; from the request.",
)
def calendar(inputs: dict[str, Any]) -> dict[str, Any]:
    """Columns of `schedule` to columns of calendar features."""
    # Feast keeps this source text and runs it without the module around it: the imports belong inside.
    import numpy

    from feature_repo.rowwise import calendar_columns

    columns = calendar_columns(inputs["request_carrier"], inputs["request_origin"], inputs["sched_dep_utc"])
    return {name: [numpy.float32(value) for value in values] for name, values in columns.items()}
