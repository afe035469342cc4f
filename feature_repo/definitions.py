"""All that `feast apply` registers. Feast reads this module only (.feastignore): read twice, an object would be two.

A contract test compares the registry after apply with this file.
"""

from feature_repo.entities import carrier, dest, origin, plane
from feature_repo.feature_services import delay_v1, late_v1, late_v2
from feature_repo.sources import layout
from feature_repo.views import VIEWS, calendar, schedule

layout().root.mkdir(parents=True, exist_ok=True)  # SQLite makes the registry's file, but not its folder

carrier_history = VIEWS["carrier_history"]
route_history = VIEWS["route_history"]
plane_history = VIEWS["plane_history"]
weather = VIEWS["weather"]
congestion = VIEWS["congestion"]
overdue = VIEWS["overdue"]

__all__ = [
    "calendar",
    "carrier",
    "carrier_history",
    "congestion",
    "delay_v1",
    "dest",
    "late_v1",
    "late_v2",
    "origin",
    "overdue",
    "plane",
    "plane_history",
    "route_history",
    "schedule",
    "weather",
]
