"""What a request head must be beyond what the parser checks.

llhttp, in its strict mode, refuses bare LF, folded lines, NUL, conflicting lengths and malformed
names and values. What is left is refused here, because two servers that read it differently are a
way to smuggle a request past one of them.

Of blanks around the target llhttp takes several, as RFC 9112 section 3 allows, and does not tell
of them. The request line that goes on is written anew (`RequestNotes.forwarded`): no engine reads
what a client wrote there.
"""

from __future__ import annotations

import re

from headrace.edges.http.heads import Header, find
from headrace.edges.http.ports import ConnectionLimits, Refusal

_TARGET = re.compile(
    # A path as RFC 3986 section 3.3 has it, but for ";", behind which some servers take parameters
    # off. No "#": a target has no fragment, and servers cut one off that see it. In a query clients
    # leave more unencoded, and nothing is decided by it.
    rb"/(?:[A-Za-z0-9._~!$&'()*+,=:@/-]++|%[0-9A-Fa-f]{2})*+(?:\?[!\"$-~]*)?"
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

MAX_FRAMING_RATIO = 16
"""Bytes of a chunked body that frame each one of its content, beside `max_head_bytes` in all. A
chunk of one byte needs five; what is above that are extensions, which nobody uses."""


def fault_of(
    version: str, target: bytes, headers: list[Header], limits: ConnectionLimits
) -> Refusal | None:
    """Return what a request head is refused for, the first fault of it, or None."""
    if len(headers) > limits.max_headers:
        message = f"The request has over {limits.max_headers} header fields (limits.max_headers)."
        return Refusal(431, message, "too_many_headers")
    fault = _fault_of_line(version, target) or _fault_of_fields(version, target, headers, limits)
    if fault is not None:
        return fault
    length = find(headers, b"content-length")
    if length is not None and length.isdigit() and int(length) > limits.max_body_bytes:
        return body_too_large(limits)
    return None


def _fault_of_fields(
    version: str, target: bytes, headers: list[Header], limits: ConnectionLimits
) -> Refusal | None:
    hosts = 0
    size = len(target)
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"host":
            hosts += 1
            if not _HOST.fullmatch(value):
                message = "The Host field is not a host name with an optional port."
                return Refusal(400, message, "bad_host")
        elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
            message = "The only transfer coding understood is 'chunked'."
            return Refusal(501, message, "bad_encoding")
    if size > limits.max_head_bytes:
        return head_too_large(limits)
    if hosts > 1 or (not hosts and version == "1.1"):
        message = f"The request has {hosts} Host fields; it must have one."
        return Refusal(400, message, "bad_host")
    return None


def _fault_of_line(version: str, target: bytes) -> Refusal | None:
    if version not in {"1.1", "1.0"}:
        message = f"HTTP/{version} is not spoken here; use HTTP/1.1."
        return Refusal(505, message, "bad_version")
    if len(target) > MAX_TARGET_BYTES:
        message = f"The request target is over {MAX_TARGET_BYTES} bytes."
        return Refusal(414, message, "target_too_long")
    if not target.startswith(b"/"):
        message = "The request target must be a path starting with '/'."
    elif not _TARGET.fullmatch(target):
        message = "The request target holds characters that must be percent-encoded, or a fragment."
    elif _ODD_PATH.search(target.partition(b"?")[0]):
        message = "The path holds dot segments, empty ones, encoded plain letters or controls."
    else:
        return None
    return Refusal(400, message, "bad_target")


def head_too_large(limits: ConnectionLimits) -> Refusal:
    """Of a head over its limit, or of trailers."""
    limit = limits.max_head_bytes
    message = f"The request head is over the limit of {limit} bytes (limits.max_head)."
    return Refusal(431, message, "head_too_large")


def body_too_large(limits: ConnectionLimits) -> Refusal:
    """Of a body over its limit."""
    limit = limits.max_body_bytes
    message = f"The request body is over the limit of {limit} bytes (limits.max_body)."
    return Refusal(413, message, "body_too_large")


def framing_too_large(limits: ConnectionLimits) -> Refusal:
    """Of a chunked body that is extensions for the most part."""
    limit = limits.max_head_bytes
    message = f"Chunk sizes, extensions and trailers are over the limit of {limit} bytes"
    message += f" (limits.max_head) and {MAX_FRAMING_RATIO} for each byte of the body."
    return Refusal(413, message, "framing_too_large")
