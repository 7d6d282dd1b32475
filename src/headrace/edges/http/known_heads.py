"""Heads that a parser has accepted before, so that it need not read them again.

Clients and engines repeat themselves: from one message of theirs to the next, only the digits of
Content-Length differ in the head. A head is known by its bytes without these digits. What is found
here is therefore byte for byte what the strict parser and our own rules have accepted before, and
its framing is one number. All else goes through the parser: an unknown head, a message that did
not come whole and alone in one read, any transfer coding but that of a stream in chunks.

The head of such a stream is kept byte for byte, the last one alone. An engine that sends `date:`
changes it each second, one with an id of each answer changes it always, and all engines of a pool
of connections share one place: where few streams begin in a second, or engines differ in their
heads, the parser reads most of them. That costs its time and changes nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

from headrace.edges.http.heads import Header

MOST_HEADS: Final = 256
"""Heads kept by one table; the oldest leaves first. A client that puts an id of its own into every
head fills it with useless ones, and then all heads are parsed, as if there were no table."""
MAX_HEAD_BYTES: Final = 4096
"""Longest head that is kept: one table holds a megabyte at most."""

MOST_DIGITS: Final = 9
"""Of a length that is read without the parser."""

_ZERO: Final = ord("0")
_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,%d})\r\n" % MOST_DIGITS)

Known = TypeVar("Known")


class KnownHeads(Generic[Known]):
    """What was made of each head, by its bytes."""

    __slots__ = ("_digits", "_known", "_latest")

    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}
        self._digits = 0  # so many had the length before, and the next one most likely has
        # The head found last, before and after its digits, and what is known of it.
        self._latest: tuple[bytes, bytes, Known] | None = None

    def __len__(self) -> int:
        return len(self._known)

    def match(self, data: bytes) -> tuple[Known, int] | None:
        """What is known of the head that `data` begins with, and where its body begins.

        None unless `data` is exactly one message with a known head.
        """
        latest = self._latest
        if latest is not None:
            before, after, known = latest
            start = len(before)
            if data.startswith(before):
                end = start + self._digits
                body = end + len(after)
                if data[end:body] != after:
                    end = data.find(b"\r", start, start + MOST_DIGITS + 1)
                    body = end + len(after)
                if end > start and data[end:body] == after:
                    self._digits = end - start
                    whole = len(data) - body == _number(data, start, end)
                    return (known, body) if whole else None
        return self._search(data)

    def _search(self, data: bytes) -> tuple[Known, int] | None:
        end = data.find(_END, 0, MAX_HEAD_BYTES)
        found = _LENGTH.search(data, 0, end + 2) if end > 0 else None
        if found is None or len(data) - end - 4 != int(found[1]):
            return None
        start, after = found.span(1)
        known = self._known.get(data[:start] + data[after:end])
        if known is None:
            return None
        self._latest = (data[:start], data[after : end + 4], known)
        return known, end + 4

    def keep(self, data: bytes, known: Known) -> None:
        """Remember what was made of the head that `data` begins with.

        The caller vouches that the parser began at the first byte and that `is_plain` holds for
        the head. What is kept must not tell the length: the next message has another.
        """
        end = data.find(_END, 0, MAX_HEAD_BYTES)
        found = _LENGTH.search(data, 0, end + 2) if end > 0 else None
        if found is None:
            return
        if len(self._known) >= MOST_HEADS:
            del self._known[next(iter(self._known))]
        start, after = found.span(1)
        self._known[data[:start] + data[after:end]] = known


class KnownStreamHead(Generic[Known]):
    """What was made of the head of a body in chunks: the last one, byte for byte."""

    __slots__ = ("_head", "_known")

    def __init__(self) -> None:
        self._head = b""
        self._known: Known | None = None

    def match(self, data: bytes) -> tuple[Known, bytes] | None:
        """What is known of the head that `data` begins with, and that head."""
        known = self._known
        return (known, self._head) if known is not None and data.startswith(self._head) else None

    def keep(self, data: bytes, headers: int, known: Known) -> None:
        """Remember what was made of the head that `data` begins with, with so many fields.

        The caller vouches that the parser began at the first byte and that `is_chunked` holds.
        """
        end = data.find(_END, 0, MAX_HEAD_BYTES)
        # As many lines as the parser saw, and the blank one: it ended where we think it did.
        if end > 0 and data.count(b"\n", 0, end) == headers:
            self._head, self._known = data[: end + 4], known


def _number(data: bytes, start: int, end: int) -> int:
    """The number that the digits there write; -1 where anything but digits is among them."""
    number = 0
    for at in range(start, end):
        digit = data[at] - _ZERO
        if not 0 <= digit <= 9:
            return -1
        number = 10 * number + digit
    return number


def without_length(headers: Sequence[Header]) -> list[Header]:
    """The fields that all messages with a known head have in common."""
    return [header for header in headers if header[0] != b"content-length"]


def is_plain(headers: Sequence[Header]) -> bool:
    """Whether Content-Length alone says where a message ends, and nothing else is asked for."""
    names = [name for name, _ in headers]
    return names.count(b"content-length") == 1 and _ODD.isdisjoint(names)


def is_chunked(headers: Sequence[Header]) -> bool:
    """Whether a body comes in chunks, and nothing else is asked for."""
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    others = (name for name, _ in headers if name != b"transfer-encoding")
    return codings == [b"chunked"] and _STRANGE.isdisjoint(others)


_STRANGE: Final = frozenset((b"content-length", b"expect", b"upgrade", b"trailer"))
_ODD: Final = frozenset((b"transfer-encoding", b"expect", b"upgrade", b"trailer"))
