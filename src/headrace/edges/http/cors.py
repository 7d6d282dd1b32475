"""Cross-origin requests from browsers (the Fetch standard's CORS protocol). Off by default.

A page of another origin may then use the API with a key of its own; cookies play no part here,
so credentials are never allowed.
"""

from __future__ import annotations

from headrace.edges.http.errors import error_body
from headrace.edges.http.heads import Header, find
from headrace.edges.http.ports import RequestHead

MAX_AGE_S = 600
"""How long a browser may remember the answer to a preflight."""

_JSON = (b"content-type", b"application/json")
_METHODS = b"GET, POST, PUT, PATCH, DELETE"
_EXPOSED = b"x-request-id, x-headrace-request-id, x-headrace-replica, retry-after"


class CorsPolicy:
    """Which origins may read answers: exact origins, or "*" for all."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.encode("ascii") for origin in origins)

    def headers_for(self, origin: bytes | None) -> list[Header]:
        """Return the fields to add to an answer; none for other origins, which is a refusal."""
        if origin is None or not (self._any or origin in self._origins):
            return []
        return [
            (b"access-control-allow-origin", b"*" if self._any else origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"origin"),
        ]

    def preflight(self, head: RequestHead) -> tuple[int, list[Header], bytes]:
        """Answer one: status, what is added to `headers_for`, and body."""
        if not self.headers_for(find(head.headers, b"origin")):
            message = "This origin may not use the API (listen.cors_origins)."
            return 403, [_JSON], error_body(403, message, code="cors_refused")
        asked = find(head.headers, b"access-control-request-headers")
        fields = [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", asked or b"authorization, content-type"),
            (b"access-control-max-age", b"%d" % MAX_AGE_S),
        ]
        return 204, fields, b""


def is_preflight(head: RequestHead) -> bool:
    """Whether a browser asks what a page may send. It sends neither a key nor a body with that."""
    headers = head.headers
    return (
        head.method == b"OPTIONS"
        and find(headers, b"access-control-request-method") is not None
        and find(headers, b"content-length") in {None, b"0"}
        and find(headers, b"transfer-encoding") is None
    )
