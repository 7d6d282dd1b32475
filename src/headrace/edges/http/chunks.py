"""Chunks of a body that came whole, read without the parser: RFC 9112 section 7.1, the plain form.

Extensions, trailers and chunks that were cut on the wire are for the parser.
"""

from __future__ import annotations

MOST_SIZE_DIGITS = 8
"""Digits of a chunk's size that are read here."""
_NO_DIGIT = frozenset((b"x", b"X"))
_END = b"\r\n"


def chunk_start(data: bytes) -> int:
    """Where the content of `data` begins if it is exactly one chunk, else 0; 0 for the last one."""
    line_end = data.find(_END, 1, MOST_SIZE_DIGITS + 2)
    if line_end < 0 or not data.endswith(_END):
        return 0
    size = _size(data[:line_end])
    return line_end + 2 if size > 0 and len(data) == line_end + size + 4 else 0


def whole_chunks(data: bytes) -> list[bytes] | None:
    """The contents of `data` if it is one chunk or several, else None.

    An empty content at the end is the chunk that ends the body, with nothing behind it.
    """
    contents: list[bytes] = []
    at, length = 0, len(data)
    while at < length:
        line_end = data.find(_END, at + 1, at + MOST_SIZE_DIGITS + 2)
        size = _size(data[at:line_end]) if line_end > 0 else -1
        begin = line_end + 2
        at = begin + size + 2
        if size < 0 or not data.startswith(_END, at - 2):
            return None
        if not size and at < length:
            return None
        contents.append(data[begin : at - 2])
    return contents or None


def _size(digits: bytes) -> int:
    """The number; -1 for what is none."""
    # `int` would take a sign, blanks, underscores and "0x" as well.
    if not digits.isalnum() or digits[1:2] in _NO_DIGIT:
        return -1
    try:
        return int(digits, 16)
    except ValueError:
        return -1
