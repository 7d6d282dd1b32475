"""A stream in full flow: chunks that differ from one read before in nothing but words.

From one event of an engine's stream to the next only the model's words change. A chunk that has
the bytes of one that passed, up to the string with the words and from its end on, with other words
that need no escaping in between, is the same event with other words: it passes unread. Whatever
differs in more (an end, a usage, an error, a quote or a line end in the words) is read. Several
such chunks that came in one read pass together.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from headrace.edges.http.chunks import size_line
from headrace.gateway.metrics.meter import Meter
from headrace.gateway.relay import StreamRelay

_BLANK: Final = 0x20
_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
_LONGEST: Final = 2048
"""Bytes of a chunk that may pass; a longer one says many words at once, and there are few."""
_MOST_TRIES: Final = 8
"""Shapes in a row that the next event did not have; such a stream is read to its end."""


def _size_lines() -> list[bytes]:
    """The size line of a chunk by the length of the chunk, as engines write it."""
    lines: list[bytes] = []
    for size in range(1, _LONGEST):
        line = b"%x\r\n" % size
        # A size with one digit more makes the chunk longer by two: one length has no line.
        lines += [b""] * (size + len(line) + 2 - len(lines))
        lines.append(line)
    return lines


_SIZE_LINES: Final = _size_lines()
_CHUNK_END: Final = b"\r\n"
_NO_END: Final = b"\0"  # no chunk ends so


def _are_words(chunk: bytes, start: int, end: int) -> bool:
    """Whether there is text that stands in a JSON string as it is."""
    for at in range(start, end):
        byte = chunk[at]
        if byte < _BLANK or byte in (_QUOTE, _BACKSLASH):
            return False
    return start < end


class Steady:
    """Passes the ordinary chunks of one stream on, and counts them."""

    __slots__ = (
        "_begin",
        "_clock",
        "_end",
        "_end_bytes",
        "_prefix",
        "_relay",
        "_size",
        "_times",
        "_tries",
        "_write",
    )

    def __init__(self, relay: StreamRelay, meter: Meter, write: Callable[[bytes], None]) -> None:
        self._relay = relay
        self._write = write
        self._times = meter.passed()
        self._clock = monotonic  # looked up once, not for each chunk
        self._begin = b""
        self._size = 0
        """Of the chunk before, in bytes; 0 if another shape is expected since."""
        self._prefix = b""
        """What a chunk of that size begins with."""
        self._end = _NO_END
        self._end_bytes = 0
        self._tries = 0

    def takes(self, chunk: bytes) -> bool:
        """Send a chunk on that is as expected; any other is to be read, and nothing was done.

        Called between two chunks, and not while a part of an event is held.
        """
        if not self._is_expected(chunk):
            return chunk.endswith(self._end) and self._takes_several(chunk)
        self._tries = 0
        self._times.append(self._clock())
        self._write(chunk)
        return True

    def _is_expected(self, chunk: bytes) -> bool:
        size = len(chunk)
        if size != self._size:
            line = _SIZE_LINES[size] if size < len(_SIZE_LINES) else b""
            if not line:
                return False
            self._size, self._prefix = size, line + self._begin
        return (
            chunk.startswith(self._prefix)
            and chunk.endswith(self._end)
            and _are_words(chunk, len(self._prefix), size - self._end_bytes)
        )

    def _takes_several(self, data: bytes) -> bool:
        """Send chunks on that came together, in one, as if they were read; none if one is not as
        expected.
        """
        contents: list[bytes] = []
        at, length = 0, len(data)
        while at < length:
            size, begin = size_line(data, at, length)
            end = begin + size + 2
            if size <= 0 or end > length or not self._is_expected(data[at:end]):
                return False
            contents.append(data[begin : end - 2])
            at = end
        now = self._clock()
        for _ in contents:
            self._times.append(now)
        content = b"".join(contents)
        self._tries = 0
        self._write(b"%x\r\n%b\r\n" % (len(content), content))
        return True

    def passes(self, chunk: bytes, start: int) -> bool:
        """Send a chunk on if `chunk[start:-2]` is one event with content, nothing being held.

        Such chunks are expected from then on.
        """
        if not self._relay.passes(chunk, start):
            return False
        self._times.append(self._clock())
        self._write(chunk)
        self._expect(chunk, start, b"")
        return True

    def read(self, content: bytes, now: float) -> bytes:
        """Read what came with others in one read, and return what the client is to get of it.

        From an event with content it is learned what chunks to expect.
        """
        if self._relay.passes_alone(content):
            self._times.append(now)
            self._expect(content, 0, _CHUNK_END)
            return content
        self._end = _NO_END  # something else: the next chunk is read
        return self._relay.feed(content, now)

    def _expect(self, chunk: bytes, start: int, chunk_end: bytes) -> None:
        """Expect chunks like this one from `start` on, behind which `chunk_end` is to come."""
        begin, end = self._relay.words_in(chunk, start)
        if not begin:  # words with an escape: the next ones may be as before
            return
        if self._tries >= _MOST_TRIES:
            self._end = _NO_END
            return
        self._tries += 1
        self._size = 0
        self._begin = chunk[start:begin]
        self._end = chunk[end:] + chunk_end
        self._end_bytes = len(self._end)
