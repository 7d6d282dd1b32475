"""How a stream that cannot go on tells its client: an error event, never a silent cut."""

from __future__ import annotations

import msgspec

from headrace.core.model import Endpoint
from headrace.edges.http.errors import anthropic_error, error_object


def error_event(endpoint: Endpoint, message: str, code: str) -> bytes:
    """Return the server-sent event that ends a broken stream, in its API's own shape."""
    error = error_object(502, message, code=code)
    if endpoint is Endpoint.MESSAGES:
        body = anthropic_error(502, message)
        return b"event: error\ndata: " + msgspec.json.encode(body) + b"\n\n"
    if endpoint is Endpoint.RESPONSES:
        body = {"type": "error", "code": code, "message": message, "param": None, "error": error}
        return b"event: error\ndata: " + msgspec.json.encode(body) + b"\n\n"
    return b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"
