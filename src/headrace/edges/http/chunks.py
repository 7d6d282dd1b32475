"""Chunks of a body that came whole, read without the parser: RFC 9112 section 7.1, the plain form.

Extensions, trailers and chunks that were cut on the wire are for the parser.
"""

from __future__ import annotations

from typing import Final

MOST_SIZE_DIGITS: Final = 8
"""Digits of a chunk's size that are read here."""
_NO_DIGIT: Final = 16
_CR: Final = 0x0D
_LF: Final = 0x0A


def _digits() -> bytes:
    """What each byte is worth as a hexadecimal digit, `_NO_DIGIT` where it is none."""
    worth = bytearray([_NO_DIGIT] * 256)
    for value in range(_NO_DIGIT):
        for digit in b"%x%X" % (value, value):
            worth[digit] = value
    return bytes(worth)


_DIGITS: Final = _digits()


def size_line(data: bytes, at: int, length: int) -> tuple[int, int]:
    """The size that the chunk at `data[at:length]` tells, and where its content begins; -1 and 0
    where no plain size stands there.
    """
    size, end = 0, at
    while end < length and end - at < MOST_SIZE_DIGITS:
        digit = _DIGITS[data[end]]
        if digit == _NO_DIGIT:
            break
        size = size * 16 + digit
        end += 1
    if end == at or end + 2 > length or data[end] != _CR or data[end + 1] != _LF:
        return -1, 0
    return size, end + 2


def chunk_start(data: bytes) -> int:
    """Where the content of `data` begins if it is exactly one chunk, else 0; 0 for the last one."""
    length = len(data)
    size, begin = size_line(data, 0, length)
    if size <= 0 or length != begin + size + 2:
        return 0
    return begin if data[length - 2] == _CR and data[length - 1] == _LF else 0


def whole_chunks(data: bytes) -> list[bytes] | None:
    """The contents of `data` if it is one chunk or several, else None.

    An empty content at the end is the chunk that ends the body, with nothing behind it.
    """
    contents: list[bytes] = []
    at, length = 0, len(data)
    while at < length:
        size, begin = size_line(data, at, length)
        at = begin + size + 2
        if size < 0 or at > length or data[at - 2] != _CR or data[at - 1] != _LF:
            return None
        if not size and at < length:
            return None
        contents.append(data[begin : at - 2])
    return contents or None
