"""Cross-origin requests from browsers (the Fetch standard's CORS protocol). Off by default.

A page of another origin may then use the API with a key of its own; cookies play no part here,
so credentials are never allowed.
"""

from __future__ import annotations

from headrace.edges.http.heads import Header

MAX_AGE_S = 600
"""How long a browser may remember the answer to a preflight."""

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

    def preflight(self, origin: bytes | None, asked_headers: bytes | None) -> list[Header] | None:
        """Return what a preflight's answer adds to `headers_for`, None if this origin may not."""
        if not self.headers_for(origin):
            return None
        return [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", asked_headers or b"authorization, content-type"),
            (b"access-control-max-age", b"%d" % MAX_AGE_S),
        ]
