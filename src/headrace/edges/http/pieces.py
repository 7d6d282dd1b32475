"""A body as it arrives, in pieces whose number is bounded by its bytes.

A client may send a body in chunks of one byte. Each kept as it came would take fifty bytes of
memory that no limit counts, and an engine's connection does not take millions of them at once.
"""

from __future__ import annotations

from typing import Final

PIECE_BYTES: Final = 16 * 1024
"""Pieces shorter than this are joined with their neighbours, but for the first one: most bodies
are a single short piece, which is not copied.
"""


NO_PIECES: Final[list[bytes]] = []
"""Of a body that has not begun, or is gone. One for all: connections outnumber bodies."""


class Pieces:
    """The pieces of one body after another: `add` each, `take` the whole, `clear`."""

    __slots__ = ("_tail", "_whole")

    def __init__(self) -> None:
        self._whole = NO_PIECES
        self._tail: bytearray | None = None

    def add(self, piece: bytes) -> None:
        """Append what has come."""
        if len(piece) >= PIECE_BYTES or not self._whole:
            if self._tail is not None:
                self._seal(self._tail)
            if self._whole:
                self._whole.append(piece)
            else:
                self._whole = [piece]
            return
        tail = self._tail
        if tail is None:
            tail = self._tail = bytearray()
        tail += piece
        if len(tail) >= PIECE_BYTES:
            self._seal(tail)

    def take(self) -> list[bytes]:
        """Return the pieces of the body that is whole; the next one begins."""
        if self._tail is not None:
            self._seal(self._tail)
        whole, self._whole = self._whole, NO_PIECES
        return whole

    def clear(self) -> None:
        """Let go of what has come."""
        self._whole, self._tail = NO_PIECES, None

    def _seal(self, tail: bytearray) -> None:
        self._whole.append(bytes(tail))
        self._tail = None
