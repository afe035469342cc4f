"""The request of the predictor: one flight, as its schedule knows it two hours before departure.

Imports neither Feast nor pandas: the predictor's hot path decodes into `Request` and calls the functions below. It
knows this module by `Request`, `EXAMPLE`, `ON_DEMAND_FEATURES`, `entity_id`, `entity_keys`, `on_demand` and
`event_time_of` only: what another use case has to give (docs/bring-your-own.md).
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, TypeAlias

import msgspec

from feature_repo.airports import AIRPORTS
from feature_repo.rowwise import CALENDAR_FEATURES, ORIGINS, calendar_features, local_day

UNKNOWN_TAILNUM = "UNKNOWN"
ON_DEMAND_FEATURES = CALENDAR_FEATURES

_END = "(?!\\n)$"  # a bare `$` also matches before a last newline in Python, unlike in JSON Schema
_Carrier = Annotated[str, msgspec.Meta(pattern=f"^[A-Z0-9]{{2}}{_END}", description="IATA code, e.g. `UA`.")]
_Airport = Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$", description="IATA code, e.g. `EWR`.")]
_Flight = Annotated[int, msgspec.Meta(ge=1, le=9999, description="Flight number.")]
_Tailnum = Annotated[
    str,
    msgspec.Meta(pattern=f"^[A-Z0-9]{{2,7}}{_END}", description="Registration of the plane, null when not known yet."),
]
_Utc = Annotated[
    dt.datetime, msgspec.Meta(tz=True, description="Scheduled departure, RFC 3339 with an offset, e.g. `Z`.")
]

_EARLIEST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_LATEST = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


class FlightRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One flight to predict. A value outside the rules raises `msgspec.ValidationError`, which names the field."""

    carrier: _Carrier
    flight: _Flight
    origin: _Airport
    dest: _Airport
    sched_dep_utc: _Utc
    tailnum: _Tailnum | None = None

    def __post_init__(self) -> None:
        if self.origin not in ORIGINS:
            raise ValueError(
                f"origin: unknown airport {self.origin!r}; flights are predicted from {', '.join(ORIGINS)}"
            )
        if self.dest not in AIRPORTS:
            raise ValueError(f"dest: unknown airport {self.dest!r}")
        if not _EARLIEST <= self.sched_dep_utc < _LATEST:
            raise ValueError(f"sched_dep_utc: {self.sched_dep_utc.isoformat()} lies outside the years 2000 to 2099")


Request: TypeAlias = FlightRequest

EXAMPLE = FlightRequest(
    carrier="UA",
    flight=1545,
    origin="EWR",
    dest="IAH",
    sched_dep_utc=dt.datetime(2013, 7, 4, 21, 15, tzinfo=dt.UTC),
    tailnum="N14228",
)  # shown in the API's description


def entity_id(request: FlightRequest) -> str:
    """The flight's id, equal to `flight_id` in the lake: local day, carrier, number and origin."""
    return f"{local_day(request.sched_dep_utc)}-{request.carrier}{request.flight}-{request.origin}"


def entity_keys(request: FlightRequest) -> dict[str, str]:
    """Join keys of every stored feature view."""
    return {
        "carrier": request.carrier,
        "origin": request.origin,
        "dest": request.dest,
        "tailnum": request.tailnum or UNKNOWN_TAILNUM,
    }


def on_demand(request: FlightRequest) -> dict[str, float]:
    """Features computed from the request alone, named as in the on-demand feature view `calendar`."""
    return calendar_features(request.carrier, request.origin, request.sched_dep_utc)


def event_time_of(request: FlightRequest, horizon_min: int) -> dt.datetime:
    """When the flight is to be predicted: `horizon_min` minutes before its scheduled departure."""
    return request.sched_dep_utc - dt.timedelta(minutes=horizon_min)
