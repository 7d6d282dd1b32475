"""The port between an answer and the API it is written for.

    Completion ─► opening ─► event, once for each token ─► ending        (a stream)
               └► whole                                                  (or not)

One form for each API, one object for each answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec

encode = msgspec.json.Encoder().encode


class Spent(NamedTuple):
    """The tokens of an answer; `cached_tokens` is None where the engine does not tell them."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None


class Ended(NamedTuple):
    """An answer, or one of its choices, when its last token is there."""

    number: int
    text: str
    logprobs: dict[str, object] | None
    reason: str
    """Why it ended, as the completions API has it."""
    stop_reason: str | None
    """The stop string that ended it."""
    spent: Spent


class Form(Protocol):
    """How one answer is written.

    If its events are `alike`, an ordinary one is `head + word + tail`, made by `opening`.
    """

    alike: bool
    head: bytes
    tail: bytes

    def opening(self, spent: Spent, *, usage: bool) -> bytes:
        """What stands before the first word; `usage` asks for a usage in it."""
        ...

    def event(
        self,
        word: bytes,
        reason: str | None,
        spent: Spent | None,
        stop_reason: str | None = None,
        logprobs: dict[str, object] | None = None,
    ) -> bytes:
        """An event with one token, which is the last one if there is a reason."""
        ...

    def ending(self, ended: Ended, *, usage: bool) -> list[bytes]:
        """What follows the last token; `usage` asks for the usage. One piece at least."""
        ...

    def whole(self, choices: Sequence[Ended], spent: Spent) -> bytes:
        """The body of an answer that is not streamed."""
        ...


def named_event(kind: str, **fields: object) -> bytes:
    """An event of a stream whose events have names."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), encode({"type": kind, **fields}))
