"""Types of requests and answers, and the one place that decodes a body."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from services.predictor.errors import ApiError, from_validation, shortened

FLOAT32_MAX = 3.4028234663852886e38
Row = TypeVar("Row")
_BYTE = re.compile(r"\(byte (\d+)\)$")
_NOT_FINITE = re.compile(rb"-?(?:NaN|Infinity)")


class ModelInfo(msgspec.Struct, frozen=True):
    """What answered."""

    name: str
    version: str
    sha256: str


class Prediction(msgspec.Struct, frozen=True):
    """The answer for one row of `/v1/predict`."""

    entity_id: str
    score: float
    decision: str | None
    degraded: list[str]


class PredictResponse(msgspec.Struct, frozen=True):
    """The answer of `/v1/predict`; `degraded` is true when any row is."""

    request_id: str
    model: ModelInfo | msgspec.Raw
    horizon_min: int
    degraded: bool
    predictions: list[Prediction]


class Score(msgspec.Struct, frozen=True):
    """The answer for one row of `/v1/score`."""

    score: float
    decision: str | None


class ScoreResponse(msgspec.Struct, frozen=True):
    """The answer of `/v1/score`."""

    request_id: str
    model: ModelInfo | msgspec.Raw
    predictions: list[Score]


class ErrorBody(msgspec.Struct, frozen=True):
    """What was wrong; `field` is a path into the request, e.g. `rows[3].name`."""

    code: str
    message: str
    field: str | None


class ErrorResponse(msgspec.Struct, frozen=True):
    """The answer of every refused request."""

    error: ErrorBody
    request_id: str


def body_type(row: type[Any], name: str, max_rows: int) -> type[Any]:
    """`{"rows": [row, ...]}` with 1 to `max_rows` rows and nothing else."""
    rows = Annotated[list[row], msgspec.Meta(min_length=1, max_length=max_rows)]  # type: ignore[valid-type]
    return msgspec.defstruct(name, [("rows", rows)], forbid_unknown_fields=True, frozen=True)


def score_row_type(features: Sequence[str]) -> tuple[type[Any], Callable[[Any], tuple[float | None, ...]]]:
    """A row with exactly these features, and a function that gives its vector in their order.

    A null is "not known" and gets the training median; a number must fit float32.
    """
    number = Annotated[float, msgspec.Meta(ge=-FLOAT32_MAX, le=FLOAT32_MAX)] | None
    fields = [f"f{at}" for at in range(len(features))]
    row = msgspec.defstruct(
        "ScoreRow",
        [(field, number) for field in fields],
        rename=dict(zip(fields, features, strict=True)),
        forbid_unknown_fields=True,
        frozen=True,
    )
    if len(fields) == 1:
        return row, lambda one: (getattr(one, fields[0]),)
    return row, operator.attrgetter(*fields)


class Decoder(Generic[Row]):
    """Decodes bodies of one type into their rows."""

    def __init__(self, body: type[Any]) -> None:
        self._decoder = msgspec.json.Decoder(body)

    def rows(self, content: bytes | bytearray) -> list[Row]:
        """The rows of a body.

        Raises:
            ApiError: 400 when it is not JSON, 422 when it breaks the schema; the message names the field.
        """
        try:
            return self._decoder.decode(content).rows
        except msgspec.ValidationError as error:
            raise from_validation(str(error)) from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            if refused := self._not_finite(content, str(error)):
                raise refused from None
            raise ApiError(400, "not_json", shortened(f"the body is not JSON: {error}")) from None
        except (RecursionError, OverflowError, ValueError) as error:
            raise ApiError(400, "not_json", shortened(f"the body cannot be read: {error}")) from None

    def _not_finite(self, content: bytes | bytearray, message: str) -> ApiError | None:
        """A refusal that names the field when the byte where decoding stopped belongs to NaN or Infinity.

        msgspec names no field for what is not JSON; with an array in the literal's place, a wrong type for every
        field, it does.
        """
        stopped = _BYTE.search(message)
        if stopped is None:
            return None
        at = int(stopped[1])
        at -= content[at - 1 : at] == b"-"
        literal = _NOT_FINITE.match(content, at)
        if literal is None:
            return None
        field = None
        try:
            self._decoder.decode(content[: literal.start()] + b"[]" + content[literal.end() :])
        except msgspec.ValidationError as error:
            field = from_validation(str(error)).field
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
        return ApiError(400, "not_json", f"{literal[0].decode()} is not JSON; numbers are finite", field)
