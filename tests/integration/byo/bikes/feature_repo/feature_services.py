"""One versioned feature service per model."""

from feast import FeatureService

from feature_repo.views import VIEWS, clock

full_v1 = FeatureService(
    name="full_v1",
    features=[VIEWS["station_now"], VIEWS["station_week"], clock],
    description="No dock is free at the hour; half an hour before.",
)
