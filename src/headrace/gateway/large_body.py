"""JSON bodies too large to be parsed at one go without holding up every other stream.

A parser call on 64 MB keeps the interpreter for a third of a second. So a large body is scanned
piece by piece, in turns of the event loop, for the spans of its top-level members; values stay
where they are, and an edit replaces a span. The engine checks the JSON itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

Span = tuple[int, int]
"""Offsets of a value in the body: first byte, one past the last."""

_IN_STRING = re.compile(rb'["\\]')
# A string, perhaps one that the piece ends in (then without the group), or a bracket.
_NESTED = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(")?|[{}\[\]]', re.DOTALL)
_TOP = re.compile(rb'["{}\[\],:]')
_QUOTE = 0x22
_SPACE = b" \t\r\n"
_DATA_URL = b"data:"
_KEY_BYTES = 1024
"""A longer key cannot be one we know."""
MAX_MEMBERS = 10_000
"""At the top level of a body; the APIs know some fifty. Each costs 5 µs and 200 bytes."""

_decode = msgspec.json.Decoder().decode


class NotAnObject(ValueError):
    """The body is not one JSON object, as far as a scan can tell."""


class TooManyMembers(ValueError):
    """The body has over `MAX_MEMBERS` of them."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Where the members of a body lie, and how much of it is media.

    `begin` is the offset behind the opening brace. `media_bytes` counts strings that are data:
    URLs or base64 under a key `data`.
    """

    begin: int
    members: dict[str, Span]
    repeated: frozenset[str]
    media_items: int
    media_bytes: int


class MemberScanner:
    """Finds the top-level members of one body, fed piece by piece.

    Outside of strings only structure is looked at; a long string costs one search per piece.
    """

    __slots__ = (
        "_base",
        "_begin",
        "_depth",
        "_done",
        "_escaped",
        "_expect_key",
        "_in_string",
        "_key",
        "_last_string",
        "_media_bytes",
        "_media_items",
        "_members",
        "_repeated",
        "_string_at",
        "_string_head",
        "_value_at",
    )

    def __init__(self) -> None:
        self._base = 0
        self._begin = 0
        self._depth = 0
        self._done = False
        self._in_string = False
        self._escaped = False
        self._expect_key = False
        self._key: bytes | None = None
        self._value_at = 0
        self._string_at = 0
        self._string_head = bytearray()
        self._last_string = b""
        self._members: dict[str, Span] = {}
        self._repeated: set[str] = set()
        self._media_items = 0
        self._media_bytes = 0

    def feed(self, data: bytes) -> None:
        """Scan the next piece. Raises `NotAnObject` or `TooManyMembers`."""
        at = 0
        while at < len(data):
            at = self._string(data, at) if self._in_string else self._structure(data, at)
        self._base += len(data)

    def finish(self) -> Scan:
        """Return what was found. Raises `NotAnObject` if the body is not whole."""
        if not self._done:
            raise NotAnObject("the body ends before its JSON object does")
        return Scan(
            self._begin,
            self._members,
            frozenset(self._repeated),
            self._media_items,
            self._media_bytes,
        )

    def _string(self, data: bytes, at: int) -> int:
        """Go on inside a string; return where to go on after it, or the end of the piece."""
        start = at
        if self._escaped:
            self._escaped = False
            at += 1
        while True:
            found = _IN_STRING.search(data, at)
            end = len(data) if found is None else found.start()
            if found is None or data[end] == _QUOTE:
                break
            at = end + 2
            if at > len(data):  # the escaped byte is in the next piece
                self._escaped = True
                end, found = len(data), None
                break
        room = _KEY_BYTES - len(self._string_head)
        if room > 0:
            self._string_head += data[start : min(end, start + room)]
        if found is None:
            return len(data)
        self._in_string = False
        self._end_string(self._base + end + 1)
        return end + 1

    def _end_string(self, end: int) -> None:
        length = end - self._string_at
        if self._depth == 1 and self._expect_key:
            self._key = bytes(self._string_head) if length - 2 < _KEY_BYTES else b""
            return
        self._note_string(bytes(self._string_head[:16]), length)

    def _structure(self, data: bytes, at: int) -> int:
        """Go to the next piece of structure; return where to go on."""
        if self._done or self._depth == 0:
            return self._outside(data, at)
        if self._depth > 1:
            return self._nested(data, at)
        found = _TOP.search(data, at)
        if found is None:
            return len(data)
        at, token = found.start(), found.group()
        if token == b'"':
            self._in_string = True
            self._string_at = self._base + at
            self._string_head.clear()
        elif token in b"{[":
            self._depth += 1
        elif token in b"}]":
            self._depth -= 1
            if self._depth == 0:
                self._end_member(self._base + at)
                self._done = True
        elif token == b":" and self._expect_key:
            self._expect_key = False
            self._value_at = self._base + at + 1
        elif token == b",":
            self._end_member(self._base + at)
            self._expect_key = True
        return at + 1

    def _nested(self, data: bytes, at: int) -> int:
        """Go through nested values to their end, or to that of the piece."""
        for found in _NESTED.finditer(data, at):
            start, end = found.span()
            first = data[start]
            if first == _QUOTE:
                if found[1] is None:
                    self._in_string = True
                    self._string_at = self._base + start
                    self._string_head = bytearray(data[start + 1 : start + 1 + _KEY_BYTES])
                    self._escaped = end < len(data)  # all but a last backslash was taken
                    return len(data)
                self._note_string(data[start + 1 : start + 17], end - start)
            elif first in b"{[":
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == 1:
                    return end
        return len(data)

    def _note_string(self, head: bytes, length: int) -> None:
        """A nested string has ended; `head` is how it began."""
        if head.startswith(_DATA_URL) or (self._last_string == b"data" and length > _KEY_BYTES):
            self._media_items += 1
            self._media_bytes += length
        self._last_string = head[: length - 2]

    def _outside(self, data: bytes, at: int) -> int:
        """Before the object, or after it: nothing but white space may stand there."""
        rest = data[at:].lstrip(_SPACE)
        if not rest:
            return len(data)
        if self._done or not rest.startswith(b"{"):
            raise NotAnObject("the body is not one JSON object")
        self._depth = 1
        self._expect_key = True
        begin = len(data) - len(rest) + 1
        self._begin = self._base + begin
        return begin

    def _end_member(self, end: int) -> None:
        key, self._key = self._key, None
        if key is None:
            if self._members:
                raise NotAnObject("a member of the body has no name")
            return
        try:
            name = _decode(b'"%b"' % key)
        except msgspec.DecodeError:
            raise NotAnObject("a member's name is not a JSON string") from None
        if name in self._members:
            self._repeated.add(name)
        elif len(self._members) == MAX_MEMBERS:
            raise TooManyMembers
        self._members[name] = (self._value_at, end)


def cut(pieces: list[bytes], span: Span) -> bytes:
    """Return the bytes of a span."""
    return b"".join(_between(pieces, *span))


def replace(pieces: list[bytes], edits: list[tuple[Span, bytes]]) -> list[bytes]:
    """Return the body with each span replaced; an empty span is an insertion."""
    out: list[bytes] = []
    at = 0
    for (start, end), new in sorted(edits):
        out += _between(pieces, at, start)
        out.append(new)
        at = end
    out += _between(pieces, at, sum(map(len, pieces)))
    return out


def _between(pieces: list[bytes], start: int, end: int) -> list[bytes]:
    """The bytes from `start` to `end`, as slices of the pieces; whole pieces are not copied."""
    found: list[bytes] = []
    base = 0
    for piece in pieces:
        first, last = max(start - base, 0), min(end - base, len(piece))
        if first < last:
            found.append(piece if last - first == len(piece) else piece[first:last])
        base += len(piece)
        if base >= end:
            break
    return found
