"""Errors of ours, in the shape that an API's clients understand: Anthropic's on its own paths,
OpenAI's everywhere else.
"""

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
_ANTHROPIC = b"/v1/messages"
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
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


def anthropic_error(status: int, message: str) -> dict[str, object]:
    """Return `{"type": "error", "error": {"type", "message"}}` for an HTTP status."""
    kind = _ANTHROPIC_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}}


def error_body(
    status: int,
    message: str,
    *,
    path: bytes = b"",
    code: str | None = None,
    param: str | None = None,
) -> bytes:
    """Return the JSON body of an error answer to a request for `path`."""
    if path == _ANTHROPIC or path.startswith(_ANTHROPIC + b"/"):
        return msgspec.json.encode(anthropic_error(status, message))
    return msgspec.json.encode({"error": error_object(status, message, code=code, param=param)})
