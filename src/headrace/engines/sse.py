"""Cuts a byte stream into whole server-sent events. Lossless: the pieces joined are the stream."""

from __future__ import annotations

import re
from typing import Final

from headrace.engines.fragment import Fragment

# A blank line ends an event: two line ends in a row, each of "\r\n", "\n" or "\r". The atomic
# groups keep "\r\n" one line end; it must not be taken for two when no second one follows.
_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LONGEST_END: Final = 4
_USUAL_END: Final = b"\n\n"


class SseSplitter:
    """Incremental splitter of one stream. Holds at most `max_event_bytes` of an unfinished event.

    Where the bytes happen to be cut on the wire makes no difference to the events.
    """

    __slots__ = ("_held", "_in_fragment", "_max_event_bytes", "is_within_event")

    def __init__(self, max_event_bytes: int = 4 * 1024 * 1024) -> None:
        self._max_event_bytes = max_event_bytes
        self._held = bytearray()
        self._in_fragment = False
        self.is_within_event = False
        """Whether what came so far ends within an event."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes, return the events they complete, each with its closing blank line.

        Of an event longer than `max_event_bytes` the bytes come out as `Fragment`s as they arrive.
        """
        if self._held or self._in_fragment or len(data) > self._max_event_bytes:
            return self._split(data)
        if is_one_event(data, 0, len(data)):
            return [data]
        if data.find(b"\r") < 0:
            # Several whole events, the usual end of a stream: the same as below, in one go.
            *events, rest = data.split(_USUAL_END)
            if not rest:
                return [event + _USUAL_END for event in events]
        return self._split(data)

    def flush(self) -> bytes:
        """Return what is held when the stream has ended: an event without its blank line."""
        rest = bytes(self._held)
        self._held.clear()
        self._in_fragment = self.is_within_event = False
        return rest

    def _split(self, data: bytes) -> list[bytes]:
        held = self._held
        # An end may have begun in what is held; nothing before that needs to be looked at again.
        look_from = max(0, len(held) - _LONGEST_END + 1)
        held += data
        events: list[bytes] = []
        start = 0
        while end := _END.search(held, look_from):
            if end.end() == len(held) and held[-1] == _CR:
                break  # a "\n" may follow and belongs to this line end
            events.append(self._piece(held[start : end.end()]))
            self._in_fragment = False
            start = look_from = end.end()
        del held[:start]
        if len(held) > self._max_event_bytes or self._in_fragment:
            self._let_go(events)
        self.is_within_event = bool(held) or self._in_fragment
        return events

    def _piece(self, piece: bytearray) -> bytes:
        whole = not self._in_fragment and len(piece) <= self._max_event_bytes
        return bytes(piece) if whole else Fragment(piece)

    def _let_go(self, events: list[bytes]) -> None:
        """Pass on all that is held but the last bytes, in which the event's end may begin."""
        keep_from = max(0, len(self._held) - _LONGEST_END + 1)
        if keep_from:
            events.append(Fragment(self._held[:keep_from]))
            del self._held[:keep_from]
        self._in_fragment = True


_CR: Final = 0x0D
_LF: Final = 0x0A


def is_one_event(data: bytes, start: int, end: int) -> bool:
    """Whether `data[start:end]` is exactly one event, the way engines nearly always send them."""
    last = end - 2
    if last <= start or data[last] != _LF or data[last + 1] != _LF:
        return False
    # One byte is found faster than two, and most events have one line.
    if data.find(b"\n", start, end) != last and data.find(_USUAL_END, start, end) != last:
        return False
    return data.find(b"\r", start, end) < 0


def event_data(event: bytes) -> bytes:
    """Return the payload of an event: its `data:` lines joined with a newline, else nothing."""
    if event.startswith(b"data: "):
        end = event.find(b"\n")
        if end == len(event) - 2 and event.find(b"\r") < 0:
            return event[6:end]
    lines = (line for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines)
