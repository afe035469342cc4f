"""What a caller did wrong, in words that stay: `code` for programs, `message` for people, `field` to find the place."""

from __future__ import annotations

import dataclasses
import re

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>.*)`)?$", re.DOTALL)
_NAMED = re.compile(r"`([^`]*)`")
_SELF_NAMED = re.compile(r"^([A-Za-z_][A-Za-z0-9_]{0,63}): (.*)$", re.DOTALL)
_LONGEST = 300  # a message may quote the body: never echo a megabyte


@dataclasses.dataclass(frozen=True)
class ApiError(Exception):
    """One refused request: the HTTP status and the body under `error`."""

    status: int
    code: str
    message: str
    field: str | None = None


def shortened(text: str, longest: int = _LONGEST) -> str:
    """`text` cut to `longest` characters, with a sign that it was cut."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def from_validation(message: str) -> ApiError:
    """Translate msgspec's words into the stable error body.

    msgspec says what it expected and where (``Expected `int`, got `str` - at `$.rows[0].number` ``); an unknown or
    missing field is named in the text and not in the path, so it is appended. Rules of the row's own type begin with
    `field: `.
    """
    match = _AT.match(message)
    what, path = (match["what"], match["path"]) if match else (message, None)
    field = (path or "$").removeprefix("$").removeprefix(".")
    if what.startswith("Object contains unknown field"):
        code, field = "unknown_field", _joined(field, what)
    elif what.startswith("Object missing required field"):
        code, field = "missing_field", _joined(field, what)
    elif re.match(r"Expected `[^`]*`, got `", what):
        code = "wrong_type"
    elif what.startswith("Expected"):
        code = "out_of_range"
    else:
        code = "invalid_value"
        if own := _SELF_NAMED.match(what):
            field, what = (f"{field}.{own[1]}" if field else own[1]), own[2]
    return ApiError(422, code, shortened(what), shortened(field, 200) or None)


def _joined(path: str, what: str) -> str:
    named = _NAMED.search(what)
    name = named[1] if named else what
    return f"{path}.{name}" if path else name
