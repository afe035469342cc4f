"""What features are keyed by. The join keys equal the fields of a request (`request.entity_keys`)."""

from __future__ import annotations

from feast import Entity, ValueType

carrier = Entity(name="carrier", join_keys=["carrier"], value_type=ValueType.STRING, description="Airline, IATA code.")
origin = Entity(
    name="origin", join_keys=["origin"], value_type=ValueType.STRING, description="Airport of departure, IATA code."
)
dest = Entity(
    name="dest", join_keys=["dest"], value_type=ValueType.STRING, description="Airport of arrival, IATA code."
)
plane = Entity(
    name="plane", join_keys=["tailnum"], value_type=ValueType.STRING, description="Registration, or UNKNOWN."
)

ENTITIES = {item.join_key: item for item in (carrier, origin, dest, plane)}
