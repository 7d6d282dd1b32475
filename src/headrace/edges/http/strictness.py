"""What a request head must be beyond what the parser checks.

llhttp, in its strict mode, refuses bare LF, folded lines, NUL, conflicting lengths and malformed
names and values. What is left is refused here, because two servers that read it differently are a
way to smuggle a request past one of them.
"""

from __future__ import annotations

import re

from headrace.edges.http.heads import Header

_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


def fault_of(version: str, target: bytes, headers: list[Header]) -> tuple[int, str, str] | None:
    """Return (status, message, code) of the first fault of a request head, None if it has none."""
    if version not in {"1.1", "1.0"}:
        return 505, f"HTTP/{version} is not spoken here; use HTTP/1.1.", "bad_version"
    if not target.startswith(b"/"):
        return 400, "The request target must be a path starting with '/'.", "bad_target"
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                return 400, "The Host field is not a host name with an optional port.", "bad_host"
        elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
            return 501, "The only transfer coding understood is 'chunked'.", "bad_encoding"
    if hosts > 1 or (not hosts and version == "1.1"):
        return 400, f"The request has {hosts} Host fields; it must have one.", "bad_host"
    return None
