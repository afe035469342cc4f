from __future__ import annotations

import msgspec
import pytest

from feature_repo.request import FlightRequest
from services.predictor import schema
from services.predictor.errors import ApiError, from_validation

FLIGHT = (
    '{"carrier":"UA","flight":1545,"origin":"EWR","dest":"IAH",'
    '"sched_dep_utc":"2013-07-04T21:15:00Z","tailnum":"N14228"}'
)
DECODER: schema.Decoder[FlightRequest] = schema.Decoder(schema.body_type(FlightRequest, "Body", 3))


def refused(body: str) -> ApiError:
    with pytest.raises(ApiError) as caught:
        DECODER.rows(body.encode())
    return caught.value


def rows(*each: str) -> str:
    return '{"rows":[' + ",".join(each) + "]}"


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        (rows(FLIGHT.replace('"UA"', "7")), "wrong_type", "rows[0].carrier"),
        (rows(FLIGHT, FLIGHT.replace("1545", '"1545"')), "wrong_type", "rows[1].flight"),
        (rows(FLIGHT.replace("1545", "0")), "out_of_range", "rows[0].flight"),
        (rows(FLIGHT.replace("1545", "1e3")), "wrong_type", "rows[0].flight"),
        (rows(FLIGHT.replace('"EWR"', '"XXX"')), "invalid_value", "rows[0].origin"),
        (rows(FLIGHT.replace('"IAH"', '"QQQ"')), "invalid_value", "rows[0].dest"),
        (rows(FLIGHT.replace('"IAH"', '"iah"')), "out_of_range", "rows[0].dest"),
        (rows(FLIGHT.replace('"UA"', '"UA\\n"')), "out_of_range", "rows[0].carrier"),
        (rows(FLIGHT.replace("N14228", "N1422\\n")), "out_of_range", "rows[0].tailnum"),
        (rows(FLIGHT.replace('"carrier":"UA",', "")), "missing_field", "rows[0].carrier"),
        (rows(FLIGHT.replace("{", '{"gate":"A1",')), "unknown_field", "rows[0].gate"),
        (rows(FLIGHT.replace("15:00Z", "15:00")), None, "rows[0].sched_dep_utc"),
        (rows(FLIGHT.replace("2013-07-04", "2013-13-04")), None, "rows[0].sched_dep_utc"),
        (rows(FLIGHT.replace("2013", "1913")), "invalid_value", "rows[0].sched_dep_utc"),
        (rows(), "out_of_range", "rows"),
        (rows(*[FLIGHT] * 4), "out_of_range", "rows"),
        (rows("[[[[[]]]]]"), "wrong_type", "rows[0]"),
        ('{"rows":null}', "wrong_type", "rows"),
        ("{}", "missing_field", "rows"),
        ('{"rows":[],"debug":true}', None, None),
        ("[]", "wrong_type", None),
    ],
)
def test_a_body_that_breaks_the_schema_is_refused_with_the_fields_name(body, code, field):
    error = refused(body)
    assert error.status == 422
    assert code is None or error.code == code
    assert field is None or error.field == field


@pytest.mark.parametrize("body", ["", "{", "nul", '{"rows":[NaN]}', '{"rows":[Infinity]}', "[" * 100_000])
def test_what_is_not_json_is_refused_as_such(body):
    error = refused(body)
    assert error.status in (400, 422)
    assert error.code in ("not_json", "wrong_type")


@pytest.mark.parametrize("literal", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        (rows(FLIGHT, FLIGHT.replace("1545", "?")), "rows[1].flight"),
        (rows(FLIGHT.replace('"UA"', "?")), "rows[0].carrier"),
        (rows("?"), "rows[0]"),
        ('{"rows":?}', "rows"),
        ('{"gate":"NaN","rows":[?]}', None),  # refused for another reason first
        ("?", None),
    ],
)
def test_a_literal_that_is_no_json_number_is_refused_with_the_fields_name(literal, body, field):
    error = refused(body.replace("?", literal))
    assert error.status in (400, 422)
    if field is not None:
        assert (error.code, error.field) == ("not_json", field)
        assert literal in error.message


@pytest.mark.parametrize("body", [b"\xff\xfe{}", b'{"rows":["\xff"]}', b"\x00", b'{"\xc3\x28":1}'])
def test_bytes_that_are_not_utf8_are_refused_as_not_json(body):
    with pytest.raises(ApiError) as caught:
        DECODER.rows(body)
    assert caught.value.status in (400, 422)


def test_a_message_never_echoes_a_long_body():
    error = refused('{"' + "x" * 100_000 + '":1,"rows":[]}')
    assert len(error.message) <= 300
    assert error.field is not None
    assert len(error.field) <= 200


def test_words_that_msgspec_may_choose_tomorrow_still_make_a_422():
    assert from_validation("Something new").status == 422


def test_a_score_row_takes_exactly_the_models_features():
    row, vector = schema.score_row_type(["a", "class", "b c"])
    decoder: schema.Decoder[object] = schema.Decoder(schema.body_type(row, "Body", 3))
    assert [vector(one) for one in decoder.rows(b'{"rows":[{"b c":3,"a":1,"class":null}]}')] == [(1.0, None, 3.0)]
    for bad in (b'{"rows":[{"a":1}]}', b'{"rows":[{"a":1,"class":1,"b c":1e39}]}', b'{"rows":[{"a":true}]}'):
        with pytest.raises(ApiError):
            decoder.rows(bad)


def test_a_single_feature_still_makes_a_vector():
    row, vector = schema.score_row_type(["a"])
    assert vector(msgspec.convert({"a": 2.0}, row)) == (2.0,)
