"""What a request head must be beyond what the parser checks.

llhttp, in its strict mode, refuses bare LF, folded lines, NUL, conflicting lengths and malformed
names and values. What is left is refused here, because two servers that read it differently are a
way to smuggle a request past one of them.
"""

from __future__ import annotations

import re

from headrace.edges.http.heads import Header

_TARGET = re.compile(
    # A path as RFC 3986 section 3.3 has it, but for ";", behind which some servers take parameters
    # off. No "#": a target has no fragment, and servers cut one off that see it. In a query clients
    # leave more unencoded, and nothing is decided by it.
    rb"/(?:[A-Za-z0-9._~!$&'()*+,=:@/-]|%[0-9A-Fa-f]{2})*(?:\?[!\"$-~]*)?"
)
_ODD_PATH = re.compile(
    # Unreserved characters (RFC 3986 section 2.3) mean the same encoded and plain, so that a path
    # has many spellings, and only one of them is looked for. Controls are in no name, and the
    # routes of some servers overlook a line end behind a path.
    rb"//|/\.{1,2}(?:/|$)"
    rb"|%(?:[01]|2[DEde]|3[0-9]|4[1-9A-Fa-f]|5[0-9AFaf]|6[1-9A-Fa-f]|7[0-9AEFaef])"
)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


MAX_TARGET_BYTES = 8192
"""Path and query. Engines have limits of their own and some just close the connection: llama.cpp
does at 8 KiB of header line."""


def fault_of(
    version: str, target: bytes, headers: list[Header], max_head_bytes: int
) -> tuple[int, str, str] | None:
    """Return (status, message, code) of the first fault of a request head, None if it has none."""
    fault = _fault_of_line(version, target)
    if fault is not None:
        return fault
    hosts = 0
    size = len(target)
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                return 400, "The Host field is not a host name with an optional port.", "bad_host"
        elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
            return 501, "The only transfer coding understood is 'chunked'.", "bad_encoding"
    if size > max_head_bytes:
        return 431, head_too_large(max_head_bytes), "head_too_large"
    if hosts > 1 or (not hosts and version == "1.1"):
        return 400, f"The request has {hosts} Host fields; it must have one.", "bad_host"
    return None


def _fault_of_line(version: str, target: bytes) -> tuple[int, str, str] | None:
    if version not in {"1.1", "1.0"}:
        return 505, f"HTTP/{version} is not spoken here; use HTTP/1.1.", "bad_version"
    if not target.startswith(b"/"):
        return 400, "The request target must be a path starting with '/'.", "bad_target"
    if len(target) > MAX_TARGET_BYTES:
        return 414, f"The request target is over {MAX_TARGET_BYTES} bytes.", "target_too_long"
    if not _TARGET.fullmatch(target):
        message = "The request target holds characters that must be percent-encoded, or a fragment."
        return 400, message, "bad_target"
    if _ODD_PATH.search(target.partition(b"?")[0]):
        message = "The path holds dot segments, empty ones, encoded plain letters or controls."
        return 400, message, "bad_target"
    return None


def head_too_large(max_head_bytes: int) -> str:
    """Say that a head is over its limit."""
    return f"The request head is over the limit of {max_head_bytes} bytes (limits.max_head)."
