"""How the events of one endpoint look around what changes in them: learnt once, then recognised.

    opening   BEFORE "id" BEHIND      the first event of a stream, without content
    token     HEAD text TAIL          with the "id" in one of them, or in both

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
_MOST_EVENT_BYTES = 8192
"""Of an event that is learnt from. What looks for its text takes the square of its length, if it
is made for that; a usual event has a few hundred."""
_TEXT = re.compile(
    rb'data: \{[^\n]*?"(?:content|reasoning_content|reasoning|text)":"'
    rb'((?:[^"\\\n]|\\.)+)'
    rb'"[^\n]*\n\n\Z'
)
"""An event with one text, its text as the group; other kinds of content go the long way."""
_ID = re.compile(rb'"id":("[^"\\\n]+")')
_USAGE, _NO_USAGE = b'"usage"', b'"usage":null'


class Around(NamedTuple):
    """What stands before and behind the texts of a stream."""

    head: bytes
    tail: bytes
    chunk_tail: bytes
    """The same as `tail` where the event is a chunk of its own."""

    def holds(self, event: bytes) -> bool:
        """Whether an event has these, and in between a text without a quote.

        A quote would be the end of the text, or escaped within it.
        """
        begin, end = len(self.head), len(event) - len(self.tail)
        return (
            event.startswith(self.head)
            and event.endswith(self.tail)
            and begin < end == event.find(b'"', begin)
        )


def around_text(event: bytes) -> Around | None:
    """Of an event that brought a token; None if there is more in it than a text, or it is long."""
    # One line and the blank one: the content of a second line would be looked for from each text.
    if len(event) > _MOST_EVENT_BYTES or event.find(b"\n") != len(event) - 2:
        return None
    found = _TEXT.match(event)
    if found is None or (_USAGE in event and _NO_USAGE not in event):
        return None
    tail = event[found.end(1) :]
    return Around(event[: found.start(1)], tail, tail + b"\r\n")


class Forms:
    """Of one endpoint, as one process knows it."""

    __slots__ = ("_chunk_tail", "_head", "_is_upper", "_opening", "_tail", "shape", "size_lines")

    def __init__(self) -> None:
        self._opening = (NEVER, NEVER)
        self._head: list[bytes] = []
        self._tail: list[bytes] = []
        self._chunk_tail: list[bytes] = []
        """What stands between ids in the parts of `Around`."""
        self._is_upper = False
        self.shape = NO_SHAPE_YET
        """See `ChunkReader`."""
        self.size_lines: dict[int, bytes] = {}
        """By the size of a read, what it begins with if it is one chunk; see `size_line`."""

    def begun(self, data: bytes) -> tuple[Around, int] | None:
        """What texts will stand in, and the bytes of the opening, if `data` begins with one."""
        before, behind = self._opening
        if not data.startswith(before):
            return None
        begin = len(before)
        end = data.find(b'"', begin + 1) + 1
        if not data.startswith(behind, end) or data.find(b"\\", begin, end) >= 0:
            return None
        quoted = data[begin:end]
        parts = (self._head, self._tail, self._chunk_tail)
        return Around(*map(quoted.join, parts)), end + len(behind)

    def learn(self, opening: bytes, around: Around) -> None:
        """Take these for the forms of all streams: an opening, and what its texts stand in."""
        found = _ID.search(opening)
        if found is None:
            return
        quoted = found[1]
        if opening.count(quoted) == 1 and (quoted in around.head or quoted in around.tail):
            self._opening = (opening[: found.start(1)], opening[found.end(1) :])
            self._head, self._tail, self._chunk_tail = (part.split(quoted) for part in around)

    def saw_size(self, digits: bytes) -> None:
        """Take notice if the endpoint writes its hexadecimal digits in capitals."""
        if digits.isupper() and not self._is_upper:
            self._is_upper = True
            self.size_lines.clear()

    def size_line(self, size: int) -> bytes:
        """What a read of so many bytes begins with if it is one chunk."""
        digits = 1
        while size - _FRAME_BYTES - digits >= 16**digits:
            digits += 1
        form = b"%X\r\n" if self._is_upper else b"%x\r\n"
        line = form % max(size - _FRAME_BYTES - digits, 0)
        if len(self.size_lines) < _MOST_SIZE_LINES:
            self.size_lines[size] = line
        return line
