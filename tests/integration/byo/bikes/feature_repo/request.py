"""The request of the predictor: one station and the hour asked for. Imports neither Feast nor pandas."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import msgspec

from feature_repo.rowwise import CLOCK_FEATURES, STATIONS, clock_features

ON_DEMAND_FEATURES = CLOCK_FEATURES


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Will there be a free dock at this station, at this full hour?"""

    station: Annotated[str, msgspec.Meta(pattern="^S[0-9]{2}$")]
    at_utc: Annotated[dt.datetime, msgspec.Meta(tz=True)]

    def __post_init__(self) -> None:
        if self.station not in STATIONS:
            raise ValueError(f"station: unknown station {self.station!r}")


EXAMPLE = Request(station="S07", at_utc=dt.datetime(2024, 4, 29, 8, tzinfo=dt.UTC))


def entity_id(request: Request) -> str:
    """As in the entity frame."""
    return f"{request.station}@{request.at_utc.astimezone(dt.UTC):%Y-%m-%dT%H}Z"


def entity_keys(request: Request) -> dict[str, str]:
    """Join keys of every stored feature view."""
    return {"station": request.station}


def on_demand(request: Request) -> dict[str, float]:
    """Features computed from the request alone."""
    return clock_features(request.at_utc)


def event_time_of(request: Request, horizon_min: int) -> dt.datetime:
    """When the hour is to be predicted."""
    return request.at_utc - dt.timedelta(minutes=horizon_min)
