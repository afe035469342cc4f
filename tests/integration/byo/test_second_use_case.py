"""Everything that knows flights lives in feature_repo/, pipelines/flights/ and the specs: bikes take their place.

The second use case's folder comes first on PYTHONPATH, FLIGHTDECK_USE_CASE names its source; nothing else changes.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from pipelines.data.lake import Lake
from pipelines.data.predictions import TABLE, drain

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("byo"), pytest.mark.timeout(600)]

REPOSITORY = Path(__file__).resolve().parents[3]
BIKES = Path(__file__).parent / "bikes"
KEPT = {"feature_repo.sources", "feature_repo.view_build"}  # the modules of feature_repo that know no use case
GENERIC = {"flightdeck", "pipelines", "services"}


def test_another_use_case_goes_from_source_to_promoted_version(made):
    assert made["use_case"] == "bikes"
    assert made["days"] == ["readings written", "stations written"]
    assert {"entity station", "feature service full_v1", "feature view station_now"} <= set(made["changes"])
    assert made["verdict"] == "PROMOTE", made["reason"]
    assert made["champion"]["name"] == "full"
    assert made["card_rows"] == 10 * 24 * 20, "ten days, every hour, every station"


def test_the_features_of_another_use_case_are_checked_for_the_future(made):
    assert set(made["looked_back"]) == {"station_now", "station_week"}
    assert all(rows >= 20 for rows in made["looked_back"].values())


def test_another_use_case_is_served_what_its_source_says(made):
    assert made["materialized"] == {"station_now": 20, "station_week": 20}
    assert made["compared"] == {"station_now": 80, "station_week": 40}
    assert not made["mismatches"]


def test_the_predictor_answers_another_use_case_as_the_model_did_offline(made, asked):
    status, body = asked.predicted
    assert status == 200, body
    assert not body["degraded"], body
    registered = {key: it for key, it in made["champion"].items() if key != "approval"}  # the operator's business
    assert (body["model"], body["horizon_min"]) == (registered, 30)
    served = {item["entity_id"]: item["score"] for item in body["predictions"]}
    assert served == pytest.approx(made["offline"], abs=1e-6)
    assert len({round(score, 3) for score in served.values()}) > 5, "the stations differ, so must the scores"


def test_the_predictor_checks_requests_by_the_schema_of_another_use_case(asked):
    status, body = asked.unknown_station
    assert (status, body["error"]["field"]) == (422, "rows[0].station")
    status, body = asked.flight
    assert (status, body["error"]["code"], body["error"]["field"]) == (422, "unknown_field", "rows[0].carrier")


def test_the_api_describes_another_use_case_and_no_flight(asked):
    status, api = asked.api
    assert status == 200
    assert set(api["components"]["schemas"]["Request"]["properties"]) == {"station", "at_utc"}
    posted = api["paths"]["/v1/predict"]["post"]
    shown = posted["requestBody"]["content"]["application/json"]["example"]["rows"]
    answered = posted["responses"]["200"]["content"]["application/json"]["example"]["predictions"]
    assert shown == [{"station": "S07", "at_utc": "2024-04-29T08:00:00Z"}]
    assert answered[0]["entity_id"] == "S07@2024-04-29T08Z"
    assert "flight" not in str(api).lower().replace("flightdeck", "")


def test_predictions_of_another_use_case_reach_its_lake(bikes, made, asked):
    lake = Lake(bikes.layout.lake)
    with bikes.streams() as streams:
        drained = drain(streams, lake, now=lambda: dt.datetime.now(dt.UTC), consumer="test")
    logged = {row["entity_id"] for row in lake.read(TABLE).to_pylist()}
    assert drained.written == len(made["offline"])
    assert logged == set(made["offline"])


def test_nothing_generic_was_replaced_and_nothing_of_flights_was_loaded(made, asked):
    modules = made["modules"] | asked.modules
    ours = {name: Path(file) for name, file in modules.items() if name.partition(".")[0] in GENERIC}
    assert ours and all(file.is_relative_to(REPOSITORY) and BIKES not in file.parents for file in ours.values())
    assert not [name for name in modules if name.startswith("pipelines.flights")]
    of_repository = {
        name
        for name, file in modules.items()
        if name.partition(".")[0] == "feature_repo" and not Path(file).is_relative_to(BIKES)
    }
    assert of_repository == KEPT
