"""How the events of one endpoint look around what changes in them: learnt once, then recognised.

    opening   BEFORE id BEHIND               the first event of a stream, without content
    token     BEFORE id BETWEEN text TAIL

From one stream to the next only the id changes as a rule, within a stream only the text. So the
opening of a stream, which gives its id, tells what stands around each text to come, and nothing of
it has to be parsed. Whatever looks otherwise is parsed, and learnt anew.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from headrace.engines.chunks import NO_SHAPE_YET

NEVER = b"\n\0"
"""Never in an event: what looks for it goes the long way."""
_FRAME_BYTES = 4
"""Line ends around the content of a chunk."""
_MOST_SIZE_LINES = 256
_TEXT = re.compile(
    rb'data: \{[^\n]*?"(?:content|reasoning_content|reasoning|text)":"'
    rb'((?:[^"\\\n]|\\.)+)'
    rb'"[^\n]*\n\n\r\n\Z'
)
"""An event with one text, its text as the group; other kinds of content go the long way."""
_ID = re.compile(rb'"id":"([^"\\\n]+)"')
_USAGE, _NO_USAGE = b'"usage"', b'"usage":null'


class Around(NamedTuple):
    """What stands before and behind the texts of a stream, from one chunk's size to the next."""

    head: bytes
    tail: bytes


def around_text(chunk: bytes, start: int) -> Around | None:
    """Of a chunk whose content begins at `start`; None if it is not one event with a text alone.

    Of the events that follow, those that have both, and in between something without a quote,
    carry one token more: a quote would be the end of the text, or escaped within it.
    """
    found = _TEXT.match(chunk, start)
    if found is None or (_USAGE in chunk and _NO_USAGE not in chunk):
        return None
    return Around(chunk[start - 2 : found.start(1)], chunk[found.end(1) :])


class Forms:
    """Of one endpoint, as one process knows it."""

    __slots__ = ("_before", "_between", "_is_upper", "_opening", "_tail", "shape", "size_lines")

    def __init__(self) -> None:
        self._opening = (NEVER, NEVER)
        self._before = self._between = self._tail = b""
        self._is_upper = False
        self.shape = NO_SHAPE_YET
        """See `ChunkReader`."""
        self.size_lines: dict[int, bytes] = {}
        """By the size of a read, what it begins with if it is one chunk; see `size_line`."""

    def around(self, opening: bytes) -> Around | None:
        """What the texts of a stream that begins with this event will stand in, if it is known."""
        before, behind = self._opening
        if not opening.startswith(before) or not opening.endswith(behind):
            return None
        stream_id = opening[len(before) : len(opening) - len(behind)]
        if b'"' in stream_id or b"\\" in stream_id:
            return None
        return Around(b"%b%b%b" % (self._before, stream_id, self._between), self._tail)

    def learn(self, opening: bytes, around: Around) -> None:
        """Take these for the forms of all streams: an opening, and what its texts stand in."""
        found = _ID.search(opening)
        if found is None:
            return
        stream_id = found[1]
        parts = around.head.split(stream_id)
        if len(parts) != 2 or opening.count(stream_id) != 1 or stream_id in around.tail:
            return
        self._opening = (opening[: found.start(1)], opening[found.end(1) :])
        self._before, self._between = parts
        self._tail = around.tail

    def saw_size(self, digits: bytes) -> None:
        """Take notice of whether the endpoint writes its hexadecimal digits in capitals."""
        if digits.isupper() and not self._is_upper:
            self._is_upper = True
            self.size_lines.clear()

    def size_line(self, size: int) -> bytes:
        """What a read of so many bytes begins with if it is one chunk."""
        digits = 1
        while size - _FRAME_BYTES - digits >= 16**digits:
            digits += 1
        form = b"%X" if self._is_upper else b"%x"
        line = form % max(size - _FRAME_BYTES - digits, 0)
        if len(self.size_lines) < _MOST_SIZE_LINES:
            self.size_lines[size] = line
        return line
