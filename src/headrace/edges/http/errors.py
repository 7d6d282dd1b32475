"""Errors of ours, in the shape OpenAI's clients understand."""

from __future__ import annotations

import msgspec

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
}


def error_object(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, object]:
    """Return `{"message", "type", "param", "code"}` for an HTTP status."""
    return {
        "message": message,
        "type": _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error"),
        "param": param,
        "code": code,
    }


def error_body(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> bytes:
    """Return the JSON body of an error answer: `{"error": {…}}`."""
    return msgspec.json.encode({"error": error_object(status, message, code=code, param=param)})
