"""One versioned feature service per model. A change of what a model sees is a new service, never an edit of an old one.

Named feature_services.py because a module `services` would be shadowed by the package of that name.
"""

from __future__ import annotations

from feast import FeatureService

from feature_repo.views import VIEWS, calendar

late_v1 = FeatureService(
    name="late_v1",
    features=[
        VIEWS["carrier_history"],
        VIEWS["route_history"],
        VIEWS["plane_history"],
        VIEWS["weather"],
        VIEWS["congestion"],
        calendar,
    ],
    description="Arrives 15 minutes late or more, is cancelled or diverted; two hours before departure.",
)
late_v2 = FeatureService(
    name="late_v2",
    features=[
        VIEWS["carrier_history"],
        VIEWS["route_history"],
        VIEWS["plane_history"],
        VIEWS["weather"],
        VIEWS["congestion"],
        VIEWS["overdue"],
        calendar,
    ],
    description="As late_v1, and the flights that should have left and have not.",
)
delay_v1 = FeatureService(
    name="delay_v1",
    features=[
        VIEWS["carrier_history"],
        VIEWS["route_history"],
        VIEWS["plane_history"],
        VIEWS["weather"],
        VIEWS["congestion"],
        calendar,
    ],
    description="Departure delay in minutes, two hours before departure.",
)
SERVICES = {service.name: service for service in (late_v1, late_v2, delay_v1)}
