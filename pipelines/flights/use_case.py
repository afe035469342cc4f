"""The use case: will a flight from New York arrive late, asked two hours before it should leave?"""

from __future__ import annotations

import zoneinfo

from pipelines.flights import schema, source
from pipelines.flights.entities import entity_frame
from pipelines.flights.times import SOURCE_ZONE
from pipelines.use_case import SourceTable, UseCase

USE_CASE = UseCase(
    name="flights",
    tables=(
        SourceTable("planes", ("tailnum",), source.planes_of, schema.PLANES, static=True),
        SourceTable("weather", ("origin", "observed_hour_utc"), source.weather_of, schema.WEATHER),
        SourceTable("flights", ("flight_id",), source.flights_of, schema.FLIGHTS),
    ),
    first_day=source.FIRST_DAY,
    last_day=source.LAST_DAY,
    time_zone=zoneinfo.ZoneInfo(SOURCE_ZONE),
    entity_frame=entity_frame,
    sample=source.sample,
)
