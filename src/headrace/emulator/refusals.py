"""What vLLM would not serve, in its words."""

from __future__ import annotations

import json

import msgspec

_MALFORMED = "Bad Request"
"""What vLLM calls a body that is not of the API's form; other faults are a `BadRequestError`."""
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


def malformed(body: bytes, error: Exception) -> Refused:
    """Of a body that could not be read, with this error.

    Where it is no JSON, vLLM says so in the words of Python's own parser.
    """
    try:
        json.loads(body)
    except json.JSONDecodeError as problem:
        found = {
            "type": "json_invalid",
            "loc": f"body.{problem.pos}",
            "msg": "JSON decode error",
            "input": _shown({}),
            "ctx": {"error": problem.msg},
        }
        return _invalid([found], param=found["loc"])
    except (ValueError, RecursionError):
        pass
    return Refused(f"1 validation error:\n  {error}", param="body", kind=_MALFORMED)


def missing(body: bytes, *fields: str) -> Refused:
    """Of a body that has none of these fields, any of which would do."""
    given = _shown(_decode_fields(body))
    found: list[dict[str, object]] = [
        {"type": "missing", "loc": f"body.{field}", "msg": "Field required", "input": given}
        for field in fields
    ]
    return _invalid(found, param=f"body.{fields[0]}")


def _invalid(found: list[dict[str, object]], *, param: object) -> Refused:
    errors = "error" if len(found) == 1 else "errors"
    lines = "".join(f"\n  {each}" for each in found)
    message = f"{len(found)} validation {errors}:{lines}"
    return Refused(message, param=str(param), kind=_MALFORMED)


def _shown(value: object) -> str:
    return f"<dict of {len(value)} items>" if isinstance(value, dict) else str(value)
