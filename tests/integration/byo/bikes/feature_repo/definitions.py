"""All that `feast apply` registers."""

from feature_repo.entities import station
from feature_repo.feature_services import full_v1
from feature_repo.views import VIEWS, asked, clock

station_now = VIEWS["station_now"]
station_week = VIEWS["station_week"]

__all__ = ["asked", "clock", "full_v1", "station", "station_now", "station_week"]
