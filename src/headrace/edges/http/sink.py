"""What a reader of an engine's answer is told, and in which order."""

from __future__ import annotations

from typing import Protocol

from headrace.edges.http.ports import AnswerHead


class AnswerSink(Protocol):
    """Whoever reads an answer. After `answer_complete`, `_failed` or `_cut` nothing more comes."""

    def answer_head(self, head: AnswerHead) -> None:
        """The final status and fields (interim 1xx answers are not passed on)."""
        ...

    def answer_chunk(self, chunk: bytes, start: int) -> None:
        """A piece of the body that came alone, as one chunk with its framing.

        The piece is `chunk[start:-2]`. Nothing else came with it, so it is to be written out now.
        """
        ...

    def answer_body(self, data: bytes) -> None:
        """A piece of the body, framing taken off."""
        ...

    def answer_flush(self) -> None:
        """All pieces that arrived together have been handed over: write them out now."""
        ...

    def answer_complete(self, framed: bool) -> None:
        """The answer is whole. `framed` False: only the closed connection says so."""
        ...

    def answer_whole(self, head: AnswerHead, body: bytes) -> None:
        """All of an answer at once, in place of head, body and completion."""
        ...

    def answer_failed(self, reason: str) -> None:
        """The answer cannot be had, or not to its end."""
        ...

    def answer_cut(self, reason: str) -> None:
        """As `answer_failed`, by a fault of our own: it says nothing about the engine."""
        ...


class InParts:
    """For a sink that takes a whole answer as it takes one that comes in parts, and that does not
    ask whose fault a failure is.
    """

    __slots__ = ()

    def answer_cut(self: AnswerSink, reason: str) -> None:
        """See `AnswerSink`."""
        self.answer_failed(reason)

    def answer_whole(self: AnswerSink, head: AnswerHead, body: bytes) -> None:
        """See `AnswerSink`."""
        self.answer_head(head)
        self.answer_body(body)
        self.answer_complete(framed=True)
