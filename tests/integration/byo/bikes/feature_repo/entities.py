"""What features are keyed by."""

from feast import Entity, ValueType

station = Entity(name="station", join_keys=["station"], value_type=ValueType.STRING, description="A bike station.")

ENTITIES = {station.join_key: station}
