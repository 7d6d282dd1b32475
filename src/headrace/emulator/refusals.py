"""What vLLM would not serve, in its words."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec

_MALFORMED = "Bad Request"
"""What vLLM calls a body that is not of the API's form; other faults are a `BadRequestError`."""
_WRONG_TYPE = re.compile(r"Expected `(?P<wanted>\w+)[^`]*`, got .* - at `\$\.(?P<field>\w+)`$")
"""What msgspec says of a field of the wrong type, one of the body's own."""
_ANY_FORM = ("dict", "dictionary", "")
_FORMS = {
    "int": ("int", "integer", "unable to parse string as an integer"),
    "float": ("float", "number", "unable to parse string as a number"),
    "bool": ("bool", "boolean", "unable to interpret input"),
    "str": ("string", "string", ""),
    "array": ("list", "list", ""),
}
"""Of a type as msgspec names it: its name and noun in pydantic, what it says of a text instead."""
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Refused(Exception):
    """A request vLLM would not serve; answered in its shape."""

    def __init__(self, message: str, *, param: str | None, status: int = 400, kind: str) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.status = status
        self.kind = kind

    def body(self) -> bytes:
        """Return the JSON body of the answer."""
        error = {
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.status,
        }
        return msgspec.json.encode({"error": error})

    def message_body(self) -> bytes:
        """The same on Anthropic's paths, where vLLM says what it has understood and refuses in that
        API's shape, by the names of its own; what is not of the API's form it refuses before.
        """
        if self.kind == _MALFORMED:
            return self.body()
        error = {"type": self.kind, "message": self.message}
        return msgspec.json.encode({"type": "error", "error": error})


def malformed(body: bytes, error: Exception) -> Refused:
    """Of a body that could not be read, with this error.

    Where it is no JSON, vLLM says so in the words of Python's own parser.
    """
    try:
        json.loads(body)
    except json.JSONDecodeError as problem:
        found: dict[str, object] = {
            "type": "json_invalid",
            "loc": f"body.{problem.pos}",
            "msg": "JSON decode error",
            "input": _shown({}),
            "ctx": {"error": problem.msg},
        }
        return _invalid([found], param=found["loc"])
    except (ValueError, RecursionError):  # no UTF-8, or nested too deep
        return Refused("There was an error parsing the body", param=None, kind=_MALFORMED)
    return _wrong_type(body, error)


def _wrong_type(body: bytes, error: Exception) -> Refused:
    """Of JSON in which a field is not what it should be, in pydantic's words."""
    told = _WRONG_TYPE.match(str(error))
    given: Any = json.loads(body)
    if told is not None and isinstance(given, dict) and told["field"] in given:
        value: object = given[told["field"]]
        form, noun, unread = _FORMS.get(told["wanted"], _ANY_FORM)
        parsed = bool(unread) and isinstance(value, str)
        words = f"Input should be a valid {noun}"
        found: dict[str, object] = {
            "type": f"{form}_parsing" if parsed else f"{form}_type",
            "loc": f"body.{told['field']}",
            "msg": f"{words}, {unread}" if parsed else words,
            "input": _shown(value),
        }
        return _invalid([found], param=found["loc"])
    return Refused(f"1 validation error:\n  {error}", param="body", kind=_MALFORMED)


def missing(body: bytes, *fields: str) -> Refused:
    """Of a body that has none of these fields, any of which would do."""
    given = _shown(_decode_fields(body))
    found: list[dict[str, object]] = [
        {"type": "missing", "loc": f"body.{field}", "msg": "Field required", "input": given}
        for field in fields
    ]
    return _invalid(found, param=f"body.{fields[0]}")


def not_positive(field: str, value: int) -> Refused:
    """Of a number of Anthropic's API that must be above 0."""
    words = f"{field} must be positive"
    found: dict[str, object] = {
        "type": "value_error",
        "loc": f"body.{field}",
        "msg": f"Value error, {words}",
        "input": _shown(value),
        "ctx": {"error": ValueError(words)},
    }
    return _invalid([found], param=found["loc"])


def _invalid(found: list[dict[str, object]], *, param: object) -> Refused:
    errors = "error" if len(found) == 1 else "errors"
    lines = "".join(f"\n  {each}" for each in found)
    message = f"{len(found)} validation {errors}:{lines}"
    return Refused(message, param=str(param), kind=_MALFORMED)


def _shown(value: object) -> str:
    return f"<dict of {len(value)} items>" if isinstance(value, dict) else str(value)
