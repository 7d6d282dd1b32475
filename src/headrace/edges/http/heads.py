"""Header fields: what may pass, and how a head is written.

Heads are always written anew from parsed fields, never copied as bytes, so what one side
smuggles past its parser does not reach the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Final

Header = tuple[bytes, bytes]
"""Name in lower case, value without surrounding white space."""

HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
"""RFC 9110 section 7.6.1 and the two that browsers and Java clients add."""

NOT_FORWARDED: Final = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    # The client's credentials are for the gateway alone,
    b"authorization",
    b"x-api-key",
    b"api-key",
    b"cookie",
    # and the account that they belong to is not the one whose key goes on.
    b"openai-organization",
    b"openai-project",
    # What proxies before us say is said to us; those behind us would act on it: lead to https,
    # admit an address, take another path or method.
    b"forwarded",
    b"x-real-ip",
    b"x-rewrite-url",
    b"x-http-method",
    b"x-http-method-override",
    b"x-method-override",
    # Usage must be readable in the answer.
    b"accept-encoding",
    # Replaced by our own, unique id: engines use it as the id of the request.
    b"x-request-id",
    # A gateway behind this one has tiers of its own.
    b"x-headrace-tier",
}
"""Request fields that stay at the gateway."""

_OF_PROXIES = (b"x-forwarded-", b"x-original-", b"x-envoy-")
"""How other fields begin that proxies send to each other."""

NOT_RETURNED: Final = HOP_BY_HOP | {
    b"content-length",
    b"x-request-id",
    # A gateway behind this one has set them too.
    b"x-headrace-request-id",
    b"x-headrace-replica",
    # Who may read an answer is decided here.
    b"access-control-allow-origin",
    b"access-control-allow-credentials",
    b"access-control-expose-headers",
    # What an engine, or a proxy before it, says of its own host would hold for the gateway's;
    b"alt-svc",
    b"strict-transport-security",
    # and its cookies would never come back to it.
    b"set-cookie",
}
"""Answer fields that are ours to set, or go no further than to us."""

BODILESS: Final = frozenset((204, 304))
"""Statuses whose answer has no body, whatever its head says."""
_KEPT_LENGTHS: Final = 8192
"""Shorter bodies have their length written out once, which takes half a megabyte at most."""
_LENGTH_LINES: Final = [b""] * _KEPT_LENGTHS
_REASONS: Final = {status.value: status.phrase.encode() for status in HTTPStatus}
_STATUS_LINES: Final = {
    status: b"HTTP/1.1 %d %s\r\n" % (status, reason) for status, reason in _REASONS.items()
}


def named_in_connection(headers: Iterable[Header]) -> frozenset[bytes]:
    """Return the field names that `Connection` declares to be for this hop only."""
    names: set[bytes] = set()
    for name, value in headers:
        if name == b"connection":
            names.update(token.strip().lower() for token in value.split(b","))
    return frozenset(names)


def passing(headers: list[Header], dropped: frozenset[bytes]) -> list[Header]:
    """Return the fields that are neither in `dropped` nor named in `Connection`."""
    if find(headers, b"connection") is not None:
        dropped |= named_in_connection(headers)
    return [header for header in headers if header[0] not in dropped]


def to_engine(headers: list[Header]) -> list[Header]:
    """Return the fields of a request that go on to an engine."""
    return [field for field in passing(headers, NOT_FORWARDED) if not _stays(field[0])]


def _stays(name: bytes) -> bool:
    # Some servers do not tell "_" from "-".
    plain = name.replace(b"_", b"-")
    return plain in NOT_FORWARDED or plain.startswith(_OF_PROXIES)


def status_line(status: int) -> bytes:
    """Return `HTTP/1.1 <status> <reason>` with its line end."""
    line = _STATUS_LINES.get(status)
    return line if line is not None else b"HTTP/1.1 %d \r\n" % status


def render(start_line: bytes, headers: Iterable[Header]) -> bytes:
    """Write a head. `start_line` has its line end; values were checked by a parser or are ours."""
    return b"%b%b\r\n" % (start_line, render_fields(headers))


def render_fields(headers: Iterable[Header]) -> bytes:
    """Write fields, each with its line end; nothing more."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def fields_bytes(headers: Iterable[Header]) -> int:
    """Return the bytes of the names and values, without what stands between them."""
    return sum(len(name) + len(value) for name, value in headers)


def field_of(name: bytes, value: bytes) -> Header:
    """A header field as the parser found it, which leaves the spaces behind a value that are none
    of it (RFC 9110, section 5.5). A transfer coding stays as it is: what to make of one with spaces
    is not agreed upon, and both sides refuse all but the plain word.
    """
    name = name.lower()
    return name, value if name == b"transfer-encoding" else value.rstrip(b" \t")


def length_line(length: int) -> bytes:
    """The field Content-Length as the last of a head, with its line end and the blank line."""
    if length >= _KEPT_LENGTHS:
        return b"content-length: %d\r\n\r\n" % length
    line = _LENGTH_LINES[length]
    if not line:
        line = _LENGTH_LINES[length] = b"content-length: %d\r\n\r\n" % length
    return line


def find(headers: Iterable[Header], name: bytes) -> bytes | None:
    """Return the value of the first field called `name` (lower case), or None."""
    for each, value in headers:
        if each == name:
            return value
    return None
